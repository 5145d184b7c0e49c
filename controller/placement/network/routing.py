"""Topologies from what routing daemons print: OLSR (jsoninfo, txtinfo), batman-adv (alfred-vis, txtinfo), BMX6 (b6m).

netdiff's parsers read it. They give a link a cost and no rate: link_rates.py makes one of it, and the notes say so.
"""

from __future__ import annotations

import importlib

from controller.placement.network.netjson import from_netjson
from controller.placement.network.topology import Topology, TopologyError

FORMATS = {
    "olsr": "what jsoninfo and txtinfo print",
    "batman": "what alfred-vis (JSON) and txtinfo print",
    "bmx6": "what b6m prints (JSON)",
}
PARSERS = {"olsr": "OlsrParser", "batman": "BatmanParser", "bmx6": "Bmx6Parser"}


def from_routing_daemon(daemon: str, text: str) -> Topology:
    """The network in the output of a daemon of PARSERS; raises TopologyError."""
    netdiff = importlib.import_module("netdiff")  # brings networkx and requests
    lines = "\n".join(text.splitlines()) + "\n\n"  # a table ends at an empty line
    try:
        graph = getattr(netdiff, PARSERS[daemon])(data=lines, directed=True).json(dict=True)
    # The parsers check little: what is no such output fails wherever they first miss something.
    except (netdiff.exceptions.NetdiffException, LookupError, TypeError, ValueError, AttributeError) as error:
        raise TopologyError(f"this is no output of {daemon}; {FORMATS[daemon]} is accepted") from error
    except RecursionError as error:
        raise TopologyError(f"this is no output of {daemon}: nested too deeply") from error
    return from_netjson(graph)


def recognise(document: object) -> str:
    """The daemon whose JSON this is, "" for none of them."""
    if isinstance(document, list):
        return "bmx6"
    if isinstance(document, dict):
        return "batman" if "vis" in document else "olsr" if {"topology", "mid"} <= document.keys() else ""
    return ""


def recognise_text(text: str) -> str:
    """The daemon whose tables these are, "" for none of them."""
    if "Table: Topology" not in text:
        return ""
    return "olsr" if "Table: MID" in text else "batman"
