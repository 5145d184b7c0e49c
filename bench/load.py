"""The load: a consumer that keeps a window of Interests outstanding, a producer that answers them, and a flood.

    python -m bench.load produce --face unix:///run/ndn.sock --prefix /bench --content 8000
    python -m bench.load consume --face tcp4://127.0.0.1:6363 --prefix /bench --content 8000 --count 100000 --pid 4711

Both are one thread on a blocking socket. `consume` prints one JSON object: what came, how long it took, and what each
process of `--pid` has used meanwhile. `produce` registers, prints `ready` and answers until it is terminated.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file may be run by its path

from bench import measure
from bench.wire import FIRST_NUMBER, Answers, Interests
from gateway.forwarder import packet
from gateway.forwarder.packet import DATA, INTEREST
from gateway.protocol import keys, names
from gateway.protocol.names import Name, component, tlv

BUFFER_BYTES = 1 << 20
SOCKET_BUFFER_BYTES = 8 << 20
# An answer may be overtaken by so many that were asked for after it.
REORDERING = 16
# Silence after which what is outstanding counts as lost.
PATIENCE_S = 0.1
# So long nothing at all may come before the run has failed.
STALLED_S = 5.0
# A producer's batch; a window is seldom larger.
_ANSWERS_MAX = 256
# One train of segmentation offload: the kernel takes at most 64 segments, and 64 kB with the headers.
_UDP_SEGMENT, _UDP_GRO, _TRAIN_SEGMENTS = 103, 104, 64
_CONTROL_PARAMETERS, _STATUS_CODE, _CONTENT = 0x68, 0x66, 0x15


class LoadError(Exception):
    """The forwarder did not do what the run needs; the text says what."""


# --- sockets


class Channel:
    """A blocking connection to a face URI; `receive` adds to `buffer` and gives up after PATIENCE_S."""

    def __init__(self, uri: str, packet_bytes: int) -> None:
        self.is_datagram = uri.startswith("udp")
        self._packet_bytes = packet_bytes
        self.socket = _connect(uri)
        wait = struct.pack("ll", 0, int(PATIENCE_S * 1e6))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        self._is_offloading = self.is_datagram and self._offload()
        self.buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self.buffer)
        self.have = self.reads = self.writes = 0

    def _offload(self) -> bool:
        """Whether the kernel cuts what we send into packets, and hands over trains of what comes."""
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.socket.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
        try:
            self.socket.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, self._packet_bytes)
            self.socket.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
        except OSError:
            return False
        return True

    def receive(self) -> bool:
        """Whether anything came in time; raises LoadError when the other end closed."""
        try:
            count = self.socket.recv_into(self._view[self.have :])
        except BlockingIOError:
            return False
        if not count:
            raise LoadError("the forwarder closed the connection")
        self.reads += 1
        self.have += count
        return True

    def consume(self, used: int) -> None:
        rest = self.have - used
        if rest:
            self.buffer[:rest] = self.buffer[used : self.have]
        self.have = rest

    def send(self, train: memoryview | bytes) -> None:
        """Sends packets of `packet_bytes` each, or one packet of any size."""
        if not self.is_datagram:
            self.writes += 1
            self.socket.sendall(train)
            return
        step = self._packet_bytes * (_TRAIN_SEGMENTS if self._is_offloading else 1)
        for at in range(0, len(train), step):
            self.writes += 1
            self.socket.send(train[at : at + step])


def _connect(uri: str) -> socket.socket:
    parts = urlsplit(uri)
    if parts.scheme == "unix":
        made = socket.socket(socket.AF_UNIX)
        made.connect(parts.path)
        return made
    address = parts.hostname or "", parts.port or 6363
    if parts.scheme == "tcp4":
        made = socket.create_connection(address)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
    if parts.scheme == "udp4":
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.connect(address)
        return made
    raise LoadError(f"--face {uri!r}: unix, tcp4 and udp4 are known")


# --- consumer


@dataclass(slots=True)
class Result:
    """`cpu_us` is what the watched processes used for one answer, `load_us` what this tool did."""

    asked: int = 0
    answered: int = 0
    nacks: int = 0
    lost: int = 0
    seconds: float = 0.0
    goodput_mbps: float = 0.0
    cpu_us: float = 0.0
    user_us: float = 0.0
    system_us: float = 0.0
    load_us: float = 0.0
    data_bytes: int = 0
    reads: int = 0
    writes: int = 0


class Repeats:
    """Asks again for what was lost, with a window that halves on loss and grows by one a round, up to `window`.

    An answer is lost when one has come that was asked for REORDERING later: the way is a queue.
    """

    def __init__(self, window: int) -> None:
        self.window, self._window_max = window, window
        self._asked_at: dict[int, int] = {}
        self._lost: list[int] = []
        self._serial = self._newest = self._reduced_at = self._since_growth = 0

    def next(self, fresh: Iterator[int], count: int) -> list[int]:
        """The next numbers to ask for, at most so many."""
        if count <= 0:
            return []
        numbers, self._lost = self._lost[:count], self._lost[count:]
        numbers += itertools.islice(fresh, count - len(numbers))
        for number in numbers:
            self._serial += 1
            self._asked_at[number] = self._serial
        return numbers

    def on_answers(self, numbers: Sequence[int]) -> int:
        """How many of these were waited for."""
        done = 0
        for number in numbers:
            serial = self._asked_at.pop(number, None)
            if serial is not None:
                done += 1
                self._newest = max(self._newest, serial)
        self._since_growth += done
        if self._since_growth >= self.window:
            self.window, self._since_growth = min(self.window + 1, self._window_max), 0
        return done

    def find_lost(self) -> int:
        """Takes out what must have been lost by now; how many that were."""
        overdue = self._newest - REORDERING
        lost = list(itertools.takewhile(lambda number: self._asked_at[number] < overdue, self._asked_at))
        return self._lose(lost)

    def on_silence(self) -> int:
        """The same when nothing came for long."""
        return self._lose(list(self._asked_at))

    def _lose(self, lost: list[int]) -> int:
        if lost and self._asked_at[lost[-1]] > self._reduced_at:
            self.window, self._reduced_at = max(2, self.window // 2), self._serial
        for number in lost:
            del self._asked_at[number]
        self._lost += lost
        return len(lost)


class Consumer:
    """Asks for `total` packets, at most `window` at a time, `batch` in a write, when so many have been answered.

    With `cached` the same so many names come round again and again; else every name is new, from `start` on.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._prefix = names.parse(options.prefix)
        self._window, self._batch = options.window, min(options.batch, options.window)
        self._total, self._content_bytes = options.count, options.content
        self._interests = Interests(self._prefix, self._window)
        self._answers = Answers(self._prefix, options.content, 1)
        self._channel = Channel(options.face, self._interests.length)
        first = FIRST_NUMBER + options.start
        numbers = range(first, first + (options.cached or self._total))
        self._numbers: Iterator[int] = itertools.cycle(numbers) if options.cached else iter(numbers)
        self._repeats = Repeats(options.window) if options.complete else None
        self._every_s, self._reported = options.every, 0.0
        self.result = Result()

    def run(self, pids: list[int]) -> Result:
        result, before = self.result, [measure.cpu(pid) for pid in pids]
        started, own = time.perf_counter(), time.process_time()
        self._ask(self._window)
        silent_s, credit = 0.0, 0
        while result.answered + result.nacks < self._total:
            if self._channel.receive():
                silent_s = 0.0
                credit += self._read()
                if self._every_s:
                    self._report()
            else:
                silent_s += PATIENCE_S
                if silent_s >= STALLED_S:
                    raise LoadError(f"nothing came in {STALLED_S:g} s: {asdict(result)}")
                self._on_silence()
            outstanding = result.asked - result.answered - result.nacks - result.lost
            window = self._repeats.window if self._repeats is not None else self._window
            if credit >= self._batch or outstanding <= window // 2:
                self._ask(window - outstanding)
                credit = 0
        result.seconds = time.perf_counter() - started
        self._account(pids, before, time.process_time() - own)
        return result

    def _report(self) -> None:
        now = time.monotonic()
        if now >= self._reported + self._every_s:
            self._reported = now
            print(json.dumps({"at_s": now, "answered": self.result.answered}), flush=True)

    def _account(self, pids: list[int], before: list[measure.Cpu], own_s: float) -> None:
        result, count = self.result, max(1, self.result.answered)
        used = [measure.cpu(pid) - start for pid, start in zip(pids, before, strict=True)]
        result.user_us = sum(cpu.user_s for cpu in used) / count * 1e6
        result.system_us = sum(cpu.system_s for cpu in used) / count * 1e6
        result.cpu_us = result.user_us + result.system_us
        result.load_us = own_s / count * 1e6
        result.goodput_mbps = result.answered * self._content_bytes * 8 / result.seconds / 1e6
        result.data_bytes = self._answers.length
        result.reads, result.writes = self._channel.reads, self._channel.writes

    def _ask(self, count: int) -> None:
        """Asks for what was lost, then for what is new; what is lost for good is replaced by others."""
        if self._repeats is not None:
            numbers = self._repeats.next(self._numbers, count)
        else:
            count = min(count, self._total + self.result.lost - self.result.asked)
            numbers = list(itertools.islice(self._numbers, count)) if count > 0 else []
        self.result.asked += len(numbers)
        for at in range(0, len(numbers), self._batch):
            self._channel.send(self._interests.ask(numbers[at : at + self._batch]))

    def _on_silence(self) -> None:
        """What is outstanding was lost; on a stream nothing is, it is only late."""
        result = self.result
        if self._repeats is not None:
            result.lost += self._repeats.on_silence()
        elif self._channel.is_datagram:
            result.lost = result.asked - result.answered - result.nacks

    def _read(self) -> int:
        """Counts what came; how many Interests were answered."""
        channel, answers = self._channel, self._answers
        count = answers.count(channel.buffer, channel.have)
        if count is None:
            return self._read_slowly()
        if self._repeats is not None:
            self._on_numbers(struct.unpack(f">{count}I", answers.numbers(channel.buffer, count)))
        else:
            self.result.answered += count
        channel.consume(count * answers.length)
        return count

    def _on_numbers(self, numbers: Sequence[int]) -> None:
        repeats = self._repeats
        assert repeats is not None
        self.result.answered += repeats.on_answers(numbers)
        self.result.lost += repeats.find_lost()

    def _read_slowly(self) -> int:
        """The same for packets with link headers, Nacks, and what a forwarder asks its peers."""
        channel, done = self._channel, 0
        packets, used = packet.split_stream(bytes(channel.buffer[: channel.have]))
        channel.consume(used)
        for wire in packets:
            link = packet.decode_link(wire)
            if link.nack_reason is not None:
                self.result.nacks += 1
                done += 1
            elif link.fragment[:1] == bytes((DATA,)):
                done += 1
                self._on_data(link.fragment)
            elif link.fragment[:1] == bytes((INTEREST,)):
                self._on_interest(packet.decode_interest(link.fragment))
        return done

    def _on_data(self, wire: bytes) -> None:
        if self._repeats is None:
            self.result.answered += 1
            return
        number = names.last_number(packet.decode_data(wire).name, names.SEGMENT)
        if number is not None:
            self._on_numbers([number])

    def _on_interest(self, interest: packet.Interest) -> None:
        """A hello, by which a forwarder learns that this address is no forged one."""
        if interest.name.startswith(names.HELLO):
            self._channel.send(keys.sign_data(interest.name, b""))


