"""`picasso-gateway export` and `import`: blobs and wants on a USB stick, by the rules of custody.

    DIR/oci-layout                 so that other tools know what the directory is
    DIR/blobs/sha256/<hex>         blobs
    DIR/wants/<hex>.want           a signed want each, with the certificate of its wanter (a WantOffer of one)

Both are applications of the running gateway: it hands out and takes in packets that it verifies itself, so the stick
need not be trusted, and the gateway's user need not be able to read it. The rest of DIR is only for going on after
an interruption.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway import control
from gateway.files import replace_file
from gateway.forwarder.blobs import BlobStore
from gateway.forwarder.consumer import Consumer, StorageFull
from gateway.forwarder.endpoint import Endpoint, FetchError, connect
from gateway.forwarder.packet import Interest
from gateway.protocol import codec, names, objects
from gateway.protocol.errors import MessageError, ProtocolError
from gateway.protocol.messages import BlobRef, CarriedWant, WantAnswer, WantOffer

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}\n'
BUSY = "busy"
# The gateway may be busy fetching from neighbours; what does not come at all in this time is given up.
PATIENCE_S = 90.0
_POLL_S = 0.2


class StickError(Exception):
    """The command cannot go on; the text says why and what to do."""


@dataclass
class Report:
    """What became of each blob and want, in the order in which it happened; the last line sums up."""

    done: int = 0
    done_bytes: int = 0
    left: int = 0
    failed: int = 0
    lines: list[str] = field(default_factory=list)

    def took(self, what: str, size: int, text: str) -> None:
        self.done += 1
        self.done_bytes += size
        self._say(f"{what}  {_size(size):>9}  {text}")

    def leave(self, what: str, size: int, text: str) -> None:
        self.left += 1
        self._say(f"{what}  {_size(size):>9}  {text}")

    def fail(self, what: str, text: str) -> None:
        self.failed += 1
        self._say(f"{what}  {text}")

    def _say(self, line: str) -> None:
        self.lines.append(line)
        print(line, flush=True)


class Gateway:
    """The running gateway as a command sees it: its datasets, and a face of its own to it."""

    def __init__(self, socket: Path, uri: str) -> None:
        self._socket, self._uri = socket, uri
        told = self.ask("want_packets")
        self.node: str = told["node"]
        self.network = names.Network(told["network"])
        self.carried: list[dict[str, Any]] = told["wants"]

    def ask(self, dataset: str) -> Any:
        try:
            return control.ask(self._socket, dataset)
        except (ConnectionError, RuntimeError) as error:
            raise StickError(str(error)) from error

    def wants(self) -> list[dict[str, Any]]:
        return list(self.ask("wants"))

    async def connect(self) -> Endpoint:
        try:
            return await connect(self._uri)
        except OSError as error:
            raise StickError(str(error)) from error


# --- export


async def export(gateway: Gateway, directory: Path, wanters: Sequence[str]) -> Report:
    """Puts every want (those of `wanters`, if any are named), and the wanted blobs that are here, on the stick."""
    report = Report()
    rows = [row for row in gateway.wants() if not wanters or row["wanter"] in wanters]
    try:
        written = _write_wants(gateway, directory, {(row["wanter"], row["blob"]) for row in rows} if wanters else None)
        store = BlobStore(directory, gateway.network)
    except OSError as error:
        raise StickError(f"{directory}: {error.strerror or error}; is the stick mounted and writable?") from error
    endpoint = await gateway.connect()
    try:
        consumer = Consumer(endpoint, gateway.network)
        for row in _one_each(rows):
            await _export_one(consumer, store, row, report)
    finally:
        store.close()
        endpoint.close()
    new = f"{_count(written, 'want')} and {_count(report.done, 'blob')} ({_size(report.done_bytes)})"
    print(f"{directory}: {new} put there, {_count(report.failed, 'failure')}")
    return report


async def _export_one(consumer: Consumer, store: BlobStore, row: dict[str, Any], report: Report) -> None:
    ref = BlobRef(bytes.fromhex(row["blob"]), row["size"], bytes.fromhex(row["root"]))
    what, whom = row["blob"][:16], row["wanter"]
    if store.has(ref.sha256):
        report.leave(what, ref.size, f"is on the stick already, for {whom}")
        return
    if row["state"] != "here":
        report.leave(what, ref.size, f"is not here yet: {whom} waits for it")
        return
    store.pin({held.sha256 for held in store.complete()})  # a full stick must not lose what others put there
    try:
        await consumer.fetch_blob(ref, store, (b"",), _Shown(what))
    except StorageFull as error:
        report.fail(what, f"for {whom}: no room on the stick: {error}")
    except (FetchError, ProtocolError, OSError) as error:
        report.fail(what, f"for {whom}: {error}")
    else:
        report.took(what, ref.size, f"for {whom}")


def _write_wants(gateway: Gateway, directory: Path, only: set[tuple[str, str]] | None) -> int:
    """Writes the wants that are not there yet; how many these were."""
    folder = directory / "wants"
    folder.mkdir(parents=True, exist_ok=True)
    if not (directory / "oci-layout").exists():
        replace_file(directory / "oci-layout", LAYOUT, 0o644)
    count = 0
    for each in gateway.carried:
        if only is not None and (each["wanter"], each["blob"]) not in only:
            continue
        packet = bytes.fromhex(each["packet"])
        path = folder / f"{hashlib.sha256(packet).hexdigest()[:32]}.want"
        if not path.exists():
            certificates = (bytes.fromhex(each["certificate"]),) if each["certificate"] else ()
            offer = WantOffer("", 0, (CarriedWant(packet, each["hops"], each["left_s"]),), certificates)
            replace_file(path, codec.encode(offer), 0o644)
            count += 1
    return count


# --- import


async def import_(gateway: Gateway, directory: Path) -> Report:
    """Hands the wants on the stick to the gateway, then every blob that somebody waits for here."""
    if not (directory / "blobs" / "sha256").is_dir() and not (directory / "wants").is_dir():
        raise StickError(
            f"{directory} has neither blobs/sha256 nor wants: `picasso-gateway export` makes such a directory"
        )
    report = Report()
    endpoint = await gateway.connect()
    try:
        taken, known = await _import_wants(gateway, endpoint, directory, report)
        wanted = {row["blob"]: row for row in reversed(gateway.wants())}
        served = [blob for path in _blob_files(directory) if (blob := _judge(gateway, path, wanted, report))]
        for blob in served:
            await _hand_over(gateway, endpoint, blob, wanted[blob.sha256.hex()], report)
            blob.close()
    finally:
        endpoint.close()
    new = f"{_count(report.done, 'blob')} ({_size(report.done_bytes)}) and {_count(taken, 'want')}"
    rest = f"{_count(report.left, 'blob')} left alone, {_count(known, 'want')} known already"
    print(f"{directory}: {new} taken, {rest}, {_count(report.failed, 'failure')}")
    return report


async def _import_wants(gateway: Gateway, endpoint: Endpoint, directory: Path, report: Report) -> tuple[int, int]:
    """How many wants were taken, and how many the gateway knew already."""
    offers, known_packets = [], {each["packet"] for each in gateway.carried}
    known = 0
    for path in sorted((directory / "wants").glob("*.want")):
        try:
            offer = codec.decode(WantOffer, path.read_bytes(), 16_384)
        except (OSError, MessageError) as error:
            report.fail(path.name, f"is no want: {error}")
            continue
        if all(want.packet.hex() in known_packets for want in offer.wants):
            known += 1
        else:
            offers.append((path.name, offer))
    taken = 0
    for name, offer in offers:
        for reason in await _offer(gateway, endpoint, offer):
            if reason:
                report.fail(name, f"the want was not taken: {reason}")
            else:
                taken += 1
    return taken, known


async def _offer(gateway: Gateway, endpoint: Endpoint, offer: WantOffer) -> list[str]:
    """The gateway's answer to each want of an offer, empty for one that it took."""
    for _ in range(20):
        refusals = {refusal.index: refusal.reason for refusal in (await _tell(gateway, endpoint, offer)).refusals}
        if not any(reason.startswith(BUSY) for reason in refusals.values()):
            break
        await asyncio.sleep(1.0)
    return [refusals.get(index, "") for index in range(len(offer.wants))]


