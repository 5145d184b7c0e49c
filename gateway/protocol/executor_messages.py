"""What the network-facing process and the executor say to each other over `executor.sock`.

A frame is four bytes of length (big-endian) and that many bytes of CBOR; one request and one reply a connection.
The executor believes nothing of what it is told: it verifies every wire in `Desired` against its own anchor.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.protocol.codec import key
from gateway.protocol.messages import ServiceStatus

# Every section and specification of a network of a thousand services stays below.
FRAME_MAX_BYTES = 8 << 20

APPLY, STATUS, LOGS, STOP, FORGET_TOKEN = "apply", "status", "logs", "stop", "forget-token"
DETACH, RELOAD = "detach", "reload"


@dataclass(frozen=True, slots=True)
class Desired:
    """A decision as its signed wires: head and specifications are Data packets, sections the bytes their hash names.

    Sections and specifications that are not here yet leave what runs as it is.
    """

    head: bytes = key(1)
    certificates: tuple[bytes, ...] = key(2, ())
    sections: tuple[bytes, ...] = key(3, ())
    specifications: tuple[bytes, ...] = key(4, ())


@dataclass(frozen=True, slots=True)
class ExecutorStatus:
    """What runs and what was refused, the runtimes that work here, and what an owner should know (`notes`).

    `epoch` and `version` are of the head that is being executed, 0 and 0 before the first.
    """

    services: tuple[ServiceStatus, ...] = key(1, ())
    runtimes: tuple[str, ...] = key(2, ())
    notes: tuple[str, ...] = key(3, ())
    epoch: int = key(4, 0)
    version: int = key(5, 0)


@dataclass(frozen=True, slots=True)
class ExecutorRequest:
    """`operation` is `apply` (`desired`), `status`, `logs` (of `service`), `stop` (all of it), or one of these.

    `detach` ends the executor without its services, for another one to adopt. `reload` has it read the configuration
    file again: policy and limits count at once. `forget-token` takes the spent token out of that file, which only root
    may write.
    """

    operation: str = key(1)
    desired: Desired | None = key(2, None)
    service: str = key(3, "")


@dataclass(frozen=True, slots=True)
class ExecutorReply:
    """`error` is empty on success, else the reason of the refusal."""

    error: str = key(1, "")
    status: ExecutorStatus | None = key(2, None)
    logs: bytes = key(3, b"")
