"""What a command is answered with, and the refusals that modules raise."""

from __future__ import annotations

from gateway.forwarder.management.encoding import ControlParameters

OK = 200
BAD_PARAMETERS, FORBIDDEN, NOT_FOUND, NOT_ACCEPTABLE = 400, 403, 404, 406
CONFLICT, GONE, TOO_DEEP = 409, 410, 414
NOT_SUPPORTED, UNAVAILABLE, FAILED = 501, 503, 504


class Refused(Exception):
    """A command that is answered with a status other than 200; `body` is what stands instead of what was asked for."""

    def __init__(self, status: int, reason: str, body: ControlParameters | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.body = status, reason, body
