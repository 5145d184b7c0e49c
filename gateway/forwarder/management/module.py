"""What a module of the management protocol is to the dispatcher."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.forwarder.faces.base import Face
from gateway.forwarder.forwarder import Forwarder
from gateway.forwarder.management.encoding import ControlParameters
from gateway.forwarder.management.status_codes import BAD_PARAMETERS, GONE, TOO_DEEP, Refused
from gateway.forwarder.packet import component_ends
from gateway.protocol import names
from gateway.protocol.names import Name

LOCAL_PREFIX = names.parse("/localhost/nfd")
# As deep as NFD's FIB.
DEPTH_MAX = 32
# A response has the prefix twice, in its name and in its body, and must fit a packet.
PREFIX_MAX_BYTES = 4000


@dataclass(frozen=True, slots=True)
class Request:
    """A command that may be carried out; `face` is where it came from, `now` is monotonic time.

    `is_remote` is a command over the network: it may speak for its own face only.
    """

    parameters: ControlParameters
    face: Face
    now: float
    is_remote: bool = False


# The parameters of a response with status 200; a command that is not done at once is awaited.
Command = Callable[[Request], "ControlParameters | Awaitable[ControlParameters]"]
# The blocks of a dataset; the argument is what stands between the verb and the version, empty mostly.
Dataset = Callable[[Name], Iterable[bytes]]


class Module(Protocol):
    @property
    def commands(self) -> Mapping[str, Command]: ...
    @property
    def datasets(self) -> Mapping[str, Dataset]: ...


def prefix_of(parameters: ControlParameters) -> Name:
    """The prefix that a command is about; raises Refused when there is none or it is too long."""
    prefix = parameters.name
    if prefix is None:
        raise Refused(BAD_PARAMETERS, "a Name is missing")
    depth = len(component_ends(prefix))
    if depth > DEPTH_MAX:
        raise Refused(TOO_DEEP, f"the prefix has {depth} components, at most {DEPTH_MAX} are accepted")
    if len(prefix) > PREFIX_MAX_BYTES:
        raise Refused(TOO_DEEP, f"the prefix has {len(prefix)} bytes, at most {PREFIX_MAX_BYTES} are accepted")
    return prefix


def face_id_of(request: Request, forwarder: Forwarder) -> int:
    """The face that a command is about: the one it came from, where it names none. Raises Refused."""
    face_id = request.parameters.face_id or request.face.id
    if face_id not in forwarder.faces:
        raise Refused(GONE, f"there is no face {face_id}")
    return face_id


def no_arguments(argument: Name) -> None:
    if argument:
        raise Refused(BAD_PARAMETERS, f"this dataset takes no {names.to_uri(argument)}")
