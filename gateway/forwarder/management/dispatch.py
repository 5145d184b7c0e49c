"""From an Interest to its answer: which module, whether it may, what came out. Pure but for what modules do."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping

from gateway.forwarder.faces.base import Face
from gateway.forwarder.forwarder import Forwarder
from gateway.forwarder.management.access import Access
from gateway.forwarder.management.command import Asked, Signature, read_signature
from gateway.forwarder.management.datasets import Datasets, is_versioned
from gateway.forwarder.management.encoding import ControlParameters, decode_parameters, encode_response
from gateway.forwarder.management.module import LOCAL_PREFIX, Module, Request
from gateway.forwarder.management.status_codes import BAD_PARAMETERS, FORBIDDEN, GONE, NOT_SUPPORTED, OK, Refused
from gateway.forwarder.packet import DecodeError
from gateway.protocol import keys, names
from gateway.protocol.names import Name

log = logging.getLogger(__name__)

REMOTE_PREFIX = names.parse("/localhop/nfd")
# Over the network routes may be registered, nothing else.
_REMOTE_MODULES = ("rib",)
FRESHNESS_MS = 1000
# Answers that a client, whose Interest is sent again, gets a second time; the command is carried out once.
REPLIES_KEPT = 256


class Dispatcher:
    """`answer` takes any Interest below the two prefixes and never raises for what stands in it."""

    def __init__(
        self, forwarder: Forwarder, modules: Mapping[str, Module], access: Access, unix_ms: Callable[[], int]
    ) -> None:
        self._forwarder, self._modules, self._access, self._unix_ms = forwarder, modules, access, unix_ms
        self._datasets = Datasets()
        self._replies: OrderedDict[tuple[int, Name], bytes] = OrderedDict()
        self._pending: set[tuple[int, Name]] = set()
        self.refused = 0

    def answer(self, interest: Asked, now: float) -> bytes | Awaitable[bytes | None] | None:
        """The Data packet, or what brings it where that takes time; None when there is none."""
        is_remote = interest.name.startswith(REMOTE_PREFIX)
        prefix = REMOTE_PREFIX if is_remote else LOCAL_PREFIX
        try:
            parts = names.components(interest.name[len(prefix) :])
            if len(parts) < 2:
                raise Refused(BAD_PARAMETERS, "a command names its module and what to do")
            module, verb = names.text(parts[0]), names.text(parts[1])
            known = self._modules.get(module)
            if known is not None and verb in known.datasets and not is_remote:
                # Who signs the Interest for a dataset has a digest in its name; that is no argument.
                argument = b"".join(part for part in parts[2:] if part[0] != names.PARAMETERS_DIGEST)
                return self._dataset(interest, known, verb, argument)
            return self._command(interest, module, verb, parts[2:], is_remote, now)
        except Refused as refusal:
            return self._refuse(interest.name, refusal)
        except (ValueError, IndexError, DecodeError) as error:
            return self._refuse(interest.name, Refused(BAD_PARAMETERS, f"the command is malformed: {error}"))

    # --- datasets

    def _dataset(self, interest: Asked, module: Module, verb: str, argument: Name) -> bytes | None:
        """The first segment of a new version, or the segment that is asked for of one that is still held."""
        if is_versioned(interest.name):
            return self._datasets.find(interest.name)
        if not interest.can_be_prefix:
            return None  # the answer's name is longer: it would answer nobody
        return self._datasets.publish(interest.name, module.datasets[verb](argument), self._unix_ms())

    # --- commands

    def _command(
        self, interest: Asked, module: str, verb: str, trailing: list[bytes], is_remote: bool, now: float
    ) -> bytes | Awaitable[bytes | None] | None:
        known = self._modules.get(module)
        if known is None or verb not in known.commands or (is_remote and module not in _REMOTE_MODULES):
            raise Refused(NOT_SUPPORTED, f"{module}/{verb} is not supported")
        parameters = _parameters(trailing) if verb != "announce" else ControlParameters()
        signature = read_signature(interest, trailing)
        face = self._forwarder.faces.get(interest.incoming_face or 0)
        if face is None:
            raise Refused(GONE, f"there is no face {interest.incoming_face or 0}")
        key = face.id, interest.name
        if key in self._replies or key in self._pending:
            return self._replies.get(key)
        self._check(face, signature, is_remote)
        about = names.to_uri(parameters.name) if parameters.name is not None else parameters.uri or ""
        log.info("%s/%s %s by face %d (%s)", module, verb, about, face.id, face.uri)
        keep = key if signature is not None and _is_unique(signature) else None
        try:
            result = known.commands[verb](Request(parameters, face, now, is_remote))
        except Refused as refusal:
            return self._keep(keep, self._refuse(interest.name, refusal))
        if isinstance(result, ControlParameters):
            return self._keep(keep, _data(interest.name, OK, "OK", result))
        self._pending.add(key)
        return self._later(interest.name, key, keep, result)

    def _check(self, face: Face, signature: Signature | None, is_remote: bool) -> None:
        if is_remote:
            self._access.check_key(signature, self._unix_ms())
        elif face.is_local:
            self._access.check_local(face, signature)
        else:
            raise Refused(FORBIDDEN, "/localhost is for applications on this machine")

    async def _later(
        self,
        name: Name,
        key: tuple[int, Name],
        keep: tuple[int, Name] | None,
        result: Awaitable[ControlParameters],
    ) -> bytes | None:
        try:
            reply = _data(name, OK, "OK", await result)
        except Refused as refusal:
            reply = self._refuse(name, refusal)
        finally:
            self._pending.discard(key)
        return self._keep(keep, reply)

    def _keep(self, key: tuple[int, Name] | None, reply: bytes | None) -> bytes | None:
        if key is not None and reply is not None:
            self._replies[key] = reply
            if len(self._replies) > REPLIES_KEPT:
                self._replies.popitem(last=False)
        return reply

    def _refuse(self, name: Name, refusal: Refused) -> bytes | None:
        self.refused += 1
        command = b"".join(names.components(name)[:4])
        log.info("%s is refused: %d %s", names.to_uri(command)[:200], refusal.status, refusal.reason)
        return _data(name, refusal.status, refusal.reason, refusal.body)


def _parameters(trailing: list[bytes]) -> ControlParameters:
    if not trailing or trailing[0][0] == names.PARAMETERS_DIGEST:
        raise Refused(BAD_PARAMETERS, "the parameters are missing")
    return decode_parameters(names.value(trailing[0]))


def _is_unique(signature: Signature) -> bool:
    """Whether a second Interest of that name is the same command sent again, and not the same wish anew."""
    return not (signature.nonce is None and signature.time_ms is None and signature.sequence is None)


def _data(name: Name, status: int, reason: str, body: ControlParameters | None) -> bytes | None:
    """The response; without its body where the packet would be too large, and none at all where the name alone is."""
    for attempt in (body, None):
        try:
            return keys.sign_data(name, encode_response(status, reason[:400], attempt), FRESHNESS_MS)
        except ValueError:
            continue
    return None
