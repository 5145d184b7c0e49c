"""When to say hello on a face and when to probe a link: pure timers with jitter, `now` is monotonic time in s."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

HELLO_S, HELLO_MAX_S = 10.0, 60.0
HELLO_JITTER = 0.25
HELLO_BACKOFF = 1.5
# A failed hello is repeated soon, so that three failures tell a dead neighbour within seconds.
HELLO_RETRY_S = 2.0
HELLO_FAILURES = 3
HURRY_S = 0.5
HURRY_PAUSE_S = 4.0
# Hellos sent because of link events: so many in a row, then one a second, whatever a bad cable does.
RUSH_BURST, RUSH_REFILL_S = 5.0, 1.0

# A probe may take one thousandth of the time.
AIRTIME_SHARE = 0.001
# After a failed probe, doubled each time.
PROBE_RETRY_S = 5.0
PROBE_RETRY_MAX_S = 600.0
# Longer than this a link that has no figure yet does not wait for others to finish.
PATIENCE_S = 6.0
# An Interest that an application leaves pending for so long is no transfer.
QUIET_S = 60.0
# A contact may be over in seconds, and is then needed for what is wanted: one that lasts so long is no such contact.
SETTLED_S = 20.0
# A probe waits so long for blobs to come and go elsewhere; then only traffic on the link itself puts it off.
STARVED_S = 1800.0


class Demand(enum.IntEnum):
    """What links are needed for beside measurements."""

    NONE = 0  # nothing is wanted here, nor kept for others
    WAITING = 1  # something is, but nobody who is met now gives or takes it
    MOVING = 2  # a blob is being fetched, or waits for a neighbour that is met now


@dataclass(frozen=True, slots=True)
class Situation:
    """One link as a probe finds it; `met_at` is when its neighbour was last met.

    is_unknown: never measured. is_stale: no fresh figure. is_held: somebody else is probing. is_slow: the link's own
    traffic is below 5 %. is_bulk: some face has carried bulk in the last seconds.
    """

    met_at: float
    is_unknown: bool = True
    is_stale: bool = True
    is_doubtful: bool = False
    is_held: bool = False
    is_slow: bool = True
    is_bulk: bool = False
    outstanding: int = 0


class HelloSchedule:
    """The hellos of one face: at once, then every 10 s ± 25 %, less and less often while nothing changes."""

    def __init__(self, now: float, random: Random) -> None:
        self._random = random
        self._interval_s = HELLO_S
        self._hurried = float("-inf")
        self._rush_credit, self._rush_at = RUSH_BURST, now
        self._rushed_to: float | None = None
        self.next_at = now
        self.failures = 0

    def sent(self) -> None:
        """One is on its way: the next is due when its outcome is known, unless a link event comes before."""
        self.next_at, self._rushed_to = float("inf"), None

    def at_once(self, now: float) -> None:
        """The link may just have come: say hello now, also while the answer to another one is awaited."""
        self._rush_credit = min(RUSH_BURST, self._rush_credit + (now - self._rush_at) / RUSH_REFILL_S)
        self._rush_at = now
        if self._rushed_to is None:
            wait_s = max(0.0, 1.0 - self._rush_credit) * RUSH_REFILL_S
            self._rush_credit -= 1.0
            self._rushed_to = now + wait_s
        self._rush()

    def _rush(self) -> None:
        if self._rushed_to is not None:
            self.next_at = min(self.next_at, self._rushed_to)

    def succeeded(self, now: float, is_settled: bool) -> None:
        """`is_settled`: nothing is left to learn from this neighbour, so it may be asked less often."""
        self.failures = 0
        self._interval_s = min(HELLO_MAX_S, self._interval_s * HELLO_BACKOFF) if is_settled else HELLO_S
        self.next_at = now + self._jittered(self._interval_s)
        self._rush()

    def failed(self, now: float) -> None:
        self.failures += 1
        if self.failures < HELLO_FAILURES:
            self._interval_s = HELLO_S
            self.next_at = now + self._jittered(HELLO_RETRY_S)
        else:
            self.next_at = now + self._jittered(self._interval_s)
            self._interval_s = min(HELLO_MAX_S, self._interval_s * HELLO_BACKOFF)
        self._rush()

    def hurry(self, now: float, pause_s: float = HURRY_PAUSE_S) -> None:
        """The neighbour seems to have news: ask soon, but not more than once in `pause_s`.

        What comes within the pause waits for its end: a node that has just enrolled greets a second time, with its key.
        """
        if self.next_at == float("inf"):
            return
        start = max(now, self._hurried + pause_s)
        soon = start + self._random.uniform(HURRY_S / 2, HURRY_S)
        if soon < self.next_at:
            self._hurried, self.next_at = start, soon

    def _jittered(self, interval_s: float) -> float:
        return interval_s * self._random.uniform(1 - HELLO_JITTER, 1 + HELLO_JITTER)


class ProbeSchedule:
    """The probes of one link: the first within seconds, later ones at most a thousandth of the time.

    Blobs come first: see `_is_free`.
    """

    def __init__(self, now: float, random: Random, goes_first: bool) -> None:
        self._random = random
        # The two ends start at different times: the one whose name sorts first does not wait for the other. A second
        # is enough for a neighbour just met to say what it wants.
        self._turn_s = random.uniform(1.0, 2.0) if goes_first else random.uniform(3.0, 4.5)
        self._ready_at = now + self._turn_s
        self._patient_until = self._ready_at + PATIENCE_S
        # A doubtful figure may be probed one pause early; the pause is added to the next.
        self._credit_s = 0.0
        self._retry_s = PROBE_RETRY_S
        self._quiet_since: float | None = None
        self._is_put_off, self._put_off_since = False, float("inf")
        self.last_failure = ""

    @property
    def ready_at(self) -> float:
        return self._ready_at

    def is_due(self, now: float, link: Situation, demand: Callable[[], Demand]) -> bool:
        """Whether to probe now; `demand` is asked only when nothing else is against it."""
        if not link.is_slow:
            self._quiet_since = None
            return False
        if self._quiet_since is None:
            self._quiet_since = now
        is_idle = link.outstanding == 0 or now - self._quiet_since >= QUIET_S
        is_early = link.is_doubtful and now >= self._ready_at - self._credit_s
        is_paid = now >= self._ready_at if link.is_stale else is_early
        if not (is_paid and is_idle and (not link.is_held or now >= self._patient_until)):
            return False
        if not self._is_free(now, link, demand()):
            self._is_put_off = True
            return False
        if self._is_put_off and link.is_stale:  # as may have been the other end: they take turns, as at first
            self._is_put_off, self._ready_at = False, now + self._turn_s
            self._patient_until = self._ready_at + PATIENCE_S
            return False
        return True

    def _is_free(self, now: float, link: Situation, demand: Demand) -> bool:
        """Whether no blob needs the time.

        A neighbour just met is probed only when nothing at all is known of the link and nothing is wanted or kept for
        others here; else when it has stayed, and neither a blob is moving nor any face carries bulk.
        """
        is_first = link.is_unknown and demand is Demand.NONE
        if now - link.met_at < SETTLED_S and not is_first:
            return False
        if demand is not Demand.MOVING and not link.is_bulk:
            return True
        self._put_off_since = min(self._put_off_since, now)
        return now - self._put_off_since >= STARVED_S

    def succeeded(self, now: float, duration_s: float) -> None:
        self._retry_s = PROBE_RETRY_S
        self.last_failure = ""
        self._wait(now, duration_s / AIRTIME_SHARE * self._random.uniform(1.0, 1.25))

    def failed(self, now: float, duration_s: float, reason: str) -> None:
        self.last_failure = reason
        pause_s = self._retry_s * self._random.uniform(1.0, 1.25)
        # Two early repetitions are within the promise of a prompt first figure; then the airtime rule holds.
        if self._retry_s > 2 * PROBE_RETRY_S:
            pause_s = max(pause_s, min(PROBE_RETRY_MAX_S, duration_s / AIRTIME_SHARE))
        self._retry_s = min(PROBE_RETRY_MAX_S, 2 * self._retry_s)
        self._wait(now, pause_s)

    def _wait(self, now: float, pause_s: float) -> None:
        self._put_off_since = float("inf")
        self._ready_at = max(now, self._ready_at) + pause_s
        self._credit_s = pause_s
        self._patient_until = self._ready_at + PATIENCE_S
