"""A second version of an image that shares all but one layer: what the gateway's link carries for it."""

from __future__ import annotations

from dataclasses import dataclass

from bench import fluid
from bench.delivery_runs import LAYERS, PATIENCE, PATIENCE_S, Say, Watch
from tests.emulation.image import Image, layer, make
from tests.emulation.running import Emulation
from tests.emulation.topology import tree

ROOT, GATEWAY, MBPS = "repository", "gateway", 20.0


@dataclass(frozen=True, slots=True)
class SecondVersion:
    """Bytes that the gateway's interface received for the second version, and the size of the layer that changed."""

    received: int
    sent: int
    layer_bytes: int
    image_bytes: int

    @property
    def share(self) -> float:
        """What came against the least that the changed layer takes on a link, one way."""
        return self.received / fluid.link_bytes(self.layer_bytes, is_both_ways=False)


def versions(megabytes: float) -> tuple[Image, Image]:
    """Two images of so many MB in equal layers, of which the last differs."""
    size = int(megabytes * 1e6 / LAYERS)
    shared = [layer(size, seed) for seed in range(1, LAYERS)]
    return make([*shared, layer(size, 100)]), make([*shared, layer(size, 200)])


def second_version(megabytes: float, say: Say) -> SecondVersion:
    """Delivers both versions over a link of 20 Mbit/s and counts the second."""
    first, second = versions(megabytes)
    with Emulation(tree([(ROOT, GATEWAY, MBPS)]), ROOT) as emulation:
        emulation.start().settle()
        for name, image in (("first version", first), ("second version", second)):
            refs = emulation.add(image)
            watch = Watch(emulation.network, name, say, PATIENCE * image.size * 8e-6 / MBPS + PATIENCE_S)
            started = emulation.deliver("layers", refs)
            gateway = emulation.gateways[GATEWAY]
            wanted = [ref.sha256 for ref in refs]
            watch.wait(started, [GATEWAY], lambda _, g=gateway, w=wanted: g.holds(w), emulation.check)  # type: ignore[misc]
            traffic = watch.delivery.traffic
    received, sent = (traffic[pair].bytes for pair in ((ROOT, GATEWAY), (GATEWAY, ROOT)))
    return SecondVersion(received, sent, len(second.layers[-1]), second.size)
