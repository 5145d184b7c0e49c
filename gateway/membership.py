"""Who this node is in its network: how it signs, and whom it believes; both may change while it runs."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterable

from gateway.forwarder.endpoint import Endpoint, FetchError
from gateway.placement_client.identity import Identity
from gateway.protocol import keys, names
from gateway.protocol.errors import ProtocolError

log = logging.getLogger(__name__)

# Certificates asked for at a time, whatever key names neighbours come up with.
FETCHES_MAX = 16


class Membership:
    """The node's identity, None until it is enrolled: then nothing is signed by a key, and everybody is believed."""

    def __init__(self) -> None:
        self.identity: Identity | None = None
        self._fetching: set[names.Name] = set()

    def sign(self, name: names.Name, content: bytes, freshness_ms: int | None = None) -> bytes:
        """Data of this node, signed with its key, with a digest while it has none."""
        if self.identity is None:
            return keys.sign_data(name, content, freshness_ms)
        return self.identity.key.sign(name, content, freshness_ms)

    def verify(self, wire: bytes) -> keys.Packet:
        """A packet, judged by the network's rules; a plain forwarder has none and takes what comes."""
        return keys.parse(wire) if self.identity is None else self.identity.trust.verify(wire)

    @property
    def certificates(self) -> Iterable[bytes]:
        return self.identity.trust.certificates if self.identity is not None else ()

    def certificate(self, key_name: names.Name) -> bytes | None:
        return self.identity.trust.certificate(key_name) if self.identity is not None else None

    def add_certificate(self, wire: bytes) -> None:
        """Believes one more key; raises ProtocolError when nobody trusted vouches for it."""
        if self.identity is not None:
            self.identity.trust.add_certificate(wire)

    def renew(self, new: Identity) -> None:
        """Goes on with a new key in place of a revoked one; what is trusted stays."""
        assert self.identity is not None
        for wire in new.trust.certificates:
            with contextlib.suppress(ProtocolError):
                self.add_certificate(wire)
        self.identity = dataclasses.replace(new, trust=self.identity.trust)

    async def learn(self, endpoint: Endpoint, face_id: int, key_name: names.Name) -> bool:
        """Gets a missing certificate from the neighbour whose key it is; whether one came that is believed."""
        if self.identity is None or key_name in self._fetching or len(self._fetching) >= FETCHES_MAX:
            return False
        self._fetching.add(key_name)
        try:
            data = await endpoint.express(key_name, can_be_prefix=True, next_hop_face=face_id, retries=1)
            self.add_certificate(data.wire)
        except (FetchError, ProtocolError) as error:
            log.info("no certificate %s: %s", names.to_uri(key_name), error)
            return False
        finally:
            self._fetching.discard(key_name)
        return True
