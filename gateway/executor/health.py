"""When a service is healthy: what to make of the answers to its health check, and when to ask again. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.protocol.messages import HealthCheck

# Until the first good answer, so that a service is known to work half a second after it does.
START_INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True)
class Health:
    """The health of one instance; times are monotonic seconds.

    `state` is `unknown` until the first answer that counts; without a check an instance that runs is healthy.
    """

    check: HealthCheck | None
    started_s: float
    state: str
    healthy_since_s: float | None
    next_check_s: float | None
    failures: int = 0
    reason: str = ""

    @classmethod
    def begin(cls, check: HealthCheck | None, started_s: float, now_s: float) -> Health:
        if check is None:
            return cls(None, started_s, "healthy", started_s, None)
        return cls(check, started_s, "unknown", None, now_s)

    def on_result(self, problem: str, now_s: float) -> Health:
        """After one check; `problem` is empty when the answer was good."""
        if self.check is None:
            return self
        if not problem:
            since = now_s if self.healthy_since_s is None else self.healthy_since_s
            return replace(
                self,
                state="healthy",
                healthy_since_s=since,
                next_check_s=now_s + self.check.interval_s,
                failures=0,
                reason="",
            )
        starting = self.state == "unknown"
        next_check_s = now_s + (START_INTERVAL_S if starting else self.check.interval_s)
        if starting and now_s < self.started_s + self.check.grace_s:
            return replace(self, next_check_s=next_check_s, reason=problem)
        failures = self.failures + 1
        if failures < self.check.failures:
            return replace(self, next_check_s=next_check_s, failures=failures, reason=problem)
        return replace(
            self, state="unhealthy", healthy_since_s=None, next_check_s=next_check_s, failures=failures, reason=problem
        )
