"""A ferry between two shores that are never connected: how many contacts a blob takes, and the fewest there can be.

     repository ──(contact)── ferry ──(contact)── shore

The contacts take turns, so that no path from end to end ever exists. The first is with the shore, which hands its want
over: before that nobody knows that it wants anything.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from bench import fluid
from bench.delivery_runs import Say
from gateway.forwarder.producer import BlobStore
from gateway.protocol.messages import BlobRef
from gateway.protocol.objects import PAYLOAD_BYTES
from tests.emulation import membership
from tests.emulation.gateways import EmulatedGateway, wait_for
from tests.emulation.image import Image, layer, make
from tests.emulation.running import Emulation
from tests.emulation.topology import Link, tree

ROOT, FERRY, SHORE = "repository", "ferry", "shore"
MBPS, CONTACT_S, GAP_S = 20.0, 4.0, 2.0
SPARE_CONTACTS = 12
WANT_S = 90.0
# A segment of 8,000 bytes has about 150 bytes of name, digests and headers.
SEGMENT_OVERHEAD_BYTES = 150
_SEGMENT_BYTES = PAYLOAD_BYTES + SEGMENT_OVERHEAD_BYTES
# What of a frame is a segment's payload, at best.
PAYLOAD_SHARE = PAYLOAD_BYTES / fluid.link_bytes(_SEGMENT_BYTES, is_both_ways=False)


@dataclass(slots=True)
class Crossing:
    """The contacts that were used, with the bytes that the kernel counted in each, and the fewest that would do."""

    fewest: int
    size: int
    contacts: list[tuple[str, int]] = field(default_factory=list)
    is_whole: bool = False


def fewest_contacts(size: int, seconds: float = CONTACT_S, mbps: float = MBPS) -> int:
    """One for the want, then as many on each side as it takes to carry the bytes."""
    each = mbps * 1e6 / 8 * seconds * PAYLOAD_SHARE
    return 1 + 2 * math.ceil(size / each)


def cross(megabytes: float, say: Say) -> Crossing:
    """Lets the ferry go to and fro until the shore has the blob; raises EmulationError when the want is never made."""
    image = make([layer(int(megabytes * 1e6), 7)])
    crossing = Crossing(fewest_contacts(len(image.layers[0])), len(image.layers[0]))
    topology = tree([(ROOT, FERRY, MBPS), (FERRY, SHORE, MBPS)])
    near, far = topology.links
    with Emulation(topology, ROOT) as emulation:
        refs = _decide(emulation, image)
        emulation.network.fail(near)
        emulation.network.fail(far)
        emulation.start()
        shore = emulation.gateways[SHORE]
        wanted = refs[-1].sha256
        say("ferry: the shore finds out that nobody can be reached")
        wait_for(lambda: _wants(shore, wanted), WANT_S, f"the want of {wanted.hex()[:16]} on the {SHORE}", 0.5)
        for number in range(crossing.fewest + SPARE_CONTACTS):
            link = near if number % 2 else far
            crossing.contacts.append((" - ".join(link.ends), _contact(emulation, link)))
            held = [emulation.gateways[node].held_bytes(wanted, crossing.size) / 1e6 for node in (FERRY, SHORE)]
            say(f"ferry: contact {number + 1}, {link.a} - {link.b}: ferry {held[0]:.1f} MB, shore {held[1]:.1f} MB")
            if shore.holds([wanted]):
                crossing.is_whole = True
                break
            emulation.check()
    return crossing


def _decide(emulation: Emulation, image: Image) -> list[BlobRef]:
    """The shore knows what it is to run and lacks the layer of its image; the gateway by the repository has that."""
    refs = emulation.add(image)
    for node, blobs in ((ROOT, image.blobs), (SHORE, (image.manifest, image.configuration))):
        store = BlobStore(emulation.gateways[node].blobs, emulation.membership.network)
        for blob in blobs:
            store.add_bytes(blob)
        store.close()
    decision = emulation.repository.compose("ferried", refs, {SHORE: ROOT})
    membership.put_on_disk(decision, emulation.gateways[SHORE].state)
    return refs


def _wants(gateway: EmulatedGateway, sha256: bytes) -> bool:
    gateway.check()
    return any(row.get("blob") == sha256.hex() and row.get("since") is not None for row in gateway.ask("wants"))


def _contact(emulation: Emulation, link: Link) -> int:
    before = emulation.network.traffic()
    emulation.network.recover(link)
    time.sleep(CONTACT_S)
    emulation.network.fail(link)
    after = emulation.network.traffic()
    time.sleep(GAP_S)
    return sum((after[pair] - before[pair]).bytes for pair in (link.ends, link.ends[::-1]))
