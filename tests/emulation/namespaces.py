"""Network namespaces of one run: named after the process that owns them, gone with it whatever ends it.

    pe.<pid>.<start of the process>.<node>

A guard process waits on a pipe; when the owner ends, also by SIGKILL, it kills what runs in the namespaces and
removes them. What a dead guard has left is removed by the next run, which knows the dead by pid and start time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
NETNS = Path("/run/netns")
MARK = "pe"
KILL_ROUNDS, ROUND_S = 100, 0.05
COMMAND_S = 30.0


class EmulationError(Exception):
    """Something cannot be emulated here; the text says what is missing and the way out."""


def require() -> None:
    """Raises EmulationError unless this process may make namespaces and has the tools."""
    if os.geteuid() != 0:
        raise EmulationError("emulation makes network namespaces, which only root may: run it with sudo")
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [tool for tool in ("ip", "tc", "nft") if shutil.which(tool, path=path) is None]
    if missing:
        raise EmulationError(f"{', '.join(missing)} missing; type: apt-get install iproute2 nftables")
    os.environ["PATH"] = path


def command(*arguments: str, text: str | None = None) -> str:
    """The output of a command; raises EmulationError with what it complained of."""
    done = subprocess.run(arguments, input=text, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    if done.returncode != 0:
        raise EmulationError(f"`{' '.join(arguments)}`: {done.stderr.strip() or done.returncode}")
    return done.stdout


def batch(program: str, lines: Iterable[str], namespace: str = "") -> None:
    """Many commands of `ip` or `tc` in one process; raises EmulationError."""
    text = "\n".join(lines)
    if text:
        command(program, *(["-n", namespace] if namespace else []), "-batch", "-", text=text + "\n")


# --- who owns what


def owner() -> str:
    """The part of a namespace's name that says which process it belongs to."""
    return f"{os.getpid()}.{started(os.getpid())}"


def started(pid: int) -> int:
    """When a process started, in clock ticks since boot: with the pid it names the process for good. 0: no such one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0 if fields[0] == "Z" else int(fields[19])
    except (OSError, IndexError):
        return 0


def of(owned_by: str) -> list[str]:
    """The namespaces of an owner."""
    return sorted(path.name for path in NETNS.glob(f"{MARK}.{owned_by}.*"))


def leftovers() -> list[str]:
    """The namespaces whose owner is dead."""
    found = []
    for path in NETNS.glob(f"{MARK}.*"):
        parts = path.name.split(".", 3)
        if len(parts) == 4 and parts[1].isdigit() and parts[2].isdigit() and started(int(parts[1])) != int(parts[2]):
            found.append(path.name)
    return sorted(found)


# --- removing


def remove(namespaces: Iterable[str]) -> None:
    """Kills everything that runs in the namespaces and removes them; those that are gone already are no error."""
    names = [name for name in namespaces if (NETNS / name).exists()]
    inodes = {(NETNS / name).stat().st_ino for name in names}
    for _ in range(KILL_ROUNDS):
        inside = processes_in(inodes)
        if not inside:
            break
        for pid in inside:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(ROUND_S)
    for name in names:
        with contextlib.suppress(EmulationError):
            command("ip", "netns", "del", name)


def processes_in(inodes: set[int]) -> list[int]:
    """The living processes in network namespaces, by the inode numbers of these."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # A zombie's link cannot be read, so it is not counted.
                if (entry / "ns/net").stat().st_ino in inodes:
                    found.append(int(entry.name))
    return found


class Guard:
    """Removes the namespaces of this process, and a directory, when it is closed or when this process dies."""

    def __init__(self, directory: Path | None) -> None:
        arguments = [sys.executable, "-m", "tests.emulation.namespaces", owner(), str(directory or "")]
        self._process = subprocess.Popen(
            arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def _guard(owned_by: str, directory: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.read(0, 1)  # returns when the owner has closed the pipe, or is no more
    remove(of(owned_by))
    if directory:
        shutil.rmtree(directory, ignore_errors=True)


# --- inside


class Inside:
    """Runs short functions inside namespaces, on one thread of its own, for a thread may enter one by itself."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, "namespace")

    def run(self, namespace: str, function: Callable[[], T]) -> T:
        return self._worker.submit(_enter_and_run, namespace, function).result()

    def close(self) -> None:
        self._worker.shutdown()


def _enter_and_run(namespace: str, function: Callable[[], T]) -> T:
    enter(namespace)
    return function()


def enter(namespace: str) -> None:
    """Moves the calling thread into a namespace, for good: call it on a thread that was made for this."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(NETNS / namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, 0x40000000) != 0:  # CLONE_NEWNET
            raise EmulationError(f"{namespace}: cannot be entered: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)


def main(arguments: Sequence[str]) -> int:
    """`python -m tests.emulation.namespaces clean` removes what dead runs left; with an owner it is its guard."""
    if len(arguments) == 2:
        _guard(*arguments)
        return 0
    if list(arguments) != ["clean"]:
        print("usage: python -m tests.emulation.namespaces clean", file=sys.stderr)
        return 2
    found = leftovers()
    remove(found)
    print(f"{len(found)} namespaces of dead runs removed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
