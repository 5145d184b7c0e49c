"""What is read from the /proc and /sys of a router, of a Raspberry Pi, and of a machine that has neither."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.monitor import host
from gateway.monitor.host import CpuTimes, Memory
from gateway.monitor.sampler import HostSampler

# A MIPS outdoor router with OpenWrt.
ROUTER = {
    "proc/cpuinfo": (
        "system type\t\t: Atheros AR9344 rev 2\nmachine\t\t\t: Ubiquiti Nanostation M5 XW\n"
        "processor\t\t: 0\ncpu model\t\t: MIPS 74Kc V4.12\nBogoMIPS\t\t: 278.93\n"
    ),
    "proc/stat": "cpu  1200 0 800 96000 40 0 260 0 0 0\ncpu0 1200 0 800 96000 40 0 260 0 0 0\nintr 1\n",
    "proc/loadavg": "0.08 0.03 0.05 1/57 2417\n",
    "proc/meminfo": "MemTotal:          60268 kB\nMemFree:           31032 kB\nMemAvailable:      29000 kB\n",
    "proc/uptime": "983.24 960.77\n",
    "proc/sys/kernel/random/boot_id": "5f3b6e42-7a0c-4d6e-9a55-0c2f8a1b9d10\n",
}
# A Raspberry Pi: device tree, thermal zone, hwmon.
PI = {
    "proc/cpuinfo": "".join(f"processor\t: {n}\nBogoMIPS\t: 108.00\n\n" for n in range(4))
    + "Hardware\t: BCM2835\nModel\t\t: Raspberry Pi Zero 2 W Rev 1.0\n",
    "proc/device-tree/model": "Raspberry Pi Zero 2 W Rev 1.0\0",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/hwmon/hwmon0/name": "nvme\n",
    "sys/class/hwmon/hwmon0/temp1_input": "61000\n",
    "sys/class/hwmon/hwmon1/name": "broken\n",
    "sys/class/hwmon/hwmon1/temp1_input": "-273150\n",
}


def _root(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def test_router(tmp_path: Path) -> None:
    """Every figure of the router is read as it stands there; the sensor that it has not is None."""
    root = _root(tmp_path, ROUTER)
    assert host.read_cpu_info(root) == host.CpuInfo("Ubiquiti Nanostation M5 XW", 1)
    assert host.read_cpu_times(root) == CpuTimes(2260, 98300)
    assert host.read_load1(root) == 0.08
    assert host.read_memory(root) == Memory(60268 * 1024, 29000 * 1024)
    assert host.read_uptime_s(root) == 983.24
    assert host.read_boot_id(root) == "5f3b6e42-7a0c-4d6e-9a55-0c2f8a1b9d10"
    assert host.read_temperature_c(root) is None


def test_raspberry_pi(tmp_path: Path) -> None:
    """The name comes from the device tree, the temperature from the processor's sensor, not from the hottest."""
    root = _root(tmp_path, PI)
    assert host.read_cpu_info(root) == host.CpuInfo("Raspberry Pi Zero 2 W Rev 1.0", 4)
    assert host.read_temperature_c(root) == 48.312


def test_hottest_sensor_without_a_processor_sensor(tmp_path: Path) -> None:
    """Where no sensor is the processor's the hottest plausible one counts."""
    root = _root(tmp_path, {name: text for name, text in PI.items() if "hwmon" in name})
    assert host.read_temperature_c(root) == 61.0


def test_old_kernel_without_memavailable() -> None:
    """Before MemAvailable the caches count as available."""
    text = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 10 kB\nCached: 200 kB\n"
    assert host.parse_memory(text) == Memory(1000 * 1024, 310 * 1024)


