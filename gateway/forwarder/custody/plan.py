"""What to fetch next, and from whom: decided from the table of wants and who is met at the moment. Pure.

A *near* fetch asks a neighbour that says it holds the blob; there is one at a time for each neighbour, and an own want
takes the place of another's. A *far* fetch asks the holders that the want names, by whatever routes there are; there is
one at a time, and none for own wants, whose holders the placement client asks itself. Nobody fetches for a wanter that
there is a route to: it can fetch itself, so it is only told where the blob is, unless it stays without for a while.
Nor does a node fetch for others what they say it holds: it has the blob, or its repository does, and would only get its
own copy back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from gateway.forwarder.custody.wants import Entry, Wants
from gateway.protocol.messages import BlobRef

# Of a blob's SHA-256 that neighbours tell in their hellos.
PREFIX_BYTES = 8
NEAR_MAX = 4
NEAR_RETRY_S = (2.0, 60.0)
FAR_RETRY_S = (15.0, 900.0)
# A neighbour that is just heard again is asked again at once, unless it has failed so often.
FAILURES_MAX = 4
# Who can be reached is given so long to fetch by itself.
GRACE_S = 120.0
ANNOUNCED_MAX = 256


@dataclass(slots=True)
class Contact:
    """A neighbour that is met now: its face, and the prefixes of the blobs that it says it holds."""

    node: str
    face_id: int
    boot_id: str
    holds: set[bytes] = field(default_factory=set)

    def has(self, sha256: bytes) -> bool:
        return sha256[:PREFIX_BYTES] in self.holds


@dataclass(frozen=True, slots=True)
class Fetch:
    """One blob to get: from the neighbour `near`, or, where that is empty, from wherever `holders` lead.

    `holders` are nodes to ask in turn; `""` asks without a hint.
    """

    ref: BlobRef
    near: str
    holders: tuple[str, ...]
    is_own: bool


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the plan has to know besides the wants; `fits` says whether so many bytes may come in for others."""

    contacts: Mapping[str, Contact]
    has: Callable[[bytes], bool]
    fits: Callable[[BlobRef], bool]
    reaches: Callable[[str], bool]


@dataclass(slots=True)
class _Tries:
    failures: int = 0
    not_before: float = 0.0


