"""Containers through crun or runc, from a configuration that we write: nothing is granted that is not here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from gateway.executor.runtimes import seccomp
from gateway.executor.runtimes.base import Launch, RuntimeFailure, Stats
from gateway.executor.runtimes.supervised import Record, ShimCommand, SupervisedRuntime

PIDS_MAX = 64
_CGROUPS = Path("/sys/fs/cgroup")
_CPU_PERIOD_US = 100_000
_COMMAND_S = 10.0
_END_S = 3.0
# crun refuses a hybrid hierarchy while the second one is mounted: it gets a mount namespace of its own without it
_WITHOUT_UNIFIED = ("unshare", "-m", "sh", "-c", 'umount -l /sys/fs/cgroup/unified && exec "$0" "$@"')
_MASKED = ("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug")
_MASKED_TOO = ("/proc/scsi", "/proc/timer_list", "/proc/timer_stats")
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def find(directory: Path) -> tuple[tuple[str, ...] | None, list[str]]:
    """The command of an OCI runtime that really starts a container here, and why others did not."""
    problems: list[str] = []
    for command in candidates((_CGROUPS / "unified").is_dir()):
        if shutil.which(command[-1]) and shutil.which(command[0]):
            problem = probe(command, directory)
            if not problem:
                return command, problems
            problems.append(f"{command[-1]}: {problem}")
    return None, problems


def candidates(hybrid: bool) -> list[tuple[str, ...]]:
    """Runtime commands, best first; crun is the smaller one, runc takes hybrid cgroups as they are."""
    if hybrid:
        return [("runc",), (*_WITHOUT_UNIFIED, "crun")]
    return [("crun",), ("runc",)]


def probe(command: tuple[str, ...], directory: Path) -> str:
    """Runs /bin/true of this machine with every restriction that services have; the problem, empty when it worked."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="probe-") as name:
        bundle = Path(name)
        rootfs = bundle / "rootfs"
        for folder in ("proc", "dev", "tmp"):
            (rootfs / folder).mkdir(parents=True)
        configuration = base_configuration(rootfs, ("/bin/true",), (), "/", 65534, 65534, 1 << 20)
        configuration["mounts"] += _host_programs(rootfs)
        identity = bundle.name
        configuration["linux"] |= limits(f"/picasso/{identity}", 16 << 20, 0.5)
        (bundle / "config.json").write_text(json.dumps(configuration))
        argv = [*command, "--root", str(bundle / "root"), "run", "--bundle", str(bundle), identity]
        try:
            done = subprocess.run(argv, capture_output=True, timeout=_COMMAND_S, stdin=subprocess.DEVNULL, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        finally:
            end_groups(identity)
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        return "" if done.returncode == 0 else (lines[-1] if lines else f"exit code {done.returncode}")


def _host_programs(rootfs: Path) -> list[dict[str, Any]]:
    mounts = []
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "usr"):
        source = Path("/") / name
        if source.is_symlink():
            (rootfs / name).symlink_to(os.readlink(source))
        elif source.is_dir():
            (rootfs / name).mkdir()
            mounts.append(_mount(f"/{name}", "bind", ["rbind", "ro", "nosuid", "nodev"], f"/{name}"))
    return mounts


def base_configuration(
    rootfs: Path, command: tuple[str, ...], environment: tuple[str, ...], directory: str, uid: int, gid: int, tmp: int
) -> dict[str, Any]:
    """The OCI configuration without limits and labels; `tmp` is the size of /tmp in bytes."""
    none: dict[str, list[str]] = {k: [] for k in ("bounding", "effective", "inheritable", "permitted", "ambient")}
    safe = ["nosuid", "noexec", "nodev"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": uid, "gid": gid},
            "args": list(command),
            "env": list(environment),
            "cwd": directory,
            "capabilities": none,
            "noNewPrivileges": True,
            "rlimits": [_rlimit("NOFILE", 1024), _rlimit("CORE", 0)],
        },
        "root": {"path": str(rootfs), "readonly": True},
        "mounts": [
            _mount("/proc", "proc", safe),
            _mount("/dev", "tmpfs", ["nosuid", "noexec", "mode=755", "size=65536"]),
            _mount("/tmp", "tmpfs", [*safe, "mode=1777", f"size={tmp}"]),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "maskedPaths": [*_MASKED, *_MASKED_TOO],
            "readonlyPaths": list(_READ_ONLY),
            "seccomp": seccomp.oci_profile(),
        },
    }


def _mount(destination: str, kind: str, options: list[str], source: str = "") -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source or kind, "options": options}


def _rlimit(name: str, value: int) -> dict[str, Any]:
    return {"type": f"RLIMIT_{name}", "hard": value, "soft": value}


