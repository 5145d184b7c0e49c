"""The gateway as its monitor sees it (gateway.monitor.ports.Gateway)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.forwarder.faces.base import Face
from gateway.monitor.hello import BLOB_BYTES, BLOBS_MAX
from gateway.monitor.links import FaceSample
from gateway.monitor.schedule import Demand
from gateway.protocol import names
from gateway.protocol.messages import ForwarderCounters, RouteReport, ServiceStatus

if TYPE_CHECKING:
    from gateway.daemon import Gateway


class MonitorPorts:
    """Fits a Gateway to what the monitor asks of it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.sign, self.verify = gateway.membership.sign, gateway.membership.verify
        self.on_hello, self.on_silence = gateway.on_hello, gateway.on_silence
        self.on_unknown_key = gateway.on_unknown_key
        self.reach, self.dial = gateway.mesh.reach, gateway.mesh.dial

    def faces(self) -> Sequence[FaceSample]:
        """Those with one peer, not the groups that everybody hears."""
        groups = self._gateway.manager.multicast
        return [_sample(face) for face in self._gateway.forwarder.faces.values() if face not in groups]

    def groups(self) -> list[tuple[int, str]]:
        return [(face.id, face.interface) for face in self._gateway.manager.multicast if face.up]

    def listening(self) -> Sequence[tuple[str, str, int]]:
        return self._gateway.manager.listening

    def forwarder_counters(self) -> ForwarderCounters:
        forwarder = self._gateway.forwarder
        counters = forwarder.counters
        links = [face.counters for face in forwarder.faces.values() if not face.is_local]
        return ForwarderCounters(
            interests=counters.in_interests,
            data=counters.in_data,
            nacks=counters.in_nacks,
            hits=counters.hits,
            misses=counters.misses,
            in_bytes=sum(c.in_bytes for c in links),
            out_bytes=sum(c.out_bytes for c in links),
            drops=sum(c.drops for c in links),
        )

    def routes(self) -> tuple[RouteReport, ...]:
        """The neighbour that this node uses towards each node it has a route to."""
        gateway = self._gateway
        nodes, rows = gateway.network.nodes, []
        for prefix, hops in gateway.forwarder.fib:
            parts = names.components(prefix)
            if not prefix.startswith(nodes) or len(parts) != len(names.components(nodes)) + 1:
                continue
            node, best = names.text(parts[-1]), hops[0]
            next_hop = gateway.neighbor_node(best.face_id)
            if node != gateway.node and next_hop:
                distance = gateway.mesh.distance(node)
                rows.append(RouteReport(node, next_hop, best.cost if distance is None else int(distance)))
        return tuple(rows)

    def decision_order(self) -> tuple[int, int]:
        placement = self._gateway.placement
        return placement.order if placement is not None else (0, 0)

    def services(self) -> tuple[ServiceStatus, ...]:
        return self._gateway.executor_status.services

    def runtimes(self) -> tuple[str, ...]:
        """None without a blob store: nothing is placed on a node that can't keep an image."""
        return self._gateway.executor_status.runtimes if self._gateway.blobs is not None else ()

    def blobs(self) -> tuple[bytes, ...]:
        store = self._gateway.blobs
        return tuple(ref.sha256 for ref in store.complete()) if store is not None else ()

    def held(self) -> tuple[bytes, ...]:
        store = self._gateway.blobs
        return tuple(sha256[:BLOB_BYTES] for sha256 in store.held()[:BLOBS_MAX]) if store is not None else ()

    def demand(self) -> Demand:
        """A want is being served when its wanter is met now, and the blob is here at least in part."""
        gateway, custody = self._gateway, self._gateway.custody
        waiting = custody.wants.in_order() if custody is not None else []
        is_here = custody.is_here if custody is not None else lambda sha256: False
        is_served = any(gateway.is_met(e.want.wanter) and is_here(e.want.blob.sha256) for e in waiting)
        if is_served or (gateway.fetcher is not None and gateway.fetcher.running):
            return Demand.MOVING
        store = gateway.blobs
        is_missing = store is not None and any(not store.has(sha256) for sha256 in gateway.needed_blobs())
        return Demand.WAITING if waiting or is_missing else Demand.NONE


def _sample(face: Face) -> FaceSample:
    counters = face.counters
    return FaceSample(
        face.id,
        face.neighbor,
        face.uri,
        face.local_uri,
        face.up,
        face.is_local,
        counters.in_bytes,
        counters.out_bytes,
        counters.in_data_bytes,
        face.outstanding,
    )
