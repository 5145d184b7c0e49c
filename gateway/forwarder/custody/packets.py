"""Wants as packets: what the wanter signs, and the offers in which neighbours hand them on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.forwarder.custody.wants import Entry, Offered
from gateway.protocol import codec, names
from gateway.protocol.errors import MessageError
from gateway.protocol.keys import Packet
from gateway.protocol.messages import CarriedWant, Want, WantOffer
from gateway.protocol.names import Network

# A want with its name and signature has about 450 bytes; whoever writes more is filling other people's disks.
WANT_MAX_BYTES = 2048
# Leaves room for the names and headers of the Interest that carries it.
OFFER_MAX_BYTES = 7600
# Each takes 32 bytes of an offer.
HELD_MAX = 64


def read(network: Network, packet: Packet) -> tuple[Want, int]:
    """The want in a verified packet and its version; raises MessageError when it is none."""
    uri = names.to_uri(packet.name)
    if len(packet.wire) > WANT_MAX_BYTES:
        raise MessageError(f"{uri}: a want of {len(packet.wire)} bytes, at most {WANT_MAX_BYTES} are accepted")
    want = codec.decode(Want, packet.content)
    version = names.last_number(packet.name, names.VERSION)
    if version is None or packet.name != network.want(want.wanter, want.blob.sha256, version):
        raise MessageError(f"{uri} holds a want of {want.wanter!r:.80} for {want.blob.sha256.hex():.64}")
    return want, version


def carried(entry: Entry, now: float) -> CarriedWant:
    """An entry as it is handed to a neighbour, which may hand it on one time less."""
    return CarriedWant(entry.packet, entry.hops - 1, max(0.0, entry.expires_at - now))


def offered(each: CarriedWant, want: Want, version: int, certificate: bytes, came_from: str) -> Offered:
    """A carried want, once verified, as the table takes it."""
    left_s = each.left_s if each.left_s == each.left_s else 0.0
    return Offered(want, version, each.packet, certificate, each.hops, left_s, came_from)


def fill(entries: Iterable[Entry], now: float, known_to: str, node: str) -> tuple[list[Entry], WantOffer]:
    """As many of the entries as one offer carries, in order, with the certificates that the reader may lack.

    The reader knows its own certificate and, since it has our hello, ours.
    """
    taken: list[Entry] = []
    wants: list[CarriedWant] = []
    certificates: dict[bytes, None] = {}
    size = 200
    for entry in entries:
        certificate = b"" if entry.want.wanter in (node, known_to) else entry.certificate
        cost = len(entry.packet) + 20 + (len(certificate) + 4 if certificate not in certificates else 0)
        if size + cost > OFFER_MAX_BYTES:
            break
        size += cost
        taken.append(entry)
        wants.append(carried(entry, now))
        if certificate:
            certificates[certificate] = None
    return taken, WantOffer(node, 0, tuple(wants), tuple(certificates))


def with_held(offer: WantOffer, held: Sequence[bytes]) -> tuple[WantOffer, int]:
    """The offer with as many of the held blobs as still fit in it, and how many these are."""
    room = (OFFER_MAX_BYTES - len(codec.encode(offer))) // 34
    count = max(0, min(room, HELD_MAX, len(held)))
    return WantOffer(offer.node, offer.serial, offer.wants, offer.certificates, tuple(held[:count])), count
