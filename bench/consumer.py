"""A consumer that keeps a window of Interests outstanding, and says what it got and what that cost others."""

from __future__ import annotations

import argparse
import itertools
import json
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from bench import measure
from bench.channel import PATIENCE_S, STALLED_S, Channel, LoadError
from bench.wire import FIRST_NUMBER, Answers, Interests
from gateway.forwarder import packet
from gateway.forwarder.packet import DATA, INTEREST
from gateway.protocol import keys, names

# An answer may be overtaken by so many that were asked for after it.
REORDERING = 16


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
        self._interests = Interests(self._prefix, self._window, options.full)
        self._answers = Answers(self._prefix, options.content, 1, options.full)
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
        result.data_bytes = self._answers.data_bytes
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
