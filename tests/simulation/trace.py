"""What happened in a run, for a person to read: packets on links, and what befell links and nodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gateway.forwarder import packet
from gateway.forwarder.packet import DATA, DecodeError
from gateway.protocol import names

KEPT = 2000
_URI_MAX = 100


class Trace:
    """The last packets and events; they are put into words only when somebody reads them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._packets: deque[tuple[float, str, str, bytes]] = deque(maxlen=KEPT)
        self._notes: deque[tuple[float, str, str, bytes]] = deque(maxlen=KEPT)

    def add(self, where: str, fate: str, wire: bytes) -> None:
        self._packets.append((self._clock(), where, fate, wire))

    def note(self, who: str, what: str) -> None:
        self._notes.append((self._clock(), who, what, b""))

    def notes(self) -> list[str]:
        """What befell links and nodes, as `who what`."""
        return [f"{who} {what}" for _, who, what, _ in self._notes]

    def lines(self, last: int = 60) -> list[str]:
        """The last packets, and all notes of their time and the time before."""
        packets = list(self._packets)[-last:]
        entries = sorted([*self._notes, *packets], key=lambda entry: entry[0])
        return [_line(*entry) for entry in entries]


def _line(when: float, where: str, what: str, wire: bytes) -> str:
    if not wire:
        return f"{when:10.4f}  * {where} {what}"
    return f"{when:10.4f}  {where:<15} {len(wire):5d} B  {describe(wire)}{f'  [{what}]' if what else ''}"


def describe(wire: bytes) -> str:
    """A link packet in words: `Interest /name`, `Data /name (8000 B)`, `Nack Duplicate /name`."""
    try:
        link = packet.decode_link(wire)
        mark = " marked" if link.congestion_mark else ""
        if not link.fragment:
            return "empty link packet"
        if link.fragment[0] == DATA:
            data = packet.decode_data(link.fragment)
            return f"Data {_short(data.name)} ({len(data.content)} B){mark}"
        interest = packet.decode_interest(link.fragment)
    except DecodeError as error:
        return f"undecodable: {error}"
    via = f" for {_short(interest.hint[0])}" if interest.hint else ""
    if link.nack_reason is not None:
        reason = packet.NACK_REASONS.get(link.nack_reason, str(link.nack_reason))
        return f"Nack ({reason}) {_short(interest.name)}{via}"
    return f"Interest {_short(interest.name)}{via}"


def _short(name: bytes) -> str:
    """A URI with the digits of hashes cut to eight."""
    parts = [part if len(part) < 40 else part[:8] + "…" for part in names.to_uri(name).split("/")]
    return "/".join(parts)[:_URI_MAX]
