"""The machine under the gateway, read from /proc and /sys: `parse_x(text)` is pure, `read_x(root)` reads one file.

`root` is the directory that holds `proc` and `sys`, so that a router's recorded files are a test's input. Whatever a
machine does not have, or says in a way nobody understands, is None: a missing sensor is data, not an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gateway.protocol.messages import Hardware, Load

T = TypeVar("T")

# A file of /proc is small; a device that returns endless bytes must not fill a router's memory.
READ_MAX_BYTES = 1 << 18
# Outside this range a sensor is unconnected or counts in another unit.
PLAUSIBLE_C = (-40.0, 150.0)
_PROCESSOR_ZONE = re.compile(r"cpu|soc|package|core|k10temp|processor", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Ticks since boot over all processors; `total` includes the idle ones."""

    busy: int
    total: int


@dataclass(frozen=True, slots=True)
class Memory:
    total_bytes: int
    available_bytes: int | None


@dataclass(frozen=True, slots=True)
class CpuInfo:
    model: str
    cpus: int


@dataclass(frozen=True, slots=True)
class HostSample:
    """One look at the machine."""

    hardware: Hardware = field(default_factory=Hardware)
    load: Load = field(default_factory=Load)
    uptime_s: float = 0.0


def parse_cpu_times(text: str) -> CpuTimes | None:
    """The ticks of /proc/stat; waiting for a disk counts as idle, a hypervisor's stolen time as busy."""
    for line in text.splitlines():
        fields = line.split()
        if fields[:1] == ["cpu"] and len(fields) >= 5:
            # guest time (the 9th and 10th) is in user time already
            ticks = [int(field) for field in fields[1:9]]
            idle = ticks[3] + (ticks[4] if len(ticks) > 4 else 0)
            return CpuTimes(sum(ticks) - idle, sum(ticks))
    return None


def cpu_percent(before: CpuTimes | None, after: CpuTimes | None) -> float | None:
    """The busy share between two samples, 0 to 100; None when no time passed between them."""
    if before is None or after is None or after.total <= before.total:
        return None
    share = 100.0 * (after.busy - before.busy) / (after.total - before.total)
    return round(min(100.0, max(0.0, share)), 1)


def parse_load1(text: str) -> float | None:
    return _first_number(text)


def parse_memory(text: str) -> Memory | None:
    """The memory of /proc/meminfo; kernels before 3.14 have no MemAvailable, there the caches are counted as free."""
    kib = {m[1]: int(m[2]) for m in re.finditer(r"^(\w+):\s+(\d+)(?: kB)?$", text, re.MULTILINE)}
    if "MemTotal" not in kib:
        return None
    available = kib.get("MemAvailable")
    if available is None and "MemFree" in kib:
        available = kib["MemFree"] + kib.get("Buffers", 0) + kib.get("Cached", 0)
    return Memory(kib["MemTotal"] * 1024, None if available is None else available * 1024)


def parse_uptime_s(text: str) -> float | None:
    return _first_number(text)


def _first_number(text: str) -> float | None:
    fields = text.split()
    number = float(fields[0]) if fields else math.nan
    return number if math.isfinite(number) and number >= 0 else None


def parse_cpuinfo(text: str) -> CpuInfo:
    """Model and number of processors; every architecture names its model differently."""
    values: dict[str, str] = {}
    cpus = 0
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if not colon:
            continue
        cpus += name.strip() == "processor"
        values.setdefault(name.strip(), value.strip())
    # Raspberry Pi, MIPS routers, older ARM boards, x86, PowerPC
    model = next((values[k] for k in ("Model", "machine", "Hardware", "model name", "cpu") if values.get(k)), "")
    return CpuInfo(model, cpus)


def parse_temperature_c(text: str) -> float | None:
    """Degrees from a sensor's thousandths; None when the value cannot be a temperature of a machine that runs."""
    degrees = int(text.strip()) / 1000.0
    return degrees if PLAUSIBLE_C[0] <= degrees <= PLAUSIBLE_C[1] else None


def read_text(path: Path) -> str | None:
    """The file's text, None when there is none or the device behind it does not answer."""
    try:
        with path.open("rb") as file:
            return file.read(READ_MAX_BYTES).decode("utf-8", "replace").rstrip("\0\n")
    except OSError:
        return None


def read(path: Path, parse: Callable[[str], T | None]) -> T | None:
    """What `parse` makes of the file; None when it is missing or is not what it should be."""
    text = read_text(path)
    if text is None:
        return None
    try:
        return parse(text)
    except (ValueError, IndexError):
        return None


def read_cpu_times(root: Path) -> CpuTimes | None:
    return read(root / "proc/stat", parse_cpu_times)


def read_load1(root: Path) -> float | None:
    return read(root / "proc/loadavg", parse_load1)


def read_memory(root: Path) -> Memory | None:
    return read(root / "proc/meminfo", parse_memory)


def read_uptime_s(root: Path) -> float | None:
    return read(root / "proc/uptime", parse_uptime_s)


def read_boot_id(root: Path) -> str:
    """The kernel's boot id, empty where there is none."""
    return (read_text(root / "proc/sys/kernel/random/boot_id") or "").strip()


def read_cpu_info(root: Path) -> CpuInfo:
    """Model and processors; a device tree names the board better than cpuinfo does."""
    info = read(root / "proc/cpuinfo", parse_cpuinfo) or CpuInfo("", 0)
    board = read_text(root / "proc/device-tree/model")
    return CpuInfo(board.strip("\0 \n") if board else info.model, info.cpus)


def read_temperature_c(root: Path) -> float | None:
    """The processor's temperature where a sensor says that it is the processor's, else the hottest sensor's."""
    readings = [*_thermal_zones(root), *_hwmon_sensors(root)]
    processor = [degrees for label, degrees in readings if _PROCESSOR_ZONE.search(label)]
    return max(processor or [degrees for _, degrees in readings], default=None)


def _thermal_zones(root: Path) -> Iterator[tuple[str, float]]:
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        degrees = read(zone / "temp", parse_temperature_c)
        if degrees is not None:
            yield read_text(zone / "type") or "", degrees


def _hwmon_sensors(root: Path) -> Iterator[tuple[str, float]]:
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        for sensor in sorted(chip.glob("temp*_input")):
            degrees = read(sensor, parse_temperature_c)
            if degrees is not None:
                label = read_text(sensor.with_name(sensor.name.replace("_input", "_label"))) or ""
                yield f"{read_text(chip / 'name') or ''} {label}", degrees


def read_wired_speed_mbps(root: Path, interface: str) -> float | None:
    """The negotiated speed of a wired port; None for everything that is no cable (a tunnel claims 10 Mbit/s, say)."""
    device = root / "sys/class/net" / interface
    if not (device / "device").exists() or (device / "wireless").exists():
        return None
    speed = read(device / "speed", lambda text: int(text.strip()))
    return float(speed) if speed is not None and speed > 0 else None


def read_medium(root: Path, interface: str) -> str:
    """`loopback`, `wireless`, `ethernet` (a port or a bridge of ports), `tunnel`, or empty."""
    device = root / "sys/class/net" / interface
    kind = read(device / "type", lambda text: int(text.strip()))
    if kind == 772:  # ARPHRD_LOOPBACK
        return "loopback"
    if (device / "wireless").exists() or (device / "phy80211").exists():
        return "wireless"
    if kind == 1:  # ARPHRD_ETHER: also tap devices, which have no device below
        return "tunnel" if (device / "tun_flags").exists() else "ethernet"
    return "tunnel" if kind is not None else ""
