"""The disk store: what it serves, what it keeps, and what survives a crash."""

import hashlib
import io
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.forwarder import blob_index, blob_source, blobs
from gateway.forwarder.blobs import BlobStore, PartialBlob, StorageFull
from gateway.protocol import names, objects
from gateway.protocol.errors import BlobError
from gateway.protocol.messages import BlobRef

NETWORK = names.Network("/guifi/sants")
PAYLOAD = objects.PAYLOAD_BYTES


def content_of(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


# Two levels of index: 260 segments, two pages, one root page.
LARGE = content_of(259 * PAYLOAD + 17)
SMALL = content_of(3 * PAYLOAD + 1, seed=2)


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., BlobStore]]:
    """Opens the store in one directory, as often as a test restarts it."""
    opened = []

    def open_it(budget_bytes: int | None = None) -> BlobStore:
        opened.append(BlobStore(tmp_path / "store", NETWORK, budget_bytes))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., BlobStore]) -> BlobStore:
    return open_store()


def packets_by_name(content: bytes) -> dict[bytes, bytes]:
    """Every packet of a blob by its name, built without a store."""
    blob = NETWORK.blob(hashlib.sha256(content).digest())
    packets = iter(objects.packets_of(NETWORK, content))
    return {
        objects.packet_name(blob, level, index): next(packets)
        for level, count in enumerate(objects.level_counts(len(content)))
        for index in range(count)
    }


def write_index(partial: PartialBlob, content: bytes) -> None:
    digests = b"".join(hashlib.sha256(packet).digest() for packet in packets_by_name(content).values())
    counts = objects.level_counts(len(content))
    start = 0
    for level, count in enumerate(counts[:-1], 1):
        below = digests[start * 32 : (start + count) * 32]
        for index, page in enumerate(objects.pages(below)):
            partial.write(index, page, level)
        start += count


def write_segments(partial: PartialBlob, content: bytes, indices: range | list[int]) -> None:
    for index in indices:
        partial.write(index, content[index * PAYLOAD : (index + 1) * PAYLOAD])


def bitmap_path(store: BlobStore, ref: BlobRef) -> Path:
    return store.directory / "partial" / f"{ref.sha256.hex()}.bitmap"


# --- serving


@pytest.mark.parametrize("size", [0, 1, PAYLOAD, PAYLOAD + 1, 250 * PAYLOAD, 250 * PAYLOAD + 1])
def test_serves_every_packet_of_a_blob(store: BlobStore, size: int) -> None:
    """Every segment and index page of a blob is served, byte for byte as the protocol fixes it."""
    content = content_of(size)
    ref = store.add_bytes(content)
    assert ref == objects.describe_bytes(NETWORK, content)
    assert store.path(ref.sha256).read_bytes() == content
    for name, packet in packets_by_name(content).items():
        assert store.find(name) == packet
        assert store.find(name, digest=hashlib.sha256(packet).digest()) == packet


def test_another_digest_is_a_miss(store: BlobStore) -> None:
    """An Interest for another packet of the same name is not answered, on any level."""
    store.add_bytes(LARGE)
    for name in packets_by_name(LARGE):
        assert store.find(name, digest=bytes(32)) is None


def test_prefix_of_a_blob_finds_its_first_segment(store: BlobStore) -> None:
    """An Interest for the blob's name with CanBePrefix brings segment 0, without it nothing."""
    ref = store.add_bytes(SMALL)
    blob = NETWORK.blob(ref.sha256)
    assert store.find(blob, can_be_prefix=True) == store.find(blob + names.segment(0))
    assert store.find(blob) is None
    assert store.find(NETWORK.blobs, can_be_prefix=True) is None


