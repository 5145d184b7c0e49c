"""The application's side of a face: expresses Interests, answers those of others, speaks NDNLPv2.

The same endpoint serves an application on a unix socket (`connect`) and the gateway's own parts on internal faces.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from gateway.forwarder import packet
from gateway.forwarder.packet import Data, DecodeError, Interest
from gateway.protocol import names
from gateway.protocol.names import Name

log = logging.getLogger(__name__)

_DIGEST_COMPONENT_BYTES = 34
_DATA = bytes((packet.DATA,))
_STATUS_CODE, _STATUS_TEXT = 0x66, 0x67

Handler = Callable[[Interest], "bytes | Awaitable[bytes | None] | None"]


class Asker(Protocol):
    """Who asks for many packets at once and keeps its own timers; nothing here may raise."""

    def on_packet(self, name: Name, wire: bytes, is_marked: bool) -> bool:
        """A Data packet of this name, of whatever digest; True when it is the one that was asked for."""

    def on_nack(self, name: Name, reason: int) -> None:
        """The network cannot bring it; `ask` holds until it is called again or forgotten."""

    def on_disconnect(self) -> None:
        """The forwarder closed the face."""


class FetchError(Exception):
    """An Interest that brought no Data; the text names it and says why."""


class TimedOut(FetchError):
    """No answer within the Interest's lifetime, and none to its retransmissions."""


class Nacked(FetchError):
    """The network said that it cannot bring this; `reason` is in words."""

    def __init__(self, name: Name, reason: int) -> None:
        self.reason = packet.NACK_REASONS.get(reason, str(reason))
        super().__init__(f"{names.to_uri(name)}: {self.reason}")


class Disconnected(FetchError):
    """The forwarder closed the face."""


@dataclass(slots=True)
class _Pending:
    future: asyncio.Future[Data]
    digest: bytes | None
    can_be_prefix: bool
    # Where the Interest goes to one face by request, the answer must be that face's: it bears the same token.
    token: bytes | None


