"""Which signed commands are new: a command that was heard on the network must not work a second time.

Pure: `now_ms` is Unix time, as in the commands themselves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

from gateway.forwarder.management.command import Signature

# How far a signer's clock may be from ours, as in ndn-cxx.
GRACE_MS = 120_000
NONCES_MAX = 1000
# Signers are configured keys and local faces; the least recently heard is forgotten beyond this.
SIGNERS_MAX = 512


class Replayed(Exception):
    """A command that is not new, or can't be told from an old one; the text says why."""


@dataclass(slots=True)
class _Signer:
    """What a signer used last; of nonces the last thousand."""

    time_ms: int = 0
    sequence: int = -1
    nonces: OrderedDict[Hashable, None] = field(default_factory=OrderedDict)

    def remember(self, nonce: Hashable) -> None:
        self.nonces[nonce] = None
        if len(self.nonces) > NONCES_MAX:
            self.nonces.popitem(last=False)


class ReplayGuard:
    """`started_ms` is when the gateway began: an earlier command may have been used before a restart."""

    def __init__(self, started_ms: int = 0) -> None:
        self._started_ms = started_ms
        self._signers: OrderedDict[Hashable, _Signer] = OrderedDict()

    def admit(self, signer: Hashable, signature: Signature, now_ms: int) -> None:
        """Takes a key's command if its time increases and is within the grace of ours; raises Replayed.

        A sequence number must increase too, and a nonce must be new, where there is one.
        """
        time_ms, known = signature.time_ms, self._signers.get(signer) or _Signer(self._started_ms)
        if time_ms is None:
            raise Replayed("the command bears no time")
        if abs(time_ms - now_ms) > GRACE_MS:
            raise Replayed(f"the command's time is {(time_ms - now_ms) / 1000:.0f} s from ours, more than 120")
        if time_ms <= known.time_ms:
            raise Replayed("the command's time is not later than that of the last one")
        if signature.sequence is not None and signature.sequence <= known.sequence:
            raise Replayed("the command's sequence number is not greater than that of the last one")
        if signature.nonce is not None and signature.nonce in known.nonces:
            raise Replayed("the command's nonce was used before")
        known.time_ms = time_ms
        if signature.sequence is not None:
            known.sequence = signature.sequence
        if signature.nonce is not None:
            known.remember(signature.nonce)
        self._keep(signer, known)

    def admit_local(self, signer: Hashable, signature: Signature) -> None:
        """Takes a command of an application on this machine if it was not taken before; raises Replayed.

        Digests have no key: several threads of one application sign side by side, so that their commands may come
        out of order, by less than the grace, and within one millisecond.
        """
        marks = signature.time_ms, signature.nonce, signature.sequence
        if marks == (None, None, None):
            return
        known = self._signers.get(signer) or _Signer()
        if marks in known.nonces:
            raise Replayed("the command was used before")
        if signature.time_ms is not None:
            if signature.time_ms < known.time_ms - GRACE_MS:
                raise Replayed("the command is more than 120 s older than the last one")
            known.time_ms = max(known.time_ms, signature.time_ms)
        known.remember(marks)
        self._keep(signer, known)

    def _keep(self, signer: Hashable, known: _Signer) -> None:
        self._signers[signer] = known
        self._signers.move_to_end(signer)
        if len(self._signers) > SIGNERS_MAX:
            self._signers.popitem(last=False)
