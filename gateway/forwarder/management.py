"""NFD's management protocol, as far as applications need it: `rib/register` and `rib/unregister`.

Commands are taken from faces of this machine only (`/localhost`): who may open the unix socket may register. Both forms
of a signed command are understood, the one with four trailing name components and the signed Interest of format 0.3.
"""

from __future__ import annotations

import logging
import struct

from ndn.app_support.nfd_mgmt import ControlParametersValue, ControlResponse
from ndn.encoding import DecodeError, parse_and_check_tl

from gateway.forwarder.forwarder import Forwarder
from gateway.forwarder.packet import Interest
from gateway.protocol import keys, names
from gateway.protocol.names import Name

log = logging.getLogger(__name__)

PREFIX = names.parse("/localhost/nfd")
_MAX_DEPTH = 32
_CONTROL_PARAMETERS, _CONTROL_RESPONSE = 0x68, 0x65
_CHILD_INHERIT = 1
APPLICATION = "application"


class Refused(Exception):
    """A command that is answered with a status other than 200."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Management:
    """Answers commands below /localhost/nfd; the endpoint's face must have local fields, to know who asks."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self.refused = 0

    def on_interest(self, interest: Interest) -> bytes | None:
        """The ControlResponse packet for a command."""
        try:
            parts = names.components(interest.name[len(PREFIX) :])
            response = self._run(parts, interest.incoming_face or 0)
        except Refused as refusal:
            self.refused += 1
            response = _response(refusal.status, refusal.text)
        except (ValueError, IndexError):
            self.refused += 1
            response = _response(400, "the command is malformed")
        return keys.sign_data(interest.name, response, freshness_ms=1000)

    def _run(self, parts: list[bytes], incoming_face: int) -> bytes:
        module, verb = names.text(parts[0]), names.text(parts[1])
        if module != "rib" or verb not in ("register", "unregister"):
            raise Refused(501, f"{module}/{verb} is not supported")
        if len(parts) < 3:
            raise Refused(400, "the parameters are missing")
        values = _parse(names.value(parts[2]))
        if not values.name:
            raise Refused(400, "a Name is missing")
        if len(values.name) > _MAX_DEPTH:
            raise Refused(414, f"the prefix has {len(values.name)} components, at most {_MAX_DEPTH} are accepted")
        prefix: Name = b"".join(bytes(c) for c in values.name)
        if prefix.startswith(PREFIX):
            raise Refused(403, "/localhost/nfd is not for registration")
        values.face_id = values.face_id or incoming_face
        if values.face_id not in self._forwarder.faces:
            raise Refused(410, f"there is no face {values.face_id}")
        values.origin = values.origin or 0
        # A route lives as long as its face, whatever was asked: the reply promises no expiry.
        values.expiration_period = None
        return self._change_route(verb, prefix, values)

    def _change_route(self, verb: str, prefix: Name, values: ControlParametersValue) -> bytes:
        origin = f"{APPLICATION}-{values.origin}"
        if verb == "unregister":
            self._forwarder.fib.remove(prefix, values.face_id, origin)
        else:
            values.cost = values.cost or 0
            values.flags = _CHILD_INHERIT if values.flags is None else values.flags
            self._forwarder.fib.add(prefix, values.face_id, values.cost, origin)
        log.info("%s %s by face %d", verb, names.to_uri(prefix), values.face_id)
        return _response(200, "OK", values)


def _parse(wire: bytes) -> ControlParametersValue:
    try:
        return ControlParametersValue.parse(parse_and_check_tl(memoryview(wire), _CONTROL_PARAMETERS))
    except (DecodeError, ValueError, IndexError, TypeError, struct.error) as error:
        raise Refused(400, f"the parameters are malformed: {error}") from error


def _response(status: int, text: str, body: ControlParametersValue | None = None) -> bytes:
    response = ControlResponse()
    response.status_code, response.status_text = status, text
    # python-ndn takes a reply without a body for a broken one and never gets to see the refusal.
    response.body = body or ControlParametersValue()
    return names.tlv(_CONTROL_RESPONSE, bytes(response.encode()))
