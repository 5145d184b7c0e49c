"""The placement client's state for people and for the CLI, as JSON-ready values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.placement_client.decision import Decision, Placed, image_blobs
from gateway.placement_client.session import Session
from gateway.protocol.messages import ServiceSpec

Progress = Mapping[bytes, tuple[int, int]]


def describe(
    session: Session, has: Callable[[bytes], bool], progress: Progress, problems: Mapping[str, str]
) -> dict[str, Any]:
    """What is in force and what is on the way; `progress` is (done, total) of blobs being fetched."""
    return {
        "node": session.node,
        "zone": session.zone,
        "decision": _decision(session.decision),
        "pending": _decision(session.draft),
        "services": [
            _service(placed, session.node, has, progress)
            for placed in (session.decision.in_order() if session.decision is not None else ())
        ],
        "rejected": dict(session.rejected),
        "last_rejection": session.last_rejection,
        "problems": dict(problems),
    }


def _decision(decision: Decision | None) -> dict[str, Any] | None:
    if decision is None:
        return None
    head = decision.head
    return {
        "epoch": head.epoch,
        "version": head.version,
        "issued": head.issued,
        "expires": head.expires,
        "source": decision.source,
        "complete": decision.complete,
    }


def _service(placed: Placed, node: str, has: Callable[[bytes], bool], progress: Progress) -> dict[str, Any]:
    section, specification, own = placed.section, placed.specification, placed.head_of(node)
    return {
        "name": placed.ref.service,
        "zone": placed.ref.zone,
        "algorithm": section.algorithm if section is not None else "",
        "provider": specification.provider if specification is not None else "",
        "version": specification.version if specification is not None else None,
        "role": placed.role_of(node),
        "served_by": section.members.get(node, "") if section is not None else "",
        "parent": own.parent if own is not None else "",
        "origin": section.origin if section is not None else "",
        "heads": [
            {"node": h.node, "address": h.address, "bandwidth_mbps": h.bandwidth_mbps, "reason": h.reason}
            for h in (section.heads if section is not None else ())
        ],
        "standbys": list(section.standbys) if section is not None else [],
        "ports": [port.host for port in specification.ports] if specification is not None else [],
        "image": _image(specification, has, progress) if specification is not None else None,
        "refusal": placed.refusal,
    }


def _image(specification: ServiceSpec, has: Callable[[bytes], bool], progress: Progress) -> dict[str, int]:
    blobs = image_blobs(specification)
    held = [ref for ref in blobs if has(ref.sha256)]
    arriving = [
        ref.size * progress[ref.sha256][0] // max(1, progress[ref.sha256][1])
        for ref in blobs
        if ref not in held and ref.sha256 in progress
    ]
    return {
        "blobs": len(blobs),
        "blobs_held": len(held),
        "bytes": sum(ref.size for ref in blobs),
        "bytes_held": sum(ref.size for ref in held) + sum(arriving),
    }
