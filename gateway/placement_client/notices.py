"""What fails at the moment, said once each time it changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

# Faces and the executor need so long to come up; nobody should be alarmed meanwhile.
STARTING_S = 10.0


class Notices:
    """Logs a failure when its text is new, and once more as a warning when it outlasts the first seconds."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock, self._started = log, clock, clock()
        self._told: dict[str, tuple[str, int]] = {}

    def tell(self, what: str, text: str, expected_at_start: bool = False) -> None:
        """`text` is why `what` fails, empty when it works; what is `expected_at_start` is no warning then."""
        if not text:
            self._told.pop(what, None)
            return
        starting = expected_at_start and self._clock() - self._started < STARTING_S
        level = logging.INFO if starting else logging.WARNING
        if self._told.get(what) != (text, level):
            self._log.log(level, "%s: %s", what, text)
        self._told[what] = text, level