async def _tell(gateway: Gateway, endpoint: Endpoint, offer: WantOffer) -> WantAnswer:
    offer = WantOffer("", time.time_ns() & 0xFFFFFFFF, offer.wants, offer.certificates, offer.held)
    try:
        data = await endpoint.express(
            gateway.network.wants(gateway.node), parameters=codec.encode(offer), lifetime_ms=4000, retries=1
        )
        return codec.decode(WantAnswer, data.content)
    except (FetchError, MessageError) as error:
        raise StickError(
            f"the gateway does not take wants: {error}; has it joined a network, with a blob_dir?"
        ) from error


def _blob_files(directory: Path) -> list[Path]:
    folder = directory / "blobs" / "sha256"
    return (
        sorted(p for p in folder.glob("*") if len(p.name) == 64 and not p.name.startswith("."))
        if folder.is_dir()
        else []
    )


def _judge(gateway: Gateway, path: Path, wanted: dict[str, dict[str, Any]], report: Report) -> FileBlob | None:
    """The blob in a file, if it is wanted here and whole."""
    what, row = path.name[:16], wanted.get(path.name)
    try:
        size = path.stat().st_size
        if row is None:
            report.leave(what, size, "stays on the stick: nobody waits for it here")
            return None
        if row["state"] == "here":
            report.leave(what, size, f"is here already, for {row['wanter']}")
            return None
        blob = FileBlob(gateway.network, path)
    except (OSError, ValueError) as error:
        report.fail(what, f"cannot be read: {error}")
        return None
    if blob.sha256.hex() != path.name:
        report.fail(what, f"is damaged: its {size} bytes have the SHA-256 {blob.sha256.hex()[:16]}…; export it again")
    elif blob.ref != BlobRef(blob.sha256, row["size"], bytes.fromhex(row["root"])):
        report.fail(what, f"{row['wanter']} wants something of this hash that cannot be: its size or root is wrong")
    else:
        return blob
    blob.close()
    return None


