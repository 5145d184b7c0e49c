"""What the gateway tells about itself: the datasets of `control.sock`, and the services of its page."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gateway import __version__
from gateway.control import Command
from gateway.forwarder.faces.datagram import DatagramFace
from gateway.protocol import names
from gateway.protocol.codec import to_json
from gateway.protocol.messages import BlobRef, ServiceStatus

if TYPE_CHECKING:
    from gateway.daemon import Gateway
    from gateway.page import PageService
    from gateway.placement_client.decision import Placed

Row = dict[str, Any]


def commands(gateway: Gateway) -> Mapping[str, Command]:
    """The commands of the control socket."""
    table: tuple[Callable[[Gateway], Any], ...] = (status, services, links, faces, routes, cache, wants, want_packets)
    return {function.__name__: functools.partial(function, gateway) for function in table}


def status(gateway: Gateway) -> Row:
    from gateway.forwarder.transfer import Counters as TransferCounters  # a plain forwarder transfers nothing itself

    placement = gateway.placement.snapshot() if gateway.placement is not None else None
    consumer = gateway.fetcher.consumer if gateway.fetcher is not None else None
    return {
        "node": gateway.node,
        "network": gateway.network.uri,
        "software": f"picasso-gateway {__version__}",
        "uptime_s": round(time.time() - gateway.started, 1),
        "enrolled": gateway.membership.identity is not None and not gateway.revocation,
        "enrolment": _enrolment(gateway),
        "decision": placement["decision"] if placement is not None else None,
        "rejected": placement["rejected"] if placement is not None else {},
        "last_rejection": placement["last_rejection"] if placement is not None else "",
        "problems": {
            **gateway.problems,
            **gateway.identities.problems,
            **(placement["problems"] if placement is not None else {}),
        },
        "executor": {
            "runtimes": list(gateway.executor_status.runtimes),
            "notes": list(gateway.executor_status.notes),
            "epoch": gateway.executor_status.epoch,
            "version": gateway.executor_status.version,
        },
        "forwarder": {
            **dataclasses.asdict(gateway.forwarder.counters),
            "pit_entries": len(gateway.forwarder.pit),
            "fib_entries": len(gateway.forwarder.fib),
            "faces": len(gateway.forwarder.faces),
        },
        "transfer": {f.name: getattr(consumer, f.name, 0) for f in dataclasses.fields(TransferCounters)},
        "measurements": gateway.monitor.snapshot()["counters"],
    }


def _enrolment(gateway: Gateway) -> str:
    state = gateway.enrolment.state if gateway.enrolment is not None else ""
    if not gateway.revocation:
        return state
    if not state or state == "enrolled":  # by a token of before
        state = f"nobody believes this gateway; a token of `picasso-controller enrol {gateway.node}` changes that"
    return f"{gateway.revocation}: {state}"


def services(gateway: Gateway) -> list[Row]:
    """One row a service of the network: where it is placed, and what runs of it here."""
    running = {s.name: s for s in gateway.executor_status.services}
    placed = gateway.placement.snapshot()["services"] if gateway.placement is not None else []
    rows = []
    for row in placed:
        here = running.pop(row["name"], None)
        rows.append({**(to_json(here) if here is not None else _not_here(row["role"])), **_placed(row)})
    return rows + [to_json(each) for each in running.values()]


def _placed(row: Row) -> Row:
    return {
        "name": row["name"],
        "zone": row["zone"],
        "role": row["role"],
        "algorithm": row["algorithm"],
        "provider": row["provider"],
        "version": row["version"],
        "heads": [head["node"] for head in row["heads"]],
        "placed": row["heads"],
        "image": row["image"],
        "origin": row["origin"],
        "refusal": row["refusal"],
    }


def _not_here(role: str) -> Row:
    return {"state": "pending" if role == "head" else "elsewhere", "health": "unknown" if role == "head" else ""}


def links(gateway: Gateway) -> list[Row]:
    rows = []
    for row in gateway.monitor.snapshot()["links"]:
        flat = {**row}
        for side in ("rx", "tx"):
            figure = row[side] or {}
            flat[f"{side}_mbps"] = figure.get("mbps")
            flat[f"{side}_source"] = figure.get("source", "")
        rows.append(flat)
    return rows


def faces(gateway: Gateway) -> list[Row]:
    return [
        {
            "id": face.id,
            "uri": face.uri,
            "local_uri": face.local_uri,
            "neighbor": face.neighbor,
            "node": gateway.neighbor_node(face.id),
            "up": face.up,
            "local": face.is_local,
            "outstanding": face.outstanding,
            **dataclasses.asdict(face.counters),
            **({"link": face.link_counters()} if isinstance(face, DatagramFace) else {}),
        }
        for face in gateway.forwarder.faces.values()
    ]


def routes(gateway: Gateway) -> list[Row]:
    known = gateway.forwarder.faces
    return [
        {
            "prefix": names.to_uri(prefix),
            "face": hop.face_id,
            "neighbor": known[hop.face_id].neighbor or known[hop.face_id].uri,
            "cost": hop.cost,
            "origin": hop.origin,
        }
        for prefix, hops in gateway.forwarder.fib
        for hop in hops
        if hop.face_id in known
    ]


def cache(gateway: Gateway) -> Row:
    store, counters = gateway.forwarder.content_store, gateway.forwarder.counters
    disk = gateway.blobs
    return {
        "memory": {
            "packets": len(store),
            "bytes": store.size_bytes,
            "capacity_bytes": store.capacity_bytes,
            "bulk_bytes": store.bulk_bytes,
            "control_bytes": store.control_bytes,
        },
        "hits": counters.hits,
        "misses": counters.misses,
        "blob_hits": counters.blob_hits,
        "blob_misses": counters.blob_misses,
        "custody": gateway.custody.counters() if gateway.custody is not None else None,
        "disk": None
        if disk is None
        else {
            "directory": str(disk.directory),
            "bytes": disk.usage_bytes,
            "capacity_bytes": gateway.settings.forwarder.disk_cache_bytes,
            "blobs": [{"sha256": ref.sha256.hex(), "size": ref.size} for ref in disk.complete()],
        },
    }


def wants(gateway: Gateway) -> list[Row]:
    """The blobs that are waited for, here and by those whose wants are in custody; own ones first."""
    placement, store = gateway.placement, gateway.blobs
    if placement is None or store is None:
        return []
    rows = gateway.custody.snapshot() if gateway.custody is not None else []
    known = {row["blob"]: row for row in rows if row["wanter"] == gateway.node}
    own = []
    for need in placement.session.blob_needs(gateway.distance):
        if store.has(need.ref.sha256):
            continue
        row = known.pop(need.ref.sha256.hex(), None) or _need(gateway.node, need.ref)
        own.append({**row, "service": need.service, "holders": row["holders"] or list(need.holders)})
    return [*own, *known.values(), *(row for row in rows if row["wanter"] != gateway.node)]


def _need(node: str, ref: BlobRef) -> Row:
    """A blob that this node fetches itself, and has not asked anybody to get for it."""
    return {
        "blob": ref.sha256.hex(),
        "wanter": node,
        "size": ref.size,
        "root": ref.root.hex(),
        "arrived": 0,
        "state": "coming",
        "priority": 5,
        "holders": [],
    }


def want_packets(gateway: Gateway) -> Row:
    """The signed wants, for `picasso-gateway export`."""
    if gateway.custody is None:
        return {"node": gateway.node, "network": gateway.network.uri, "wants": []}
    return gateway.custody.packets()


def page_services(gateway: Gateway) -> list[PageService]:
    """The network's services with their instances, the nearest first."""
    placement = gateway.placement
    decision = placement.session.decision if placement is not None else None
    here = {s.name: s for s in gateway.executor_status.services}
    return (
        [_page_service(gateway, placed, here.get(placed.ref.service)) for placed in decision.in_order()]
        if decision
        else []
    )


def _page_service(gateway: Gateway, placed: Placed, here: ServiceStatus | None) -> PageService:
    from gateway.page import Instance, PageService  # only a gateway that has a page asks

    section, specification = placed.section, placed.specification
    ports = specification.ports if specification is not None else ()
    instances = (
        [
            Instance(
                node=head.node,
                address=head.address,
                port=ports[0].host,
                distance=max(0.0, gateway.distance(head.node)),
                bandwidth_mbps=head.bandwidth_mbps,
                health=here.health if here is not None and head.node == gateway.node else "unknown",
            )
            for head in sorted(section.heads, key=lambda h: gateway.distance(h.node))
            if head.address and ports
        ]
        if section is not None
        else []
    )
    return PageService(
        name=placed.ref.service,
        instances=tuple(instances),
        state=here.state if here is not None else "",
        health=here.health if here is not None else "",
        health_path=specification.health.path if specification is not None and specification.health else "",
    )
