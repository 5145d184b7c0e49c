"""After a gateway was killed: its executor lives on, and lets go of the services for the next one to adopt."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from pathlib import Path

from gateway.executor import lock
from gateway.executor.server import receive_frame, send_frame
from gateway.protocol import codec
from gateway.protocol.errors import MessageError
from gateway.protocol.executor_messages import DETACH, ExecutorRequest

# An executor ends after the step that it is at; removing a container is the longest.
PATIENCE_S = 4.0
_LOOK_S = 0.02
_ASK_S = 2.0


def take_over(directory: Path, path: Path, patience_s: float = PATIENCE_S) -> bool:
    """Has an executor that a killed gateway left behind end without its services; False when there was none.

    `path` is its socket; where that is gone or nobody answers, a signal does.
    Blocks for a few seconds at most. Raises OSError when it does not end, or belongs to a gateway that still runs.
    """
    if not lock.is_held(directory):
        return False
    holder = lock.read_holder(directory)
    if holder is not None and holder.is_supervised:
        if not _released(directory, patience_s):
            raise OSError(
                f"{directory} is in use by the executor {holder.process.pid} of another gateway, "
                f"process {holder.parent}: stop that one first"
            )
        return True
    with contextlib.suppress(OSError, MessageError):
        _ask_to_detach(path)
        if _released(directory, patience_s):
            return True
    if holder is None:
        raise OSError(f"{directory} is in use by another executor, which does not answer")
    for number in (signal.SIGTERM, signal.SIGKILL):  # services outlive even the latter
        with contextlib.suppress(PermissionError):
            holder.process.signal(number)
        if _released(directory, patience_s):
            return True
    raise OSError(f"{directory} is in use by another executor, process {holder.process.pid}, which does not end")


def _ask_to_detach(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ASK_S)
        connection.connect(str(path))
        send_frame(connection, codec.encode(ExecutorRequest(DETACH)))
        receive_frame(connection)


def _released(directory: Path, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while lock.is_held(directory):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True
