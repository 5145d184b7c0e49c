"""Containers through bubblewrap, for an ordinary user: namespaces and resource limits, no cgroups."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from gateway.executor.runtimes import processes, seccomp
from gateway.executor.runtimes.base import Launch, RuntimeFailure, Stats
from gateway.executor.runtimes.supervised import SHIM, ShimCommand, SupervisedRuntime
from gateway.executor.shim import TIMED_OUT

PIDS_MAX = 64
_COMMAND_S = 10.0
_DEVICES = ("null", "zero", "full", "random", "urandom")
_NAMESPACES = ("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts")


def probe() -> str:
    """Runs /bin/true of this machine in a sandbox as services have it; the problem, empty when it worked."""
    program = shutil.which("bwrap")
    if program is None:
        return "bwrap is not installed"
    argv = [program, *isolation(Path("/"), 65534, 65534, 1 << 20), "--", "/bin/true"]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_COMMAND_S, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return "" if done.returncode == 0 else (lines[-1] if lines else f"bwrap: exit code {done.returncode}")


def isolation(rootfs: Path, uid: int, gid: int, tmp_bytes: int) -> list[str]:
    """bwrap's arguments for the namespaces, the user, the read-only root and the few devices."""
    arguments = [*_NAMESPACES, "--unshare-cgroup-try", "--uid", str(uid), "--gid", str(gid), "--cap-drop", "ALL"]
    arguments += ["--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"]
    arguments += ["--ro-bind", str(rootfs), "/", "--proc", "/proc", "--tmpfs", "/dev"]
    for device in _DEVICES:
        arguments += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    arguments += ["--symlink", "/proc/self/fd", "/dev/fd", "--remount-ro", "/dev"]
    return [*arguments, "--size", str(tmp_bytes), "--tmpfs", "/tmp"]


class BubblewrapRuntime(SupervisedRuntime):
    """bwrap as whoever runs the executor; memory is limited per process and CPU is not."""

    name = "bubblewrap"
    note = "reduced: no cgroup limits"

    def _prepare(self, launch: Launch, directory: Path) -> ShimCommand:
        argv = ["bwrap", *isolation(launch.rootfs, launch.uid, launch.gid, launch.tmp_bytes)]
        for entry in launch.environment:
            name, _, value = entry.partition("=")
            argv += ["--setenv", name, value]
        argv += ["--hostname", launch.labels.service, "--chdir", launch.directory]
        argv += ["--info-fd", "{info}", "--block-fd", "{block}"]
        program = seccomp.bpf(platform.machine())
        if program is not None:
            (directory / "seccomp.bpf").write_bytes(program)
            argv += ["--seccomp", "{seccomp}"]
        return ShimCommand("foreground", [*argv, "--", *launch.command], _limits(launch))

    def execute(self, service: str, command: tuple[str, ...], timeout_s: float) -> int:
        init = self._init(service)
        values = ["mode=enter", f"pid={init.pid}", f"timeout={timeout_s}", f"directory={self._directory / service}"]
        done = subprocess.run(
            [sys.executable, "-I", "-S", SHIM, *values, "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode == TIMED_OUT:
            raise RuntimeFailure(f"{service}: {command[0]} did not end within {timeout_s:g} s")
        return done.returncode

    def stats(self, service: str) -> Stats | None:
        record = self._read(service)
        if record is None or record.init is None or not record.init.alive:
            return None
        return Stats(*processes.usage([record.init.pid, *processes.descendants(record.init.pid)]))

    def _clean(self, service: str, directory: Path) -> None:
        record = self._read(service)
        if record and record.init and record.init.alive:
            raise RuntimeFailure(f"{service}: its process {record.init.pid} does not end")


def _limits(launch: Launch) -> tuple[str, ...]:
    limits = [f"DATA,{launch.memory_bytes}", "NOFILE,1024", "CORE,0", f"FSIZE,{launch.tmp_bytes}"]
    # Before Linux 5.14 the limit counts every process of the user, not those of the sandbox alone.
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if release >= (5, 14):
        limits.append(f"NPROC,{PIDS_MAX}")
    return tuple(limits)
