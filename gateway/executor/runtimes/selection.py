"""Which container runtime works on this machine, of those that the owner allows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.executor.runtimes.base import Runtime

INSTALL = "install crun (OpenWrt: opkg install crun; Debian: apt-get install crun), or bubblewrap for an ordinary user"


@dataclass(frozen=True, slots=True)
class Selection:
    """The runtime, or None and why; `notes` say what else an owner should know."""

    runtime: Runtime | None
    notes: tuple[str, ...] = ()
    refusal: str = ""


def select(wanted: Sequence[str], directory: Path, tag: str) -> Selection:
    """Tries the runtimes in the owner's order, each with a real container; `auto` is oci as root, then bubblewrap."""
    if "none" in wanted:
        return Selection(None, refusal="the owner switched services off (executor.runtime none)")
    names = [name for each in wanted for name in (("oci", "bubblewrap") if each == "auto" else (each,))]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    notes: list[str] = []
    for name in dict.fromkeys(names):
        runtime = _try(name, directory, tag, notes)
        if runtime is not None:
            return Selection(runtime, (*notes, f"runtime: {runtime.name} ({runtime.note})"))
    return Selection(None, tuple(notes), f"no container runtime: {INSTALL}")


def _try(name: str, directory: Path, tag: str, notes: list[str]) -> Runtime | None:
    if name == "oci":
        return _oci(directory, tag, notes)
    if name == "bubblewrap":
        from gateway.executor.runtimes import bubblewrap

        problem = bubblewrap.probe()
        if problem:
            notes.append(f"runtime bubblewrap does not work: {problem}")
            return None
        return bubblewrap.BubblewrapRuntime(directory / "bubblewrap", tag)
    notes.append(f"runtime {name}: this version has none of that name")
    return None


def _oci(directory: Path, tag: str, notes: list[str]) -> Runtime | None:
    from gateway.executor.runtimes import oci

    if os.geteuid() != 0:
        notes.append("runtime oci needs root")
        return None
    command, problems = oci.find(directory)
    notes += [f"runtime {problem}" for problem in problems]
    if command is None:
        if not problems:
            notes.append("runtime oci: neither crun nor runc is installed")
        return None
    return oci.OciRuntime(directory / "oci", tag, command)