def test_other_names_are_misses(store: BlobStore) -> None:
    """Names that no packet of the blob has, although they resemble one, find nothing."""
    sha256 = store.add_bytes(SMALL).sha256
    blob = NETWORK.blob(sha256)
    others = [
        blob + names.segment(4),
        blob + names.segment(1 << 40),
        blob + names.tlv(names.SEGMENT, b"\x00\x01"),
        blob + names.tlv(names.SEGMENT, b""),
        blob + names.version(1),
        blob + names.segment(0) + names.segment(0),
        blob + names.component("index2", names.KEYWORD) + names.segment(0),
        blob + names.component("index01", names.KEYWORD) + names.segment(0),
        NETWORK.blobs + names.component(sha256.hex().upper()) + names.segment(0),
        NETWORK.blobs + names.component(sha256.hex()[:-2]) + names.segment(0),
        NETWORK.blob(bytes(32)) + names.segment(0),
        NETWORK.prefix + names.component("blobs") + names.segment(0),
        names.Network("/guifi").blob(sha256) + names.segment(0),
        NETWORK.blobs,
        b"",
    ]
    for name in others:
        assert store.find(name) is None, names.to_uri(name)
        assert store.find(name, can_be_prefix=True) is None, names.to_uri(name)


def test_many_blobs_take_few_descriptors(store: BlobStore) -> None:
    """Serving from many blobs in turn keeps a bounded number of files open."""
    refs = [store.add_bytes(content_of(100, seed)) for seed in range(50)]
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for ref in refs:
            assert store.find(NETWORK.blob(ref.sha256) + names.segment(0)) is not None
    assert len(os.listdir("/proc/self/fd")) - before <= 2 * blobs.OPEN_BLOBS