def test_cpu_percent() -> None:
    """Half busy is 50; no time passed, or counters that went back, is None."""
    assert host.cpu_percent(CpuTimes(100, 1000), CpuTimes(150, 1100)) == 50.0
    assert host.cpu_percent(CpuTimes(100, 1000), CpuTimes(100, 1000)) is None
    assert host.cpu_percent(CpuTimes(100, 1000), CpuTimes(10, 90)) is None
    assert host.cpu_percent(None, CpuTimes(10, 90)) is None


def test_nothing_there(tmp_path: Path) -> None:
    """A machine without /proc and /sys gives a sample of Nones and zeros, no error."""
    sample = asyncio.run(HostSampler(tmp_path, tmp_path / "missing").sample())
    assert sample.load.cpu_percent is None and sample.load.memory_available_bytes is None
    assert sample.load.disk_free_bytes is None and sample.load.temperature_c is None
    assert (sample.hardware.cpus, sample.uptime_s) == (0, 0.0)


@given(st.text(max_size=200))
def test_any_text_in_any_file_is_read(text: str) -> None:
    """Whatever a file holds, reading it gives a value or None."""
    for parse in (
        host.parse_cpu_times,
        host.parse_load1,
        host.parse_memory,
        host.parse_uptime_s,
        host.parse_cpuinfo,
        host.parse_temperature_c,
    ):
        try:
            value = parse(text)
        except (ValueError, IndexError):
            continue
        assert not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize("broken", ["", "cpu\n", "cpu a b c d\n", "\0\0", "cpu  1 2\n", "nan", "x" * 1000])
def test_broken_file_is_none(tmp_path: Path, broken: str) -> None:
    """A damaged file is a missing one."""
    root = _root(tmp_path, dict.fromkeys(ROUTER, broken))
    assert host.read_cpu_times(root) is None
    assert host.read_memory(root) is None
    assert host.read_load1(root) is None and host.read_uptime_s(root) is None


def test_this_machine() -> None:
    """On a real machine the sampler sees processors, memory, disk, uptime, and after a moment its own CPU use."""

    async def scene() -> None:
        sampler = HostSampler()
        sum(i * i for i in range(1_000_000))
        await asyncio.sleep(0.05)
        sample = await sampler.sample()
        sampler.close()
        assert sample.hardware.cpus >= 1 and sample.hardware.memory_bytes > 1 << 20
        assert sample.load.disk_free_bytes and sample.hardware.disk_bytes > sample.load.disk_free_bytes
        assert sample.uptime_s > 1
        assert sample.load.cpu_percent is not None and 0 < sample.load.cpu_percent <= 100

    asyncio.run(scene())


def test_speed_and_medium(tmp_path: Path) -> None:
    """Only a port with a device below has a speed; a radio, a tunnel and the loopback are told apart."""
    net = "sys/class/net"
    files = {
        f"{net}/eth0/type": "1\n", f"{net}/eth0/speed": "100\n", f"{net}/eth0/device/uevent": "",
        f"{net}/eth1/type": "1\n", f"{net}/eth1/speed": "-1\n", f"{net}/eth1/device/uevent": "",
        f"{net}/wlan0/type": "1\n", f"{net}/wlan0/wireless/x": "", f"{net}/wlan0/device/uevent": "",
        f"{net}/tap0/type": "1\n", f"{net}/tap0/tun_flags": "0x1002\n", f"{net}/tap0/speed": "10\n",
        f"{net}/wg0/type": "65534\n", f"{net}/lo/type": "772\n",
    }  # fmt: skip
    root = _root(tmp_path, files)
    speeds = {n: host.read_wired_speed_mbps(root, n) for n in ("eth0", "eth1", "wlan0", "tap0", "wg0", "lo", "gone")}
    assert speeds == {"eth0": 100.0} | dict.fromkeys(("eth1", "wlan0", "tap0", "wg0", "lo", "gone"))
    media = [host.read_medium(root, n) for n in ("eth0", "wlan0", "tap0", "wg0", "lo", "gone")]
    assert media == ["ethernet", "wireless", "tunnel", "tunnel", "loopback", ""]
