"""Adaptive: the next hop that is expected to bring Data soonest, by the round trips and losses of each.

After NFD's ASF (Lehman et al., ICNC 2016): figures are kept for each prefix of the FIB and next hop, and now and then
an Interest also goes to one of the others, so that a better way is found and a repaired one found again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from gateway.forwarder.faces.base import Face
from gateway.forwarder.packet import NACK_CONGESTION, NACK_DUPLICATE
from gateway.forwarder.pit import PitEntry
from gateway.forwarder.strategies.base import is_suppressed, longest_unasked, unused_hop
from gateway.protocol.names import Name

# How often another next hop is tried; a lossy mesh link changes within such times.
PROBE_INTERVAL_S = 10.0
# What a lost Interest costs: the time in which a consumer asks again.
RETRANSMISSION_S = 1.0
# RFC 6298's weight of a new round trip; losses are weighted alike. What is known of a next hop that was not asked for a
# while is old: a probe's outcome then counts as much as all before.
_WEIGHT, _WEIGHT_OF_PROBE = 1 / 8, 1 / 2
# A next hop that lost so much is down for all practical purposes, and comes behind those that nobody tried yet.
_LOSS_DOWN = 0.5
# Prefixes that are kept in mind; the one not asked for longest goes first.
PREFIXES_MAX = 4096

# The prefix in the FIB, and the next hops: a ForwardingHint may lead elsewhere than the name.
_Key = tuple[Name, tuple[int, ...]]


class Measurement:
    """One next hop of one prefix; nothing is known while `rtt_s` is None and `loss` is 0."""

    __slots__ = ("_seen", "loss", "rtt_s")

    def __init__(self) -> None:
        self.rtt_s: float | None = None
        self.loss = 0.0
        self._seen = float("-inf")

    def on_answer(self, rtt_s: float, now: float) -> None:
        weight = self._weight(now)
        self.rtt_s = rtt_s if self.rtt_s is None else self.rtt_s + (rtt_s - self.rtt_s) * weight
        self.loss -= self.loss * weight

    def on_loss(self, now: float) -> None:
        self.loss += (1.0 - self.loss) * _WEIGHT
        self._seen = now

    def _weight(self, now: float) -> float:
        seen, self._seen = self._seen, now
        return _WEIGHT_OF_PROBE if now - seen >= PROBE_INTERVAL_S / 2 else _WEIGHT

    def on_refusal(self) -> None:
        """It said itself that it leads nowhere."""
        self.loss = 1.0

    @property
    def is_down(self) -> bool:
        return self.loss >= _LOSS_DOWN

    @property
    def rank(self) -> tuple[int, float]:
        """Smaller is better: by the time until Data is expected where that is known, then the untried, then the bad."""
        if self.is_down:
            return 2, self.loss
        if self.rtt_s is None:
            return 1, self.loss
        return 0, self.rtt_s + self.loss / (1.0 - self.loss) * RETRANSMISSION_S


class _Prefix:
    """The next hops of a prefix, by their faces' numbers, and when one of the others is tried again."""

    def __init__(self, next_probe: float) -> None:
        self.hops: dict[int, Measurement] = {}
        self.next_probe = next_probe

    def of(self, face: Face) -> Measurement:
        return self.hops.setdefault(face.id, Measurement())


class Adaptive:
    """`prefix_of` gives the FIB's prefix of a name."""

    has_probes = True

    def __init__(self, prefix_of: Callable[[Name], Name], chance: random.Random | None = None) -> None:
        self._prefix_of = prefix_of
        self._random = chance or random.Random()
        self._prefixes: dict[_Key, _Prefix] = {}
        self._asked: dict[PitEntry, _Prefix] = {}

    def on_interest(self, entry: PitEntry, hops: Sequence[Face], is_retransmission: bool, now: float) -> Sequence[Face]:
        if is_suppressed(entry, is_retransmission, now):
            return ()
        prefix = self._asked[entry] = self._find(entry.name, hops, now)
        ranked = self._ranked(prefix, hops)
        best = unused_hop(entry, ranked) or longest_unasked(entry, ranked)
        others = [hop for hop in ranked if hop is not best and entry.out_record(hop) is None]
        if not others or now < prefix.next_probe:
            return (best,)
        prefix.next_probe = now + PROBE_INTERVAL_S
        return best, self._probe(prefix, others)

    def on_nack(self, entry: PitEntry, face: Face, hops: Sequence[Face], now: float) -> Face | None:
        prefix, record = self._asked.get(entry), entry.out_record(face)
        if prefix is None or record is None:
            return unused_hop(entry, hops)
        if record.nack_reason == NACK_CONGESTION:
            prefix.of(face).on_loss(now)
        elif record.nack_reason != NACK_DUPLICATE:  # which says that the way works
            prefix.of(face).on_refusal()
        return unused_hop(entry, self._ranked(prefix, hops))

    def on_data(self, entry: PitEntry, face: Face, now: float) -> None:
        prefix, record = self._asked.pop(entry, None), entry.out_record(face)
        if prefix is not None and record is not None:
            prefix.of(face).on_answer(now - record.sent, now)

    def on_expiry(self, entry: PitEntry, now: float) -> None:
        prefix = self._asked.pop(entry, None)
        if prefix is not None:
            for record in entry.out_records:
                if record.nack_reason is None:
                    prefix.of(record.face).on_loss(now)

    def _find(self, name: Name, hops: Sequence[Face], now: float) -> _Prefix:
        key = self._prefix_of(name), tuple(sorted(hop.id for hop in hops))
        prefix = self._prefixes.pop(key, None)
        if prefix is None:
            if len(self._prefixes) >= PREFIXES_MAX:
                del self._prefixes[next(iter(self._prefixes))]
            # Not all prefixes at the same time.
            prefix = _Prefix(now + self._random.uniform(0, PROBE_INTERVAL_S))
        self._prefixes[key] = prefix
        return prefix

    @staticmethod
    def _ranked(prefix: _Prefix, hops: Sequence[Face]) -> list[Face]:
        """The best first; of those that are alike the cheapest."""
        return sorted(hops, key=lambda hop: prefix.of(hop).rank)

    def _probe(self, prefix: _Prefix, others: Sequence[Face]) -> Face:
        """One that nobody tried yet, else any; the better ones more often."""
        untried = [hop for hop in others if prefix.of(hop).rank[0] == 1]
        if untried:
            return untried[0]
        weights = range(len(others), 0, -1)
        return self._random.choices(others, weights)[0]