async def _hand_over(gateway: Gateway, endpoint: Endpoint, blob: FileBlob, row: dict[str, Any], report: Report) -> None:
    """Serves one blob until the gateway has it."""
    what, whom = row["blob"][:16], row["wanter"]
    prefix = gateway.network.blob(blob.sha256)
    endpoint.serve(prefix, blob.answer)
    try:
        await endpoint.register(prefix)
        await _tell(gateway, endpoint, WantOffer("", 0, held=(blob.sha256,)))
    except FetchError as error:
        report.fail(what, f"for {whom}: {error}")
        return
    shown = _Shown(what)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        now = {each["blob"]: each for each in gateway.wants()}.get(row["blob"])
        if now is None or now["state"] == "here":
            report.took(what, blob.ref.size, f"for {whom}")
            return
        if now.get("problem"):
            report.fail(what, f"for {whom}: {now['problem']}")
            return
        if blob.served > 0:
            deadline, blob.served = time.monotonic() + PATIENCE_S, 0
        shown(now["arrived"], blob.ref.size)
        await asyncio.sleep(_POLL_S)
    report.fail(what, f"for {whom}: the gateway did not fetch it within {PATIENCE_S:.0f} s; its log says why")


class FileBlob:
    """A file as a blob: the packets are built when they are asked for. Raises OSError; reads it whole, twice."""

    def __init__(self, network: names.Network, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY)
        self.served = 0
        try:
            self._network, size = network, os.fstat(self._handle).st_size
            with path.open("rb") as file:
                self.sha256 = hashlib.file_digest(file, "sha256").digest()
            self.ref, leaves = objects.describe(network, self.sha256, size, self._read)
        except BaseException:
            self.close()
            raise
        self._levels = objects.digest_levels(network.blob(self.sha256), leaves)
        counts = objects.level_counts(size)
        self._builders = [objects.PacketBuilder(network.blob(self.sha256), n, c) for n, c in enumerate(counts)]

    def _read(self, index: int) -> bytes:
        return os.pread(self._handle, objects.PAYLOAD_BYTES, index * objects.PAYLOAD_BYTES)

    def answer(self, interest: Interest) -> bytes | None:
        """The packet that an Interest asks for."""
        position = objects.parse_packet_name(self._network.blobs, interest.name)
        if position is None or position[0] != self.sha256 or position[1] >= len(self._builders):
            return None
        _, level, index = position
        digest = self._levels[level][index * objects.DIGEST_BYTES : (index + 1) * objects.DIGEST_BYTES]
        if interest.digest not in (None, digest) or not digest:
            return None
        self.served += 1
        start, size = index * objects.PAYLOAD_BYTES, objects.PAYLOAD_BYTES
        payload = self._read(index) if level == 0 else self._levels[level - 1][start : start + size]
        return self._builders[level].build(index, payload)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._handle)


class _Shown:
    """Progress for who watches."""

    def __init__(self, what: str) -> None:
        self._what, self._at = what, 0.0

    def __call__(self, held: int, size: int) -> None:
        if sys.stderr.isatty() and time.monotonic() - self._at > 0.2:
            self._at = time.monotonic()
            print(f"\r{self._what}  {_size(held)} of {_size(size)}   ", end="\r", file=sys.stderr)


def _one_each(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each blob, with everybody who waits for it."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["blob"] in found:
            found[row["blob"]]["wanter"] += f", {row['wanter']}"
        else:
            found[row["blob"]] = dict(row)
    return list(found.values())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _size(size: float) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB" if size >= 1e3 else f"{size:.0f} bytes"


def run(action: str, socket: Path, uri: str, directory: Path, wanters: Sequence[str]) -> int:
    """One of the two commands; 0 when nothing failed."""
    try:
        gateway = Gateway(socket, uri)
        work = export(gateway, directory, wanters) if action == "export" else import_(gateway, directory)
        return 1 if asyncio.run(work).failed else 0
    except (StickError, FetchError) as error:
        print(error, file=sys.stderr)
        return 1