def test_a_blob_in_use_stays_open(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a blob that is served all the time is not closed because of many others in between."""
    hot, *others = (NETWORK.blob(store.add_bytes(content_of(100, seed)).sha256) for seed in range(40))
    opened: list[object] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: (opened.append(path), real(path, *rest))[1])
    for other in others:
        store.find(hot + names.segment(0))
        store.find(other + names.segment(0))
    assert sum(hot[-64:].decode() in str(path) for path in opened) == 2


def test_a_failing_disk_is_a_miss(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read error makes the store miss, so that another node may answer."""
    ref = store.add_bytes(SMALL)
    name = NETWORK.blob(ref.sha256) + names.segment(0)
    assert store.find(name) is not None

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    assert store.find(name) is None


# --- taking in


def test_adds_files_and_streams(store: BlobStore, tmp_path: Path) -> None:
    """A file, a stream and bytes of the same content are one blob, stored once, readable by all."""
    path = tmp_path / "file"
    path.write_bytes(SMALL)
    refs = {store.add(path), store.add(io.BytesIO(SMALL)), store.add_bytes(SMALL)}
    assert refs == {objects.describe_bytes(NETWORK, SMALL)}
    assert store.complete() == list(refs)
    assert store.path(refs.pop().sha256).stat().st_mode & 0o777 == 0o644


def test_a_failed_addition_leaves_nothing(store: BlobStore) -> None:
    """A source that fails half way leaves no file and no use of the budget."""

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise OSError("the stick was pulled out")
            return super().read(1000)

    with pytest.raises(OSError, match="pulled out"):
        store.add(Failing(SMALL))
    assert [p for p in store.directory.rglob("*") if p.is_file()] == []
    assert store.usage_bytes == 0


def test_removes_a_blob_that_is_being_served(store: BlobStore) -> None:
    """A removed blob is gone from answers, from the list and from the disk."""
    ref = store.add_bytes(SMALL)
    name = NETWORK.blob(ref.sha256) + names.segment(0)
    assert store.find(name) is not None
    store.remove(ref.sha256)
    store.remove(ref.sha256)
    assert store.find(name) is None
    assert store.ref(ref.sha256) is None and not store.has(ref.sha256)
    assert [p for p in store.directory.rglob("*") if p.is_file()] == []


# --- partial blobs


def test_a_partial_blob_serves_what_it_has(store: BlobStore) -> None:
    """The segments and index pages that have come are served while the rest is on its way."""
    ref, packets = objects.describe_bytes(NETWORK, LARGE), packets_by_name(LARGE)
    blob = NETWORK.blob(ref.sha256)
    partial = store.begin(ref)
    assert all(store.find(name) is None for name in packets)
    assert partial.digest(3) == bytes(32)
    write_index(partial, LARGE)
    assert partial.digest(3) == hashlib.sha256(packets[objects.packet_name(blob, 0, 3)]).digest()
    write_segments(partial, LARGE, [3, 259])
    served = {name for name, packet in packets.items() if store.find(name) == packet}
    pages = {objects.packet_name(blob, 1, 0), objects.packet_name(blob, 1, 1), objects.packet_name(blob, 2, 0)}
    assert served == pages | {objects.packet_name(blob, 0, 3), objects.packet_name(blob, 0, 259)}
    assert all(store.find(name) is None for name in packets.keys() - served)
    assert partial.held_bytes == PAYLOAD + 17
    store.release(partial)
    assert {name for name in packets if store.find(name)} == served


def test_a_partial_blob_becomes_whole(store: BlobStore) -> None:
    """Segments in any order make the blob, which then lies among the whole ones and is served from there."""
    ref = objects.describe_bytes(NETWORK, LARGE)
    partial = store.begin(ref)
    write_index(partial, LARGE)
    order = list(partial.missing())
    random.Random(3).shuffle(order)
    write_segments(partial, LARGE, order)
    write_segments(partial, LARGE, order[:3])
    assert partial.held_bytes == len(LARGE) and list(partial.missing()) == []
    path = partial.finish()
    store.release(partial)
    assert path == store.path(ref.sha256) and path.read_bytes() == LARGE
    assert store.complete() == [ref]
    assert list((store.directory / "partial").iterdir()) == []
    assert all(store.find(name) == packet for name, packet in packets_by_name(LARGE).items())


def test_finish_names_a_missing_segment(store: BlobStore) -> None:
    """A blob with a hole cannot be finished, and what it has is kept."""
    partial = store.begin(objects.describe_bytes(NETWORK, SMALL))
    write_index(partial, SMALL)
    write_segments(partial, SMALL, [0, 1, 3])
    with pytest.raises(BlobError, match="segment 2 is missing"):
        partial.finish()
    assert list(partial.missing()) == [2]


def lying_ref(named: bytes, carried: bytes) -> tuple[BlobRef, bytes]:
    """A BlobRef with the hash of one content and an index of another, and the index's first page."""
    sha256 = hashlib.sha256(named).digest()
    return objects.describe(NETWORK, sha256, len(carried), objects.split(carried).__getitem__)


def test_a_root_that_lies_about_the_content_is_discarded(store: BlobStore) -> None:
    """Segments that fit their index but not the blob's SHA-256 are discarded; the error names both digests."""
    other = content_of(len(SMALL), seed=9)
    ref, page = lying_ref(SMALL, other)
    partial = store.begin(ref)
    partial.write(0, page, 1)
    write_segments(partial, other, range(4))
    with pytest.raises(BlobError) as raised:
        partial.finish()
    store.release(partial)
    assert hashlib.sha256(SMALL).hexdigest() in str(raised.value)
    assert hashlib.sha256(other).hexdigest() in str(raised.value)
    assert not store.has(ref.sha256) and store.usage_bytes == 0
    assert [p for p in store.directory.rglob("*") if p.is_file()] == []


def test_a_root_of_other_packets_is_discarded(store: BlobStore) -> None:
    """The right content under a root that is not that of its packets is no blob: it could not be served."""
    ref = objects.describe_bytes(NETWORK, b"one segment")
    lying = BlobRef(ref.sha256, ref.size, bytes(32))
    partial = store.begin(lying)
    partial.write(0, b"one segment")
    with pytest.raises(BlobError, match=f"{bytes(32).hex()}.*{ref.root.hex()}"):
        partial.finish()
    store.release(partial)
    assert not store.has(ref.sha256)


@pytest.mark.parametrize(("index", "level", "size"), [(0, 0, 7999), (0, 0, 8001), (3, 0, 2), (3, 0, 0), (0, 1, 96)])
def test_refuses_payloads_of_another_length(store: BlobStore, index: int, level: int, size: int) -> None:
    """A packet that cannot be that part of the blob is refused, whatever its digest."""
    partial = store.begin(objects.describe_bytes(NETWORK, SMALL))
    with pytest.raises(BlobError, match="its root lies"):
        partial.write(index, bytes(size), level)


@pytest.mark.parametrize(
    "ref",
    [
        BlobRef(b"short", 1, bytes(32)),
        BlobRef(bytes(32), 1, b""),
        BlobRef(bytes(32), -1, bytes(32)),
        BlobRef(bytes(32), 1 << 63, bytes(32)),
    ],
)
def test_refuses_impossible_refs(store: BlobStore, ref: BlobRef) -> None:
    """A BlobRef from outside that cannot be one is refused before anything is made of it."""
    with pytest.raises(BlobError):
        store.begin(ref)
    assert [p for p in store.directory.rglob("*") if p.is_file()] == []


def test_two_fetches_share_a_partial_blob(store: BlobStore) -> None:
    """A second fetch of a blob gets the same partial; under another root it is refused."""
    ref = objects.describe_bytes(NETWORK, SMALL)
    first, second = store.begin(ref), store.begin(ref)
    assert first is second
    with pytest.raises(BlobError, match="another size or root"):
        store.begin(BlobRef(ref.sha256, ref.size, bytes(32)))
    write_index(first, SMALL)
    write_segments(first, SMALL, range(4))
    assert first.finish() == second.finish()
    store.release(first)
    store.release(second)


def test_an_old_partial_under_another_root_is_replaced(open_store: Callable[..., BlobStore]) -> None:
    """What arrived under a root that nobody follows any more does not block the blob."""
    ref, _ = lying_ref(SMALL, content_of(len(SMALL), seed=9))
    store = open_store()
    store.release(store.begin(ref))
    partial = store.begin(objects.describe_bytes(NETWORK, SMALL))
    assert list(partial.missing(1)) == [0] and len(list(partial.missing())) == 4
    write_index(partial, SMALL)
    write_segments(partial, SMALL, range(4))
    assert partial.finish().read_bytes() == SMALL
    store.release(partial)
    assert open_store().complete() == [partial.ref]


def test_adding_a_blob_ends_its_fetch(store: BlobStore) -> None:
    """A blob that is added while it is being fetched is whole at once, and the fetch ends with it."""
    partial = store.begin(objects.describe_bytes(NETWORK, LARGE))
    write_index(partial, LARGE)
    write_segments(partial, LARGE, range(5))
    ref = store.add_bytes(LARGE)
    write_segments(partial, LARGE, range(5, 9))
    partial.sync()
    assert partial.finish() == store.path(ref.sha256)
    store.release(partial)
    assert store.path(ref.sha256).read_bytes() == LARGE
    assert all(store.find(name) == packet for name, packet in packets_by_name(LARGE).items())
    assert list((store.directory / "partial").iterdir()) == []


# --- restarts and crashes


def test_resumes_without_the_index(open_store: Callable[..., BlobStore]) -> None:
    """After a restart what was there of a blob is served and not asked for again, neither segments nor index."""
    store, ref = open_store(), objects.describe_bytes(NETWORK, LARGE)
    partial = store.begin(ref)
    write_index(partial, LARGE)
    write_segments(partial, LARGE, range(100))
    store.release(partial)
    store.close()
    again = open_store()
    assert again.find(NETWORK.blob(ref.sha256) + names.segment(99)) is not None
    partial = again.begin(ref)
    assert [list(partial.missing(level)) for level in (2, 1)] == [[], []]
    assert list(partial.missing()) == list(range(100, 260))
    assert partial.held_bytes == 100 * PAYLOAD
    write_segments(partial, LARGE, range(100, 260))
    assert partial.finish().read_bytes() == LARGE
    again.release(partial)


def in_a_process_that_dies(work: Callable[[], None]) -> int:
    """Runs `work` in a child and returns its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(3)
    return os.waitpid(child, 0)[1]


def test_survives_kill_9(open_store: Callable[..., BlobStore], tmp_path: Path) -> None:
    """A process killed in the middle of a transfer loses nothing that it had written."""
    ref = objects.describe_bytes(NETWORK, LARGE)

    def fetch_and_die() -> None:
        store = open_store()
        partial = store.begin(ref)
        write_index(partial, LARGE)
        write_segments(partial, LARGE, range(0, 260, 2))
        partial.sync()
        write_segments(partial, LARGE, range(1, 99, 2))
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_process_that_dies(fetch_and_die) == signal.SIGKILL
    store = open_store()
    partial = store.begin(ref)
    missing = list(partial.missing())
    assert missing == list(range(99, 260, 2))
    write_segments(partial, LARGE, missing)
    assert partial.finish().read_bytes() == LARGE
    store.release(partial)


def test_what_a_power_cut_tore_is_not_taken_for_written(open_store: Callable[..., BlobStore]) -> None:
    """Segments that no bitmap vouches for count only if their bytes are right, also where half of one is there."""
    store, ref = open_store(), objects.describe_bytes(NETWORK, LARGE)
    partial = store.begin(ref)
    write_index(partial, LARGE)
    write_segments(partial, LARGE, range(100))
    store.release(partial)
    store.close()
    with (store.directory / "partial" / ref.sha256.hex()).open("r+b") as file:
        file.seek(100 * PAYLOAD)
        file.write(LARGE[100 * PAYLOAD : 101 * PAYLOAD] + LARGE[101 * PAYLOAD : 102 * PAYLOAD - 1])
        file.seek(200 * PAYLOAD)
        file.write(b"\xee" * PAYLOAD)
    again = open_store()
    partial = again.begin(ref)
    assert list(partial.missing()) == list(range(101, 260))
    again.release(partial)


STEPS = ("replace", "fsync", "fdatasync", "unlink")


def test_survives_a_crash_at_every_step(tmp_path: Path) -> None:
    """Wherever the process dies on the way to the whole blob, the next start has it whole, or can go on."""
    ref, step, status = objects.describe_bytes(NETWORK, SMALL), 0, 1
    while status:
        step += 1
        directory = tmp_path / str(step)

        def fetch(directory: Path = directory, step: int = step) -> None:
            left = [step]

            def dying(call: Callable[..., object]) -> Callable[..., object]:
                def wrapper(*args: object, **kwargs: object) -> object:
                    left[0] -= 1
                    if left[0] == 0:
                        os._exit(1)
                    return call(*args, **kwargs)

                return wrapper

            for name in STEPS:
                setattr(os, name, dying(getattr(os, name)))
            store = BlobStore(directory, NETWORK)
            partial = store.begin(ref)
            write_index(partial, SMALL)
            write_segments(partial, SMALL, [0, 1])
            partial.sync()
            write_segments(partial, SMALL, [2, 3])
            partial.finish()
            store.release(partial)

        status = in_a_process_that_dies(fetch)
        assert os.waitstatus_to_exitcode(status) in (0, 1)
        store = BlobStore(directory, NETWORK)
        if not store.has(ref.sha256):
            partial = store.begin(ref)
            write_index(partial, SMALL)
            write_segments(partial, SMALL, list(partial.missing()))
            partial.finish()
            store.release(partial)
        assert store.path(ref.sha256).read_bytes() == SMALL
        assert all(store.find(name) == packet for name, packet in packets_by_name(SMALL).items())
        store.close()
        leftovers = {p.name for p in directory.rglob("*") if p.is_file()} - {ref.sha256.hex()}
        assert leftovers <= {f"{ref.sha256.hex()}.bitmap"}
    assert step > 10


def test_the_bitmap_is_written_after_the_data_is_on_the_disk(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bitmap claims only what was synced before: data, index, then bitmap."""
    partial = store.begin(objects.describe_bytes(NETWORK, SMALL))
    write_index(partial, SMALL)
    steps: list[str] = []
    real_sync, real_replace = os.fdatasync, blob_source.replace_file

    def sync(handle: int) -> None:
        write_segments(partial, SMALL, [1])  # comes while the data is being synced
        steps.append("data" if handle == partial.data else "other")
        real_sync(handle)

    def replace(path: Path, bitmap: bytes, mode: int) -> None:
        steps.append("bitmap")
        assert bitmap == b"\x01"
        real_replace(path, bitmap, mode)

    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(blob_source, "replace_file", replace)
    write_segments(partial, SMALL, [0])
    partial.sync()
    assert steps == ["data", "bitmap"]


def test_nothing_is_synced_twice(open_store: Callable[..., BlobStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch that brings nothing costs no wait for the disk; what has come does, once, also after a failure."""
    syncs: list[str] = []

    def counted(name: str) -> Callable[[int], None]:
        real = getattr(os, name)
        return lambda handle: (syncs.append(name), real(handle))[1]

    store, ref = open_store(), objects.describe_bytes(NETWORK, LARGE)
    store.release(store.begin(ref))
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, counted(name))
    store.release(store.begin(ref))
    assert syncs == []
    partial = store.begin(ref)
    write_index(partial, LARGE)
    write_segments(partial, LARGE, range(3))
    with monkeypatch.context() as full:
        full.setattr(blob_source, "replace_file", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            partial.sync()
    partial.sync()
    count = len(syncs)
    assert count >= 4
    write_segments(partial, LARGE, range(3))
    partial.sync()
    store.release(partial)
    assert len(syncs) == count
    store.close()
    again = open_store()
    partial = again.begin(ref)
    assert partial.held_bytes == 3 * PAYLOAD
    again.release(partial)
    assert len(syncs) == count


def test_a_torn_index_page_is_fetched_again(open_store: Callable[..., BlobStore]) -> None:
    """An index page damaged by a power cut is noticed at the next start; the segments stay."""
    store, ref = open_store(), objects.describe_bytes(NETWORK, LARGE)
    partial = store.begin(ref)
    write_index(partial, LARGE)
    write_segments(partial, LARGE, range(260))
    store.release(partial)
    store.close()
    index = store.directory / "index" / ref.sha256.hex()
    wire = bytearray(index.read_bytes())
    wire[blob_index.HEADER.size + 255 * 32] ^= 1
    index.write_bytes(wire)
    again = open_store()
    partial = again.begin(ref)
    assert list(partial.missing(2)) == [] and list(partial.missing(1)) == [1]
    assert list(partial.missing()) == []
    again.release(partial)


@pytest.mark.parametrize("bitmap", [b"", b"\x0f\x00", b"\xff", b"\x1f"])
def test_a_damaged_bitmap_claims_nothing(open_store: Callable[..., BlobStore], bitmap: bytes) -> None:
    """A bitmap of the wrong length or with bits beyond the end is not believed."""
    store, ref = open_store(), objects.describe_bytes(NETWORK, SMALL)
    partial = store.begin(ref)
    write_segments(partial, SMALL, range(4))
    store.release(partial)
    store.close()
    assert bitmap_path(store, ref).read_bytes() == b"\x0f"
    bitmap_path(store, ref).write_bytes(bitmap)
    again = open_store()
    partial = again.begin(ref)
    assert list(partial.missing()) == [0, 1, 2, 3]
    again.release(partial)


def test_bytes_that_rotted_on_the_disk_are_noticed(open_store: Callable[..., BlobStore]) -> None:
    """A partial blob whose bytes changed on the disk does not become a blob."""
    store, ref = open_store(), objects.describe_bytes(NETWORK, SMALL)
    partial = store.begin(ref)
    write_index(partial, SMALL)
    write_segments(partial, SMALL, range(4))
    (store.directory / "partial" / ref.sha256.hex()).write_bytes(bytes(len(SMALL)))
    with pytest.raises(BlobError, match="SHA-256"):
        partial.finish()
    store.release(partial)
    assert len(list(store.begin(ref).missing())) == 4


def test_a_start_tidies_up(open_store: Callable[..., BlobStore]) -> None:
    """A start keeps whole blobs, rebuilds a lost index, drops a damaged file, and leaves files of others alone."""
    store = open_store()
    kept, reindexed, damaged = (store.add_bytes(content_of(9000, seed)) for seed in range(3))
    store.close()
    folder = store.directory
    (folder / "index" / reindexed.sha256.hex()).write_bytes(b"junk")
    (folder / "index" / damaged.sha256.hex()).unlink()
    store.path(damaged.sha256).write_bytes(b"not what it was")
    (folder / "index" / bytes(32).hex()).write_bytes(b"of nothing")
    (folder / "partial" / bytes(32).hex()).write_bytes(b"without index")
    (folder / "partial" / f"{bytes(32).hex()}.bitmap").write_bytes(b"x")
    (folder / "partial" / ".0123.new").write_bytes(b"an addition that was cut short")
    (folder / "blobs" / "sha256" / "README").write_bytes(b"mine")
    again = open_store()
    assert set(again.complete()) == {kept, reindexed}
    assert again.find(NETWORK.blob(reindexed.sha256) + names.segment(1)) is not None
    assert list((folder / "partial").iterdir()) == []
    assert {p.name for p in (folder / "index").iterdir()} == {kept.sha256.hex(), reindexed.sha256.hex()}
    assert {p.name for p in (folder / "blobs" / "sha256").iterdir()} == {
        kept.sha256.hex(),
        reindexed.sha256.hex(),
        "README",
    }


def test_a_renamed_network_has_its_blobs_still(open_store: Callable[..., BlobStore]) -> None:
    """After the network's prefix was changed the blobs are indexed again under the new names."""
    store = open_store()
    store.add_bytes(LARGE)
    store.release(store.begin(objects.describe_bytes(NETWORK, SMALL)))
    store.close()
    network = names.Network("/guifi/gracia")
    renamed = BlobStore(store.directory, network)
    assert renamed.complete() == [objects.describe_bytes(network, LARGE)]
    first, digest = network.blob(hashlib.sha256(LARGE).digest()) + names.segment(0), None
    digest = hashlib.sha256(objects.packets_of(network, LARGE)[0]).digest()
    assert renamed.find(first, digest=digest) is not None
    assert list((store.directory / "partial").iterdir()) == []
    renamed.close()


def test_closing_twice_and_releasing_late_do_no_harm(store: BlobStore) -> None:
    """A store that is closed in the middle of a fetch keeps what has arrived."""
    ref = objects.describe_bytes(NETWORK, SMALL)
    partial = store.begin(ref)
    write_index(partial, SMALL)
    write_segments(partial, SMALL, [0, 1])
    store.close()
    store.release(partial)
    store.close()
    again = BlobStore(store.directory, NETWORK)
    assert list(again.begin(ref).missing()) == [2, 3]
    again.close()


# --- room


def test_evicts_what_was_used_longest_ago(open_store: Callable[..., BlobStore]) -> None:
    """Beyond the budget the blobs used longest ago go; serving a blob counts as use, and pinned ones stay."""
    store = open_store(51_000)
    first, second, third, fourth = (store.add_bytes(content_of(10_000, seed)) for seed in range(4))
    assert store.find(NETWORK.blob(first.sha256) + names.segment(0)) is not None
    store.pin({second.sha256})
    store.add_bytes(content_of(20_000, seed=8))
    assert [store.has(ref.sha256) for ref in (first, second, third, fourth)] == [True, True, False, True]
    assert store.usage_bytes <= 51_000 and store.evictions == 1
    store.add_bytes(content_of(10_000, seed=9))
    assert [store.has(ref.sha256) for ref in (first, second, third, fourth)] == [True, True, False, False]


def test_order_of_use_survives_a_restart(open_store: Callable[..., BlobStore]) -> None:
    """After a restart the blob that was served last is still the last to be evicted."""
    store = open_store()
    refs = [store.add_bytes(content_of(10_000, seed)) for seed in range(3)]
    for age, ref in enumerate(refs):
        os.utime(store.path(ref.sha256), (1000 + age, 1000 + age))
    assert store.find(NETWORK.blob(refs[0].sha256) + names.segment(0)) is not None
    store.close()
    assert open_store().complete() == [refs[1], refs[2], refs[0]]


def test_refuses_when_nothing_may_be_evicted(open_store: Callable[..., BlobStore]) -> None:
    """Pinned blobs and blobs on their way are never evicted; the refusal says what is lacking and where to raise it."""
    store = open_store(30_000)
    pinned = store.add_bytes(content_of(12_000))
    store.pin({pinned.sha256})
    fetched = store.begin(objects.describe_bytes(NETWORK, content_of(12_000, seed=2)))
    with pytest.raises(StorageFull, match=r"\d+ bytes are lacking.*disk_cache"):
        store.begin(objects.describe_bytes(NETWORK, content_of(12_000, seed=3)))
    with pytest.raises(StorageFull):
        store.add_bytes(content_of(12_000, seed=3))
    assert store.has(pinned.sha256)
    store.release(fetched)
    store.release(store.begin(objects.describe_bytes(NETWORK, content_of(12_000, seed=3))))
    assert store.usage_bytes <= 30_000


def test_leaves_room_on_the_filesystem(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least 4 MB of the filesystem stay free, budget or not, counting what blobs on their way will still take."""
    free = SimpleNamespace(f_bavail=(4 << 20) + 100_000, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda _: free)
    promised = store.begin(objects.describe_bytes(NETWORK, content_of(60_000)))
    with pytest.raises(StorageFull, match="lacking"):
        store.begin(objects.describe_bytes(NETWORK, content_of(60_000, seed=2)))
    write_segments(promised, content_of(60_000), range(8))
    free.f_bavail -= 30_000
    store.release(store.begin(objects.describe_bytes(NETWORK, content_of(60_000, seed=2))))


def test_a_full_disk_is_storage_full(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that the disk refuses names the store and the reason, and the segment stays missing."""
    partial = store.begin(objects.describe_bytes(NETWORK, SMALL))

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(StorageFull, match="store: No space left"):
        partial.write(0, SMALL[:PAYLOAD])
    assert 0 in list(partial.missing())


def test_threads_do_not_disturb_each_other(store: BlobStore) -> None:
    """Blobs are added and removed in a thread while others are served, and every answer is right."""
    steady, stop, errors = store.add_bytes(SMALL), threading.Event(), []
    packets = packets_by_name(SMALL)

    def churn() -> None:
        try:
            for seed in range(40):
                store.remove(store.add_bytes(content_of(20_000, seed + 10)).sha256)
        except BaseException as error:
            errors.append(error)
        stop.set()

    passing = [NETWORK.blob(hashlib.sha256(content_of(20_000, seed + 10)).digest()) for seed in range(40)]
    thread = threading.Thread(target=churn)
    thread.start()
    while not stop.is_set():
        for name, packet in packets.items():
            assert store.find(name) == packet
        for blob in passing:
            store.find(blob + names.segment(0))
    thread.join()
    assert errors == [] and store.complete() == [steady]


# --- what is kept for others


def test_what_is_kept_for_others_is_evicted_first(tmp_path: Path) -> None:
    """In the order that was asked for, before blobs that were used longer ago, and never what is pinned."""
    store = BlobStore(tmp_path / "blobs", NETWORK)
    refs = [store.add_bytes(bytes([n]) * 20_000) for n in range(4)]
    store.budget_bytes = store.usage_bytes
    store.evict_first([refs[3].sha256, refs[2].sha256, b"unknown"])
    assert store.room_bytes() == 0
    assert 20_000 < store.room_bytes([refs[2].sha256, b"unknown"]) < 20_300
    store.pin([refs[2].sha256])
    assert store.room_bytes([refs[2].sha256]) == 0
    store.add_bytes(bytes([9]) * 20_000)
    assert [store.has(ref.sha256) for ref in refs] == [True, True, True, False]
    store.add_bytes(bytes([10]) * 20_000)
    assert [store.has(ref.sha256) for ref in refs] == [False, True, True, False]
    store.close()


def test_a_blob_of_which_nothing_came_is_forgotten(tmp_path: Path) -> None:
    """It takes no room and is not told; one with a segment stays, and so does one that is being fetched."""
    store = BlobStore(tmp_path / "blobs", NETWORK)
    refs = [objects.describe_bytes(NETWORK, bytes([n]) * 7000) for n in range(3)]
    partials = [store.begin(ref) for ref in refs]
    partials[1].write(0, bytes([1]) * 7000)
    for partial in partials[:2]:
        store.release(partial)
    for ref in refs:
        store.discard_empty(ref.sha256)
    assert [store.arriving(ref.sha256) for ref in refs] == [None, refs[1], refs[2]]
    assert store.held() == [refs[1].sha256]
    store.release(partials[2])
    store.close()
