"""Looks at the machine now and then, in a worker thread: a file of /proc may wait for a slow device."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.monitor import host
from gateway.monitor.host import HostSample
from gateway.protocol.messages import Hardware, Load


class HostSampler:
    """Samples of the machine whose /proc and /sys are below `root`; disk figures are of the file system of `disk`."""

    def __init__(self, root: Path = Path("/"), disk: Path = Path("/")) -> None:
        self._root, self._disk = root, disk
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="picasso-host")
        self._times = host.read_cpu_times(root)
        self._cpu_percent: float | None = None

    async def sample(self) -> HostSample:
        """One look; it never fails, what cannot be read is None."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, self.look)

    def look(self) -> HostSample:
        memory = host.read_memory(self._root)
        info = host.read_cpu_info(self._root)
        disk_total, disk_free = self._disk_usage()
        hardware = Hardware(
            model=info.model,
            architecture=os.uname().machine,
            cpus=info.cpus,
            memory_bytes=memory.total_bytes if memory else 0,
            disk_bytes=disk_total or 0,
        )
        load = Load(
            cpu_percent=self._cpu(),
            load1=host.read_load1(self._root),
            memory_available_bytes=memory.available_bytes if memory else None,
            disk_free_bytes=disk_free,
            temperature_c=host.read_temperature_c(self._root),
        )
        return HostSample(hardware, load, host.read_uptime_s(self._root) or 0.0)

    def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _cpu(self) -> float | None:
        """The share since the last look; two looks within a tick of each other give the last figure again."""
        times = host.read_cpu_times(self._root)
        percent = host.cpu_percent(self._times, times)
        if percent is not None:
            self._times, self._cpu_percent = times, percent
        return self._cpu_percent

    def _disk_usage(self) -> tuple[int | None, int | None]:
        """What the disk has, and what of it an ordinary user may fill."""
        try:
            disk = os.statvfs(self._disk)
        except OSError:
            return None, None
        return disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
