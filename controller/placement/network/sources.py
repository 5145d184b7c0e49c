"""The topology that a command line names: a file of any kind that placement reads, or a generated network."""

from __future__ import annotations

import json
import re
from pathlib import Path

from controller.placement.network.generator import qmp_like
from controller.placement.network.netjson import from_netjson
from controller.placement.network.routing import PARSERS, from_routing_daemon, recognise, recognise_text
from controller.placement.network.topology import Topology, TopologyError

MAXIMUM_GENERATED = 100_000


def load_topology(source: str) -> Topology:
    """The topology of `FILE`, `olsr:FILE`, `batman:FILE`, `bmx6:FILE` or `qmp:N:SEED`; raises TopologyError.

    A FILE is a NetJSON NetworkGraph or what one of the routing daemons prints: its text says which.
    """
    kind, _, file = source.partition(":")
    if kind == "qmp":
        return _generated(source)
    try:
        return from_routing_daemon(kind, _read(file)) if kind in PARSERS else _detected(_read(source))
    except TopologyError as error:
        raise TopologyError(f"topology {source!r}: {error}") from error


def _generated(source: str) -> Topology:
    parts = re.fullmatch(r"qmp:(\d{1,9}):(\d{1,18})", source, re.ASCII)
    if not parts or not 1 <= int(parts[1]) <= MAXIMUM_GENERATED:
        raise TopologyError(
            f"{source!r} is no generated topology; 'qmp:54:7' (54 nodes, seed 7) and up to {MAXIMUM_GENERATED} nodes "
            "would be accepted"
        )
    return qmp_like(int(parts[1]), int(parts[2]))


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise TopologyError(f"it cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise TopologyError(f"it is no UTF-8 text: {error}") from error


def _detected(text: str) -> Topology:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        daemon = recognise_text(text)
        if not daemon:
            raise TopologyError(f"it is no JSON, line {error.lineno}: {error.msg}") from error
    except RecursionError as error:
        raise TopologyError("its JSON is nested too deeply") from error
    else:
        daemon = recognise(document)
    return from_routing_daemon(daemon, text) if daemon else from_netjson(document)
