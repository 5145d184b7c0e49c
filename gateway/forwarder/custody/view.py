"""The wants of a node for people and for the CLI, as JSON-ready values."""

from __future__ import annotations

from typing import Any

from gateway.forwarder.blobs import BlobStore
from gateway.forwarder.custody.fetching import Fetching
from gateway.forwarder.custody.wants import Entry, Wants

Row = dict[str, Any]


def rows(wants: Wants, store: BlobStore, fetching: Fetching, now: float) -> list[Row]:
    """What waits for whom, the next to be served first; `now` is the table's time."""
    return [_row(entry, wants, store, fetching, now) for entry in wants.in_order()]


def _row(entry: Entry, wants: Wants, store: BlobStore, fetching: Fetching, now: float) -> Row:
    want, sha256 = entry.want, entry.want.blob.sha256
    running, is_here = fetching.running.get(sha256), store.has(sha256)
    return {
        "blob": sha256.hex(),
        "wanter": want.wanter,
        "size": want.blob.size,
        "root": want.blob.root.hex(),
        "arrived": want.blob.size if is_here else fetching.progress.get(sha256, 0),
        "state": "here" if is_here else "coming" if running is not None else "waiting",
        "priority": want.priority,
        "waiting_s": round(now - entry.since, 1),
        "since": entry.since_unix,
        "expires_s": round(entry.expires_at - now, 1),
        "hops": entry.hops,
        "brought_by": entry.came_from,
        "coming_from": (running.fetch.near or "far") if running is not None else "",
        "holders": list(want.holders),
        "problem": _problem(entry, wants, fetching, is_here),
    }


def _problem(entry: Entry, wants: Wants, fetching: Fetching, is_here: bool) -> str:
    """Why a want cannot be served although it was taken, with the way out."""
    if is_here or wants.is_own(entry) or fetching.fits(entry.want.blob):
        return ""
    return "no room for it on this disk (forwarder.disk_cache, or a disk that is full)"


def packets(wants: Wants, now: float) -> list[Row]:
    """Every want that may be handed on, withdrawals too, its packets in hex."""
    return [
        {
            "wanter": entry.want.wanter,
            "blob": entry.want.blob.sha256.hex(),
            "packet": entry.packet.hex(),
            "certificate": entry.certificate.hex(),
            "hops": entry.hops - 1,
            "left_s": entry.expires_at - now,
        }
        for entry in wants
        if entry.hops > 0
    ]