class Plan:
    """Remembers what was tried; times are the table's."""

    def __init__(self, wants: Wants) -> None:
        self._wants = wants
        self._tries: dict[tuple[BlobRef, str], _Tries] = {}
        self._announced: dict[bytes, dict[str, None]] = {}

    def next(self, now: float, around: Surroundings, running: Collection[Fetch]) -> Fetch | None:
        """The fetch to start now; None when there is nothing to do or no place for more."""
        busy = {fetch.near for fetch in running}
        fetched = {fetch.ref.sha256 for fetch in running}
        for entry in self._missing(around):
            if entry.want.blob.sha256 in fetched or self._is_doubtful(entry):
                continue
            is_own = self._wants.is_own(entry)
            if not is_own and not around.fits(entry.want.blob):
                continue
            near = [c for c in self._near(entry, around.contacts) if self._may(now, entry, c.node)]
            free = [c.node for c in near if c.node not in busy]
            if free and len(busy - {""}) < NEAR_MAX:
                others = [c.node for c in near if c.node != free[0]]
                return Fetch(entry.want.blob, free[0], (free[0], *others), is_own)
            if not near and "" not in busy and self._may_far(now, entry, around):
                return Fetch(entry.want.blob, "", self._far_holders(entry), is_own)
        return None

    def to_stop(self, now: float, around: Surroundings, running: Collection[Fetch]) -> list[Fetch]:
        """The running fetches that are to end.

        Nobody wants the blob any more, or its neighbour has gone, or an own want is to go first there, or a neighbour
        has what is being asked for further away.
        """
        fetched = {fetch.ref.sha256 for fetch in running}
        own = [e for e in self._missing(around) if self._wants.is_own(e) and e.want.blob.sha256 not in fetched]
        first = {c.node for e in own for c in self._near(e, around.contacts) if self._may(now, e, c.node)}
        return [
            fetch
            for fetch in running
            if not self._wants.wanters(fetch.ref.sha256)
            or (fetch.near and fetch.near not in around.contacts)
            or (not fetch.is_own and fetch.near in first)
            or (not fetch.near and self._is_near(now, fetch, around))
        ]

    def _is_near(self, now: float, fetch: Fetch, around: Surroundings) -> bool:
        wanted = (e for e in self._wants.wanters(fetch.ref.sha256) if e.want.blob == fetch.ref)
        return any(self._may(now, e, c.node) for e in wanted for c in self._near(e, around.contacts))

    def _missing(self, around: Surroundings) -> Iterator[Entry]:
        """The wants for blobs that are not here, one for each blob, the next to be served first.

        A wanter may lie about size or root: then the same SHA-256 is another blob, and has its own turn.
        """
        seen: set[BlobRef] = set()
        for entry in self._wants.in_order():
            ref = entry.want.blob
            if ref not in seen and not around.has(ref.sha256) and not self._is_ours_to_give(entry):
                seen.add(ref)
                yield entry

    def _is_ours_to_give(self, entry: Entry) -> bool:
        return self._wants.node in entry.want.holders and not self._wants.is_own(entry)

    def _is_doubtful(self, entry: Entry) -> bool:
        """Whether somebody else wants another blob of this SHA-256, and this one has failed more often."""
        rivals = {e.want.blob for e in self._wants.wanters(entry.want.blob.sha256)} - {entry.want.blob}
        return any(self._failures(rival) < self._failures(entry.want.blob) for rival in rivals)

    def _failures(self, ref: BlobRef) -> int:
        return sum(tries.failures for place, tries in self._tries.items() if place[0] == ref)

    def _near(self, entry: Entry, contacts: Mapping[str, Contact]) -> list[Contact]:
        """The neighbours that hold the blob; who waits for it has it in part only, and comes last."""
        sha256 = entry.want.blob.sha256
        waiting = {each.want.wanter for each in self._wants.wanters(sha256)}
        found = [c for c in contacts.values() if c.has(sha256) and waiting != {c.node}]
        return sorted(found, key=lambda c: (c.node in waiting, c.node))

    def _may(self, now: float, entry: Entry, node: str) -> bool:
        tries = self._tries.get((entry.want.blob, node))
        return tries is None or tries.not_before <= now

    def _may_far(self, now: float, entry: Entry, around: Surroundings) -> bool:
        if not self._may(now, entry, ""):
            return False
        if entry.want.blob.sha256 in self._announced:
            return True
        waiting = {each.want.wanter for each in self._wants.wanters(entry.want.blob.sha256)}
        if self._wants.is_own(entry) or around.contacts.keys() <= waiting:
            return False  # who only waits for it itself leads nowhere
        return not self.can_help_itself(now, entry, around)

    def can_help_itself(self, now: float, entry: Entry, around: Surroundings) -> bool:
        """Whether the wanter is reachable, no neighbour, and not yet given up waiting for."""
        wanter = entry.want.wanter
        return wanter not in around.contacts and around.reaches(wanter) and now - entry.since < GRACE_S

    def _far_holders(self, entry: Entry) -> tuple[str, ...]:
        told = self._announced.get(entry.want.blob.sha256, {})
        named = [] if self._wants.is_own(entry) and told else list(entry.want.holders)
        return tuple(dict.fromkeys([*told, *named, ""]))

    # --- what happened

    def announce(self, sha256: bytes, node: str) -> None:
        """A node that is no neighbour, or `""` an application here, says that it has a blob which is wanted."""
        if len(self._announced) < ANNOUNCED_MAX or sha256 in self._announced:
            told = self._announced.setdefault(sha256, {})
            told[node] = None
            if len(told) > 4:
                del told[next(iter(told))]
            for place in [p for p in self._tries if p[0].sha256 == sha256 and not p[1]]:
                del self._tries[place]

    def met(self, node: str, is_new: bool) -> None:
        """A neighbour was heard: what failed with it may work now, and, if it is new, what failed by any way.

        Nobody sees a short absence but by what fails meanwhile; what has failed again and again has other reasons.
        """
        for place in [p for p in self._tries if p[1] == node or (is_new and not p[1])]:
            if is_new:
                del self._tries[place]
            elif self._tries[place].failures < FAILURES_MAX:
                self._tries[place].not_before = 0.0

    def failed(self, now: float, fetch: Fetch, has_moved: bool = False) -> None:
        """A fetch ended without the blob; with `has_moved` something has come all the same."""
        first, last = NEAR_RETRY_S if fetch.near else FAR_RETRY_S
        tries = self._tries.setdefault((fetch.ref, fetch.near), _Tries())
        if has_moved:
            tries.failures = 0
        tries.not_before = now + min(first * 2.0 ** min(tries.failures, 16), last)
        tries.failures += 1
        if not fetch.near:
            self._announced.pop(fetch.ref.sha256, None)

    def forget(self, sha256: bytes) -> None:
        """The blob has come, or is not wanted any more."""
        self._announced.pop(sha256, None)
        for place in [p for p in self._tries if p[0].sha256 == sha256]:
            del self._tries[place]

    def next_deadline(self, now: float) -> float | None:
        """When something that failed may be tried again."""
        return min((t.not_before for t in self._tries.values() if t.not_before > now), default=None)