def limits(cgroup: str, memory_bytes: int, cpu: float) -> dict[str, Any]:
    """The part of `linux` that bounds what the container may use; no device is allowed beyond the usual six."""
    return {
        "cgroupsPath": cgroup,
        "resources": {
            "devices": [{"allow": False, "access": "rwm"}],
            "memory": {"limit": memory_bytes},
            "cpu": {"period": _CPU_PERIOD_US, "quota": max(1000, int(cpu * _CPU_PERIOD_US))},
            "pids": {"limit": PIDS_MAX},
        },
    }


class OciRuntime(SupervisedRuntime):
    """crun or runc; `command` is what find() returned."""

    name = "oci"

    def __init__(self, directory: Path, tag: str, command: tuple[str, ...]) -> None:
        self._root = directory.parent / "oci-root"
        self._command = [*command, "--root", str(self._root)]
        self.note = command[-1]
        super().__init__(directory, tag)
        self._end_unknown()

    def _identity(self, service: str) -> str:
        return f"picasso-{self._tag}-{service}"

    def _cgroup(self, service: str) -> str:
        return f"/picasso/{self._identity(service)}"

    def _prepare(self, launch: Launch, directory: Path) -> ShimCommand:
        labels = launch.labels
        configuration = base_configuration(
            launch.rootfs,
            launch.command,
            launch.environment,
            launch.directory,
            launch.uid,
            launch.gid,
            launch.tmp_bytes,
        )
        configuration["hostname"] = labels.service
        configuration["linux"] |= limits(self._cgroup(labels.service), launch.memory_bytes, launch.cpu)
        configuration["annotations"] = {
            "picasso.managed": "true",
            "picasso.service": labels.service,
            "picasso.generation": str(labels.generation),
        }
        (directory / "config.json").write_text(json.dumps(configuration))
        identity = self._identity(labels.service)
        argv = [*self._command, "run", "--detach", "--pid-file", "init.pid", "--bundle", str(directory), identity]
        return ShimCommand("detached", argv)

    def _clean(self, service: str, directory: Path) -> None:
        identity = self._identity(service)
        if (self._root / identity).exists():
            subprocess.run(
                [*self._command, "delete", "--force", identity], capture_output=True, timeout=_COMMAND_S, check=False
            )
        shutil.rmtree(self._root / identity, ignore_errors=True)
        end_groups(identity)

    def _end_unknown(self) -> None:
        """Ends containers of this gateway that have neither a record nor a shim; their control groups betray them."""
        prefix = self._identity("")
        found = {path.name for path in groups(f"{prefix}*")}
        for service in sorted(name.removeprefix(prefix) for name in found):
            if self._read(service) is None:
                self._clean(service, self._directory / service)

    def _exit_reason(self, record: Record) -> str:
        for file in ("memory/{}/memory.oom_control", "{}/memory.events"):
            with contextlib.suppress(OSError):
                text = (_CGROUPS / file.format(self._cgroup(record.labels.service).lstrip("/"))).read_text()
                if _figure(text, "oom_kill"):
                    return "out of memory: its limit was reached"
        return ""

    def execute(self, service: str, command: tuple[str, ...], timeout_s: float) -> int:
        self._init(service)
        argv = [*self._command, "exec", self._identity(service), *command]
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as child:
            try:
                return child.wait(timeout_s)
            except subprocess.TimeoutExpired as error:
                child.terminate()  # the runtime passes it on to the command inside
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(1.0)
                child.kill()
                raise RuntimeFailure(f"{service}: {command[0]} did not end within {timeout_s:g} s") from error

    def stats(self, service: str) -> Stats | None:
        path = self._cgroup(service).lstrip("/")
        with contextlib.suppress(OSError, ValueError):
            if (_CGROUPS / "memory").is_dir():
                memory = int((_CGROUPS / "memory" / path / "memory.usage_in_bytes").read_text())
                return Stats(memory, int((_CGROUPS / "cpuacct" / path / "cpuacct.usage").read_text()) / 1e9)
            memory = int((_CGROUPS / path / "memory.current").read_text())
            return Stats(memory, _figure((_CGROUPS / path / "cpu.stat").read_text(), "usage_usec") / 1e6)
        return None


def groups(pattern: str) -> list[Path]:
    """The control groups of ours whose name fits the shell pattern, in each hierarchy."""
    return [path for top in ("picasso", "*/picasso") for path in _CGROUPS.glob(f"{top}/{pattern}")]


def end_groups(pattern: str) -> None:
    """Kills whatever is left in these control groups and removes them; what does not end in three seconds stays."""
    deadline = time.monotonic() + _END_S
    while (left := [path for path in groups(pattern) if not _remove_group(path)]) and time.monotonic() < deadline:
        for pid in {pid for path in left for pid in _members(path)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _remove_group(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _members(path: Path) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(pid) for pid in (path / "cgroup.procs").read_text().split() if pid != "0"]
    return []


def _figure(text: str, name: str) -> int:
    """The number after `name` in the flat `name number` lines of a cgroup file; 0 when it is not there."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return 0
