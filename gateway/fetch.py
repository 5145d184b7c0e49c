"""`picasso-gateway fetch`: segmented content by its name into a file, which appears only when it is whole."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gateway.forwarder.consumer import PATIENCE_S
from gateway.forwarder.endpoint import Endpoint, FetchError, connect
from gateway.forwarder.segmented import fetch_segmented
from gateway.forwarder.transfer import Counters
from gateway.protocol import names
from gateway.protocol.errors import ProtocolError


async def fetch_to_file(face: str, uri: str, output: Path, hints: Sequence[str]) -> int:
    """Fetches and says what came, or why not; 0 on success, 1 on failure, 2 for a name that is none."""
    try:
        name, hint_names = names.parse(uri), [names.parse(hint) for hint in hints]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    partial = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        endpoint = await connect(face)
        started = time.monotonic()
        with partial.open("wb") as file:
            size = await _fetch(endpoint, name, hint_names, file.fileno())
            os.fsync(file.fileno())
        partial.replace(output)
        endpoint.close()
    except (FetchError, ProtocolError, OSError) as error:
        print(f"{uri}: {error}", file=sys.stderr)
        return 1
    finally:
        partial.unlink(missing_ok=True)
    seconds = time.monotonic() - started
    print(f"{output}: {size} bytes in {seconds:.2f} s ({size * 8e-6 / seconds:.1f} Mbit/s)")
    return 0


async def _fetch(endpoint: Endpoint, name: names.Name, hints: Sequence[names.Name], descriptor: int) -> int:
    written = 0
    shown = 0.0

    def write(offset: int, payload: bytes) -> None:
        nonlocal written, shown
        os.pwrite(descriptor, payload, offset)
        written += len(payload)
        if sys.stderr.isatty() and time.monotonic() - shown > 0.2:
            shown = time.monotonic()
            print(f"\r{written / 1e6:.1f} MB", end="\r", file=sys.stderr)

    return await fetch_segmented(endpoint, Counters(), name, write, hints, PATIENCE_S)