class Endpoint:
    """One application on one face; `send` takes whole link packets."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._pending: dict[Name, list[_Pending]] = {}
        self._asked: dict[Name, list[Asker]] = {}
        self._prefix_interests = 0
        self._tokens = itertools.count(1)
        self._handlers: dict[Name, Handler] = {}
        self._tasks: set[asyncio.Future[None]] = set()
        self._closed = asyncio.Event()
        self._on_close: Callable[[], None] | None = None
        self.undecodable = 0

    # --- consumer

    async def express(
        self,
        name: Name,
        *,
        can_be_prefix: bool = False,
        must_be_fresh: bool = False,
        lifetime_ms: int = packet.DEFAULT_LIFETIME_MS,
        hint: Sequence[Name] = (),
        digest: bytes | None = None,
        parameters: bytes | None = None,
        next_hop_face: int | None = None,
        retries: int = 0,
    ) -> Data:
        """The Data that answers an Interest; raises Nacked, TimedOut or Disconnected.

        `digest` is the implicit digest that the Data must have; `retries` retransmissions have new nonces.
        """
        for attempt in range(retries + 1):
            full_name, wire = packet.encode_interest(
                name,
                can_be_prefix=can_be_prefix,
                must_be_fresh=must_be_fresh,
                hint=hint,
                lifetime_ms=lifetime_ms,
                digest=digest,
                parameters=parameters,
            )
            key = full_name if digest is None else full_name[:-_DIGEST_COMPONENT_BYTES]
            try:
                return await self._ask(key, digest, can_be_prefix, wire, next_hop_face, lifetime_ms / 1000)
            except TimeoutError:
                if attempt == retries:
                    raise TimedOut(f"{names.to_uri(name)}: no answer within {lifetime_ms} ms") from None
        raise AssertionError("unreachable")

    async def _ask(
        self,
        key: Name,
        digest: bytes | None,
        can_be_prefix: bool,
        wire: bytes,
        next_hop_face: int | None,
        lifetime_s: float,
    ) -> Data:
        if self._closed.is_set():
            raise Disconnected(f"{names.to_uri(key)}: the forwarder closed the connection")
        loop = asyncio.get_running_loop()
        token = None if next_hop_face is None else next(self._tokens).to_bytes(8, "big")
        pending = _Pending(loop.create_future(), digest, can_be_prefix, token)
        self._pending.setdefault(key, []).append(pending)
        self._prefix_interests += can_be_prefix
        timer = loop.call_later(lifetime_s, _expire, pending.future)
        try:
            self._send(packet.encode_link(wire, pit_token=token, next_hop_face=next_hop_face))
            return await pending.future
        finally:
            timer.cancel()
            self._forget(key, pending)

    def _forget(self, key: Name, pending: _Pending) -> None:
        entries = self._pending.get(key)
        if entries is not None and pending in entries:
            entries.remove(pending)
            self._prefix_interests -= pending.can_be_prefix
            if not entries:
                del self._pending[key]

    def ask(self, name: Name, wire: bytes, asker: Asker) -> None:
        """Sends an Interest for `name` (without its digest); what comes is the asker's until it takes or forgets it.

        Asked again for the same name, it is one question still.
        """
        if self._closed.is_set():
            asker.on_disconnect()
            return
        askers = self._asked.get(name)
        if askers is None:
            self._asked[name] = [asker]
        elif asker not in askers:
            askers.append(asker)
        self._send(wire)

    def forget(self, name: Name, asker: Asker) -> None:
        """The asker no longer waits for this."""
        askers = self._asked.get(name, [])
        if asker in askers:
            askers.remove(asker)
            if not askers:
                del self._asked[name]

    # --- producer

    def serve(self, prefix: Name, handler: Handler) -> None:
        """Answers Interests below `prefix` with what the handler returns; the longest prefix wins."""
        self._handlers[prefix] = handler

    def unserve(self, prefix: Name) -> None:
        self._handlers.pop(prefix, None)

    async def register(self, prefix: Name) -> None:
        """Asks the forwarder to send us Interests below `prefix`; raises FetchError with its refusal."""
        from ndn.app_support.nfd_mgmt import make_command  # only applications outside need it

        command = make_command("rib", "register", name=names.components(prefix))
        name = b"".join(bytes(c) for c in command)
        answer = await self.express(name, lifetime_ms=4000, retries=2, must_be_fresh=True)
        status, text = _status(answer.content)
        if status != 200:
            raise FetchError(f"{names.to_uri(prefix)} was not registered: {status} {text}")

    # --- the face

    def receive(self, wire: bytes) -> None:
        """Takes one link packet from the face; what cannot be decoded is counted and dropped."""
        if self._asked and wire[:1] == _DATA and self._offer(wire, False):
            return
        try:
            link = packet.decode_link(wire)
            if not link.fragment:
                return
            if link.fragment[0] == packet.DATA:
                if self._asked and self._offer(link.fragment, link.congestion_mark > 0):
                    return
                self._on_data(packet.decode_data(link.fragment), link.pit_token)
                return
            interest = packet.decode_interest(link.fragment)
        except DecodeError as error:
            self.undecodable += 1
            log.debug("dropped a packet: %s", error)
            return
        if link.nack_reason is not None:
            self._on_nack(interest, link.nack_reason, link.pit_token)
        else:
            interest.incoming_face = link.incoming_face
            self._on_interest(interest, link.pit_token)

    def disconnected(self) -> None:
        """The face is gone: every pending Interest fails, and answers that are being made are given up."""
        self._closed.set()
        for task in self._tasks:
            task.cancel()
        for entries in list(self._pending.values()):
            for pending in entries:
                if not pending.future.done():
                    pending.future.set_exception(Disconnected("the forwarder closed the connection"))
        asked, self._asked = self._asked, {}
        for asker in {id(asker): asker for askers in asked.values() for asker in askers}.values():
            asker.on_disconnect()

    async def closed(self) -> None:
        """Returns when the face is gone."""
        await self._closed.wait()

    def close(self) -> None:
        if self._on_close is not None:
            self._on_close()
        self.disconnected()

    def _offer(self, wire: bytes, is_marked: bool) -> bool:
        """Shows a Data packet to who asked for its name; whether nobody else can be waiting for it.

        It is not decoded: an asker knows its packet by the digest of all its bytes.
        """
        name = packet.data_name(wire)
        askers = self._asked.get(name)
        if askers is None:
            return False
        if len(askers) == 1:
            if askers[0].on_packet(name, wire, is_marked):
                self._asked.pop(name, None)
        else:
            for asker in askers[:]:
                if asker.on_packet(name, wire, is_marked):
                    self.forget(name, asker)
        return not self._prefix_interests and name not in self._pending

    def _on_data(self, data: Data, token: bytes | None) -> None:
        self._answer(self._pending.get(data.name), data, token, exact=True)
        if self._prefix_interests:
            for end in [0, *packet.component_ends(data.name)[:-1]]:
                self._answer(self._pending.get(data.name[:end]), data, token, exact=False)

    def _answer(self, entries: list[_Pending] | None, data: Data, token: bytes | None, exact: bool) -> None:
        for pending in entries or ():
            if pending.token != token or (not exact and (not pending.can_be_prefix or pending.digest is not None)):
                continue
            if pending.digest is not None and pending.digest != data.digest:
                continue
            if not pending.future.done():
                pending.future.set_result(data)

    def _on_nack(self, interest: Interest, reason: int, token: bytes | None) -> None:
        for asker in self._asked.get(interest.name, ())[:]:
            asker.on_nack(interest.name, reason)
        asked = interest.digest, interest.can_be_prefix, token
        for pending in self._pending.get(interest.name, ()):
            if (pending.digest, pending.can_be_prefix, pending.token) == asked and not pending.future.done():
                pending.future.set_exception(Nacked(interest.name, reason))

    def _on_interest(self, interest: Interest, pit_token: bytes | None) -> None:
        handler = self._handler(interest.name)
        if handler is None:
            return
        try:
            result = handler(interest)
        except Exception:
            log.exception("the handler of %s failed", names.to_uri(interest.name))
            return
        if inspect.isawaitable(result):
            task = asyncio.ensure_future(self._reply_later(result, interest, pit_token))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif result is not None:
            self._send(packet.encode_link(result, pit_token=pit_token))

    def _handler(self, name: Name) -> Handler | None:
        for end in reversed([0, *packet.component_ends(name)]):
            handler = self._handlers.get(name[:end])
            if handler is not None:
                return handler
        return None

    async def _reply_later(self, result: Awaitable[bytes | None], interest: Interest, pit_token: bytes | None) -> None:
        try:
            wire = await result
        except Exception:
            log.exception("the handler of %s failed", names.to_uri(interest.name))
            return
        if wire is not None and not self._closed.is_set():
            self._send(packet.encode_link(wire, pit_token=pit_token))


def _status(response: bytes) -> tuple[int, str]:
    """Status code and text of a ControlResponse; 0 when it is none."""
    fields: dict[int, bytes] = {}
    try:
        _, at, end = packet.read_tlv(response, 0, len(response))
        while at < end:
            kind, start, at = packet.read_tlv(response, at, end)
            fields[kind] = response[start:at]
    except DecodeError as error:
        return 0, str(error)
    return int.from_bytes(fields.get(_STATUS_CODE, b""), "big"), fields.get(_STATUS_TEXT, b"").decode(errors="replace")


def _expire(future: asyncio.Future[Data]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


class _Connection(asyncio.Protocol):
    """Carries an endpoint's packets over a stream socket."""

    def __init__(self) -> None:
        self.endpoint = Endpoint(self._write)
        self._buffer = b""
        self._outgoing: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.endpoint._on_close = self._close

    def data_received(self, chunk: bytes) -> None:
        self._buffer += chunk
        try:
            packets, used = packet.split_stream(self._buffer)
        except DecodeError as error:
            log.error("the forwarder sent what is no packet: %s", error)
            self.endpoint.close()
            return
        self._buffer = self._buffer[used:]
        for wire in packets:
            self.endpoint.receive(wire)

    def connection_lost(self, error: Exception | None) -> None:
        self.endpoint.disconnected()

    def _close(self) -> None:
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _write(self, wire: bytes) -> None:
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(wire)

    def _flush(self) -> None:
        """One system call for whatever was sent in this turn of the loop."""
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(outgoing))


async def connect(uri: str = "unix:///run/picasso/ndn.sock") -> Endpoint:
    """An endpoint on the forwarder at a face URI (`unix:///path`, `tcp4://host:port`, `tcp6://[host]:port`).

    Raises ConnectionError or OSError, which name the URI.
    """
    loop = asyncio.get_running_loop()
    parts = urlsplit(uri)
    try:
        if parts.scheme == "unix":
            _, connection = await loop.create_unix_connection(_Connection, parts.path)
        elif parts.scheme in ("tcp4", "tcp6", "tcp"):
            _, connection = await loop.create_connection(_Connection, parts.hostname or "", parts.port or 6363)
        else:
            raise ValueError(f"{uri!r} is no face URI to connect to: unix:///path or tcp4://host:port")
    except OSError as error:
        raise ConnectionError(f"no forwarder at {uri}: {error.strerror or error}") from error
    return connection.endpoint