# --- producer


class Producer:
    """Answers every Interest below `prefix` with Data of `content` bytes."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._prefix = names.parse(options.prefix)
        self._interests = Interests(self._prefix, 1)
        self._answers = Answers(self._prefix, options.content, _ANSWERS_MAX)
        self._channel = Channel(options.face, self._interests.length)

    def register(self) -> None:
        """Asks the forwarder for the prefix; raises LoadError when it refuses."""
        channel = self._channel
        channel.send(register_command(self._prefix))
        deadline = time.monotonic() + STALLED_S
        while time.monotonic() < deadline:
            channel.receive()
            packets, used = packet.split_stream(bytes(channel.buffer[: channel.have]))
            channel.consume(used)
            for wire in packets:
                fragment = packet.decode_link(wire).fragment
                if fragment[:1] == bytes((DATA,)):
                    status = status_of(packet.decode_data(fragment).content)
                    if status != 200:
                        raise LoadError(f"rib/register of {names.to_uri(self._prefix)}: status {status}")
                    return
        raise LoadError(f"rib/register: no answer in {STALLED_S:g} s")

    def run(self) -> None:
        channel, interests, answers = self._channel, self._interests, self._answers
        while True:
            if not channel.receive():
                continue
            count = interests.count(channel.buffer, channel.have)
            if count is None:
                self._answer_slowly()
            elif count:
                numbers = interests.numbers(channel.buffer, count)
                channel.consume(count * interests.length)
                for at in range(0, len(numbers), 4 * _ANSWERS_MAX):
                    channel.send(answers.with_numbers(numbers[at : at + 4 * _ANSWERS_MAX]))

    def _answer_slowly(self) -> None:
        """The same for Interests with link headers or other fields; a PIT token goes back."""
        channel = self._channel
        packets, used = packet.split_stream(bytes(channel.buffer[: channel.have]))
        channel.consume(used)
        replies = []
        for wire in packets:
            link = packet.decode_link(wire)
            if link.fragment[:1] == bytes((INTEREST,)):
                data = self._answers.answer(packet.decode_interest(link.fragment).name)
                replies.append(packet.encode_link(data, pit_token=link.pit_token))
        channel.send(b"".join(replies))


def register_command(prefix: Name) -> bytes:
    """A rib/register Interest in the signed form of python-ndn and of ndn-cxx before 0.8, with a digest."""
    name = names.parse("/localhost/nfd/rib/register") + component(tlv(_CONTROL_PARAMETERS, tlv(7, prefix)))
    name += component(int(time.time() * 1000).to_bytes(8, "big")) + component(os.urandom(8))
    name += component(b"\x16\x03\x1b\x01\x00")
    name += component(b"\x17\x20" + hashlib.sha256(name).digest())
    return packet.encode_interest(name, lifetime_ms=10_000)[1]


def status_of(response: bytes) -> int:
    """The status code of a ControlResponse."""
    _, at, end = packet.read_tlv(response, 0, len(response))
    while at < end:
        kind, start, at = packet.read_tlv(response, at, end)
        if kind == _STATUS_CODE:
            return int.from_bytes(response[start:at], "big")
    raise LoadError("a ControlResponse without a status code")


# --- flood


class Flood:
    """Asks for names that nobody has, each once, as fast as the forwarder reads; what comes back is thrown away.

    Datagrams go at `rate` a second: no reader holds them back, and most would be lost before they flood anybody.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._interests = Interests(names.parse(options.prefix), options.batch)
        self._channel = Channel(options.face, self._interests.length)
        first = FIRST_NUMBER + options.start
        self._numbers = iter(range(first, first + options.count))
        self._batch, self._rate = options.batch, options.rate

    def run(self) -> int:
        """How many Interests went; a stream's have all been read by then, unless the forwarder closed it."""
        sent, channel, started = 0, self._channel, time.monotonic()
        with contextlib.suppress(ConnectionError):
            while numbers := list(itertools.islice(self._numbers, self._batch)):
                channel.send(self._interests.ask(numbers))
                sent += len(numbers)
                self._discard(socket.MSG_DONTWAIT)
                if channel.is_datagram:
                    time.sleep(max(0.0, started + sent / self._rate - time.monotonic()))
            if not channel.is_datagram:
                channel.socket.shutdown(socket.SHUT_WR)
                with contextlib.suppress(LoadError):  # it has read everything and closes
                    while True:
                        channel.receive()
                        channel.consume(channel.have)
        return sent

    def _discard(self, flags: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._channel.socket.recv_into(self._channel.buffer, 0, flags):
                pass


# --- command


def main() -> int:
    options = _parser().parse_args()
    run: Callable[[argparse.Namespace], None] = options.action
    try:
        run(options)
    except (LoadError, OSError) as error:
        print(f"load: {error}", file=sys.stderr)
        return 1
    return 0


def _consume(options: argparse.Namespace) -> None:
    consumer = Consumer(options)
    time.sleep(0.1)  # the forwarder makes the face
    print(json.dumps(asdict(consumer.run(options.pid))))


def _flood(options: argparse.Namespace) -> None:
    flood = Flood(options)
    started = time.monotonic()
    print(json.dumps({"sent": flood.run(), "from_s": started, "to_s": time.monotonic()}))


def _produce(options: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    producer = Producer(options)
    producer.register()
    print("ready", flush=True)
    producer.run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    consume = commands.add_parser("consume", help="ask and count")
    produce = commands.add_parser("produce", help="register and answer")
    flood = commands.add_parser("flood", help="ask for what nobody has")
    for command, action in ((consume, _consume), (produce, _produce), (flood, _flood)):
        command.set_defaults(action=action)
        command.add_argument("--face", required=True, metavar="URI", help="unix://…, tcp4://…, udp4://…")
        command.add_argument("--prefix", default="/bench", metavar="NAME")
        command.add_argument("--content", type=int, default=8000, metavar="BYTES", help="content of a Data packet")
    for command in (consume, flood):
        command.add_argument(
            "--count", type=int, default=100_000, metavar="N", help="Interests to be answered, or sent"
        )
        command.add_argument("--start", type=int, default=0, metavar="N", help="the first name's number")
        command.add_argument("--batch", type=int, default=16, metavar="N", help="Interests a write")
    flood.add_argument("--rate", type=int, default=100_000, metavar="N", help="datagrams a second")
    consume.add_argument("--cached", type=int, default=0, metavar="N", help="go round N names; 0: never the same twice")
    consume.add_argument("--window", type=int, default=64, metavar="N", help="Interests outstanding")
    consume.add_argument("--every", type=float, default=0.0, metavar="S", help="also print how far it is, so often")
    consume.add_argument("--complete", action="store_true", help="ask again for what was lost until all has come")
    consume.add_argument("--pid", type=int, action="append", default=[], help="a process to watch")
    return parser


if __name__ == "__main__":
    sys.exit(main())
