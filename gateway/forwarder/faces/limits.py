"""What one face may ask for: token buckets for Interests, PIT entries, bytes of replies and unanswered Interests. Pure.

A face pays afterwards for what it has caused, as its counters tell; while it is in debt its Interests are dropped, or
its stream is not read. So a face within its limits costs one look in some milliseconds and not a deduction a packet,
and Data that has come already is never thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.forwarder import packet
from gateway.forwarder.faces.base import Face
from gateway.forwarder.packet import DecodeError

# How often a busy face is looked at; what it does in between is the most that it can get beyond its limits.
SETTLE_S = 0.005


class TokenBucket:
    """`rate` tokens a second, at most `burst` at a time; the level may fall below zero, which is debt."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate, self.burst = rate, burst
        self._level, self._filled = burst, now

    def spend(self, amount: float, now: float) -> None:
        self._level = min(self.burst, self._level + (now - self._filled) * self.rate) - amount
        self._filled = now

    @property
    def is_in_debt(self) -> bool:
        return self._level < 0

    @property
    def debt_s(self) -> float:
        """How long it takes to pay off."""
        return max(0.0, -self._level / self.rate)


@dataclass(frozen=True, slots=True)
class Limits:
    """Tokens a second; a burst of one second's worth may come at once, of unanswered Interests a quarter of that.

    The defaults are above what any link of a community network carries, so that they stop floods and nothing else:
    32,000 Interests fetch 2 Gbit/s of 8 kB segments, and keep a router's core busy for a second only if all are new.
    New PIT entries are what costs memory: half of that. Replies: 2 Gbit/s. Interests that bring no Data are what floods
    are made of: 5,000 cost a twentieth of a core, and a consumer that gets no answers asks for some hundreds a second.
    """

    interests_s: float = 32_000
    pit_entries_s: float = 16_000
    reply_bytes_s: float = 250e6
    unanswered_s: float = 5_000


# Who works on this machine may use all of it, but not keep the others from it by what nobody answers.
HERE = Limits(interests_s=1e12, pit_entries_s=1e12, reply_bytes_s=1e15)


class FaceLimits:
    """The buckets of one face; `dropped` counts Interests."""

    def __init__(self, face: Face, limits: Limits, now: float) -> None:
        self._face = face
        self._interests = TokenBucket(limits.interests_s, limits.interests_s, now)
        self._entries = TokenBucket(limits.pit_entries_s, limits.pit_entries_s, now)
        self._replies = TokenBucket(limits.reply_bytes_s, limits.reply_bytes_s, now)
        self._unanswered = TokenBucket(limits.unanswered_s, limits.unanswered_s / 4, now)
        self._seen = self._look()
        self._entries_made = 0
        self._next_settling = now
        self._is_in_debt = False
        self.dropped = 0

    def is_exceeded(self, now: float) -> bool:
        """Whether Interests of this face are to be dropped; asked before each batch."""
        if now >= self._next_settling:
            self._settle(now)
        return self._is_in_debt

    def without_interests(self, wires: list[bytes]) -> list[bytes]:
        """What passes while the limits are exceeded; the rest is counted."""
        passing = [wire for wire in wires if not _is_interest(wire)]
        self.dropped += len(wires) - len(passing)
        self._face.counters.in_bytes += sum(map(len, wires)) - sum(map(len, passing))
        return passing

    def on_entries(self, count: int) -> None:
        """The packets just handed over made so many PIT entries."""
        self._entries_made += count

    @property
    def debt_s(self) -> float:
        """How long the face has to wait, as it was last seen."""
        return max(bucket.debt_s for bucket in self._buckets)

    def _settle(self, now: float) -> None:
        interests, data, replies = self._look()
        asked = interests - self._seen[0]
        self._interests.spend(asked, now)
        self._unanswered.spend(asked - (data - self._seen[1]), now)
        self._replies.spend(replies - self._seen[2], now)
        self._entries.spend(self._entries_made, now)
        self._seen, self._entries_made = (interests, data, replies), 0
        self._is_in_debt = any(bucket.is_in_debt for bucket in self._buckets)
        self._next_settling = now + SETTLE_S

    @property
    def _buckets(self) -> tuple[TokenBucket, ...]:
        return self._interests, self._entries, self._replies, self._unanswered

    def _look(self) -> tuple[int, int, int]:
        counters = self._face.counters
        return counters.in_interests, counters.out_data, counters.out_data_bytes


def _is_interest(wire: bytes) -> bool:
    if wire[:1] != b"\x64":
        return wire[:1] == b"\x05"
    try:
        link = packet.decode_link(wire)
    except DecodeError:
        return False
    return link.fragment[:1] == b"\x05" and link.nack_reason is None
