"""NFD's management protocol, so that applications and tools made for NFD find here what they expect.

service.py      Management: the event loop's side, timers and notifications
dispatch.py     Interest -> module, access, response        datasets.py  versions and segments
access.py       local users, configured keys                replay.py    commands that are not new
command.py      signatures of both forms                    encoding.py  TLV blocks
rib.py fib.py faces.py content_store.py strategy_choice.py status.py     one module of the protocol each
"""

from gateway.forwarder.management.access import KeyRing
from gateway.forwarder.management.dispatch import REMOTE_PREFIX
from gateway.forwarder.management.module import LOCAL_PREFIX as PREFIX
from gateway.forwarder.management.service import Management

__all__ = ["PREFIX", "REMOTE_PREFIX", "KeyRing", "Management"]
