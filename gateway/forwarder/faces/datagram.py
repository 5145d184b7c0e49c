"""Faces over UDP: one socket a listening address, one face a peer, packets in batches.

A wake-up reads all that the socket has, hands it over train by train, and then sends what each touched face has
queued, small packets ahead of bulk.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gateway.forwarder import packet
from gateway.forwarder.content_store import BULK_BYTES
from gateway.forwarder.faces import link
from gateway.forwarder.faces.address_proof import COOKIE_BYTES, AddressProof
from gateway.forwarder.faces.base import Face
from gateway.forwarder.faces.limits import FaceLimits
from gateway.forwarder.faces.link import CongestionMarker, Reassembler, ReassemblyBudget
from gateway.forwarder.faces.reliability import Frame, Reliability
from gateway.forwarder.faces.shaper import ShapedWriter
from gateway.forwarder.faces.udp_socket import TRAIN_MAX_SEGMENTS, Address, TrainRefused, UdpSocket, path
from gateway.forwarder.packet import INTEREST, DecodeError

__all__ = ["Address", "DatagramChannel", "DatagramFace", "LinkCounters"]

# What a face may have waiting where the kernel takes no more: a quarter of a second of 8 Mbit/s.
QUEUE_MAX_BYTES = 256 * 1024
# Beyond that for small packets only: a queue full of bulk must not shut them out.
CONTROL_ROOM_BYTES = 32 * 1024
# Of IP and UDP: they take their share of a shaped link.
_HEADERS_BYTES = {4: 28, 6: 48}
# System calls to read with in one wake-up: then what was read is answered, and other sockets have their turn.
_READS_MAX = 32

# A packet as it goes out, or one that is numbered only when it does.
Queued = bytes | Frame

Receive = Callable[[Face, list[bytes]], None]


@dataclass(slots=True)
class LinkCounters:
    """What a face's link layer did, in datagrams; packets and drops in all are in the face's own counters."""

    in_datagrams: int = 0
    out_datagrams: int = 0
    out_errors: int = 0
    fragmented: int = 0
    reassembled: int = 0
    reassembly_drops: int = 0
    marked: int = 0
    unproven_drops: int = 0


class DatagramFace(Face):
    """A peer at `address`; `last_heard` and `created` are monotonic time, for closing what came by itself and went.

    `rate_bps` shapes what goes out. `mtu` is the largest datagram in bytes of UDP payload; by itself it is what the
    interface takes for a peer on this machine, and the path's to others but at most 1400. A configured peer
    (`is_configured`) and one on this machine need not prove their address. With `is_reliable` at both ends lost
    datagrams are sent again.
    """

    def __init__(
        self,
        uri: str,
        local_uri: str,
        neighbor: str,
        address: Address,
        channel: DatagramChannel,
        rate_bps: int | None = None,
        mtu: int | None = None,
        is_configured: bool = False,
        is_reliable: bool = False,
    ) -> None:
        super().__init__(uri, local_uri, neighbor)
        self.address, self.is_reliable, self.is_marking = address, is_reliable, True
        self.link = LinkCounters()
        self.limits: FaceLimits | None = None
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        headers_bytes = _HEADERS_BYTES[6 if ":" in address[0] else 4]
        self._writer = ShapedWriter(rate_bps, self._put_one, headers_bytes) if rate_bps else None
        self._marker = CongestionMarker(rate_bps)
        self._reassembler = Reassembler(channel.budget, is_reliable)
        self._numbered: list[bytes] = []
        self._control: list[Queued] = []
        self._again: list[Queued] = []
        self._bulk: list[Queued] = []
        self._queued_bytes = self._stuck_bytes = 0
        self._is_dirty = False
        self._sequence = int.from_bytes(os.urandom(8), "big")
        self._wanted_mtu = mtu
        self.mtu, self.segment_max, self.is_here = link.DEFAULT_MTU_BYTES, 0, False
        self.refresh_path()
        self.proof = None if is_configured or self.is_here else AddressProof(os.urandom(COOKIE_BYTES))
        self.last_heard = self.created = self._loop.time()
        first = int.from_bytes(os.urandom(4), "big")
        self._reliability = Reliability(self.mtu, self._sequence, first) if is_reliable else None
        self._timer: asyncio.TimerHandle | None = None
        # What the forwarder adds to during a batch, where nothing has to be asked packet by packet.
        self._batch: list[bytes] = []
        self._open_lane()

    def refresh_path(self) -> None:
        """Learns anew what the way to the peer carries."""
        try:
            payload, self.is_here = path(self.address)
        except OSError:
            return
        self.segment_max = payload
        usual = payload if self.is_here else min(payload, link.DEFAULT_MTU_BYTES)
        self.mtu = max(usual if self._wanted_mtu is None else self._wanted_mtu, link.MIN_MTU_BYTES)

    def _open_lane(self) -> None:
        if self.proof is None and self._writer is None and self._reliability is None:
            self.lane = self._batch

    def link_counters(self) -> dict[str, int]:
        """What the link layer did, with what was sent again where the face is reliable."""
        found = asdict(self.link)
        if self._reliability is not None:
            found |= asdict(self._reliability.counters)
        return found

    # --- in

    def refuses(self, chunk: bytes, size: int, now: float) -> bool:
        """Drops a train of nothing but Interests whole, while the face's limits are exceeded: a flood costs little."""
        if self.limits is None or self.proof is not None or not self.limits.is_exceeded(now):
            return False
        kinds = chunk[::size]
        if kinds.count(INTEREST) < len(kinds):
            return False
        self.last_heard = now
        self.link.in_datagrams += len(kinds)
        self.counters.in_bytes += len(chunk)
        self.limits.dropped += len(kinds)
        return True

    def on_datagrams(self, wires: list[bytes], receive: Receive, now: float) -> None:
        """What one system call brought from the peer."""
        self.last_heard = now
        self.link.in_datagrams += len(wires)
        if self.proof is not None:
            wires = self._judge(self.proof, wires, now)
        if self._reliability is not None:
            wires = self._acknowledge(self._reliability, wires, now)
        for wire in wires:
            if link.is_fragment(wire):
                wires = self._reassemble(wires, now)
                break
        if wires:
            receive(self, wires)

    def _judge(self, proof: AddressProof, wires: list[bytes], now: float) -> list[bytes]:
        """Counts what an unproven peer sent, and takes the answer to our question out of it."""
        others = []
        for wire in wires:
            proof.on_received(len(wire))
            if proof.is_answer(wire):
                self.counters.in_bytes += len(wire)
            else:
                others.append(wire)
        if proof.is_proven:
            self.proof = None
            self._open_lane()
            for wire, bulk in proof.release():
                self.transmit(wire, bulk)
        elif (question := proof.question(now)) is not None:
            self._enqueue(question, False)
        return others

    def _reassemble(self, wires: list[bytes], now: float) -> list[bytes]:
        whole, reassembler, counters = [], self._reassembler, self.counters
        for wire in wires:
            if not link.is_fragment(wire):
                whole.append(wire)
                continue
            counters.in_bytes += len(wire)
            dropped = reassembler.dropped
            try:
                message = reassembler.add(wire, now)
            except DecodeError:
                counters.undecodable += 1
                continue
            if message is not None:
                # Whoever takes the packet counts its bytes; on the link it was fragments, counted above.
                counters.in_bytes -= len(message)
                self.link.reassembled += 1
                whole.append(message)
            if lost := reassembler.dropped - dropped:
                self.link.reassembly_drops += lost
        return whole

    # --- out

    def transmit(self, wire: bytes, bulk: bool) -> None:
        proof = self.proof
        if proof is not None and not proof.may_send(len(wire)):
            if not proof.hold(wire, bulk):
                self.counters.drops += 1
                self.link.unproven_drops += 1
            return
        self._enqueue(wire, bulk)

    def _enqueue(self, wire: bytes, bulk: bool = True) -> None:
        if not self._has_room(len(wire), bulk):
            self.counters.drops += 1
            return
        packets = self._link_packets(wire)
        if len(packets) > 1:
            self.link.fragmented += 1
        if self._writer is not None:
            if not self._writer.push_all(packets, bulk):
                self.counters.drops += 1
            return
        first = self._marked(packets[0])
        self._put(packets if first is packets[0] else (first, *packets[1:]), self._bulk if bulk else self._control)

    def _has_room(self, size: int, bulk: bool) -> bool:
        if self._queued_bytes + size > QUEUE_MAX_BYTES:
            # A batch may be larger than the queue: only what the kernel does not take of it is backlog.
            self.flush()
        return self._queued_bytes + size <= QUEUE_MAX_BYTES + (0 if bulk else CONTROL_ROOM_BYTES)

    def _marked(self, packet: Queued) -> Queued:
        """The packet, with a congestion mark when it is its turn to bear one."""
        if isinstance(packet, Frame):
            if packet.can_be_marked() and self._should_mark():
                packet.mark()
                self.link.marked += 1
            return packet
        if not self._standing_bytes and not self._marker.is_alert:
            return packet
        marked = link.with_mark(packet)
        if marked is packet or not self._should_mark():
            return packet
        self.link.marked += 1
        return marked

    @property
    def _standing_bytes(self) -> int:
        standing = self._stuck_bytes + self._channel.unsent_bytes
        return standing if self._writer is None else standing + self._writer.queued_bytes

    def _should_mark(self) -> bool:
        """Asked once for each packet that can bear a mark."""
        standing, now = self._standing_bytes, self._loop.time()
        should_mark = (standing > 0 or self._marker.is_alert) and self._marker.should_mark(standing, now)
        return should_mark or (self._reliability is not None and self._reliability.take_mark(now))

    def _link_packets(self, wire: bytes) -> Sequence[Queued]:
        """What carries a packet; a queue may add a mark to the first."""
        mtu = self.mtu - link.MARK_BYTES
        if self._reliability is not None:
            self._reliability.mtu = mtu
            return self._reliability.frames(wire, self._loop.time())
        if len(wire) <= mtu or self.proof is not None:
            return (wire,)
        parts = link.fragments(wire, mtu, self._sequence)
        self._sequence += len(parts)
        return parts

    def _put_one(self, packet: Queued) -> None:
        """What the shaper lets go, in its order; its queue is what marks tell of."""
        self._put((self._marked(packet),), self._bulk)

    def _put(self, packets: Sequence[Queued], queue: list[Queued]) -> None:
        queue += packets
        self._queued_bytes += sum(map(len, packets))
        if packets:
            self._touch()

    def _touch(self) -> None:
        if not self._is_dirty:
            self._is_dirty = True
            self._channel.touch(self)

    # --- reliability

    def _acknowledge(self, reliability: Reliability, wires: list[bytes], now: float) -> list[bytes]:
        """What the packets hold for the forwarder; those that came before count as received, and no more."""
        passed, counters = [], self.counters
        for wire in wires:
            try:
                inner = reliability.incoming(wire, now)
            except DecodeError:
                inner = wire  # is counted by whoever can't read it either
            if inner is None:
                counters.in_bytes += len(wire)
            else:
                counters.in_bytes += len(wire) - len(inner)
                passed.append(inner)
        self._repeat(reliability)
        return passed

    def _repeat(self, reliability: Reliability) -> None:
        """Queues what is lost behind control packets and ahead of bulk."""
        lost = reliability.take_lost()
        if lost and self._writer is not None:
            self._writer.push_first(lost)
        elif lost:
            self._put(lost, self._again)
        self._arm(reliability)

    def _arm(self, reliability: Reliability) -> None:
        deadline = reliability.next_deadline()
        if deadline is not None and (self._timer is None or deadline < self._timer.when()):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        assert self._reliability is not None
        for acks in self._reliability.on_timer(self._loop.time()):
            self._numbered.append(acks)
            self._queued_bytes += len(acks)
            if self._writer is not None:
                self._writer.charge(len(acks))
            self._touch()
        self._repeat(self._reliability)

    # --- the socket

    def flush(self) -> None:
        """Sends what is queued, small packets first; what the kernel has no room for stays until it has."""
        self._is_dirty = False
        if not self.up:
            self._batch.clear()
            return
        if self._batch:
            self._flush_batch(self._batch)
        if not self._flush_queues():
            self._channel.wait_for_room(self)
        self._stuck_bytes = self._queued_bytes
        if not self.is_here:
            self._channel.measure()

    def _flush_queues(self) -> bool:
        """Whether the kernel had room for everything."""
        if self._reliability is None:
            return self._flush_queue(self._control) and self._flush_queue(self._bulk)
        while self._flush_queue(self._numbered):
            queue = self._control or self._again or self._bulk
            if not queue:
                self._arm(self._reliability)
                return True
            self._number(self._reliability, queue)
        return False

    def _number(self, reliability: Reliability, queue: list[Queued]) -> None:
        """Numbers what leaves next: any earlier, and what overtakes it in our own queue would make it look lost."""
        now, size = self._loop.time(), 0
        for frame in queue[:TRAIN_MAX_SEGMENTS]:
            size -= len(frame)
            if isinstance(frame, Frame) and not frame.is_done:
                wire = reliability.outgoing(frame, now)
                size += len(wire)
                self._numbered.append(wire)
        self._queued_bytes += size
        del queue[:TRAIN_MAX_SEGMENTS]

    def _flush_batch(self, batch: list[bytes]) -> None:
        """What a batch caused leaves as it is where nothing stands in its way, and else by the queues."""
        self._channel.remeasure()
        if not self._queued_bytes and not self._channel.unsent_bytes and max(map(len, batch)) <= self.mtu:
            self._queued_bytes = sum(map(len, batch))
            self._flush_queue(batch)
            self._queued_bytes = 0
        left = batch[:]
        batch.clear()
        for wire in left:
            self._enqueue(wire, len(wire) >= BULK_BYTES)

    def _flush_queue(self, queue: list[Any]) -> bool:
        """Whether the kernel had room for all of it."""
        counters, at, has_room = self.counters, 0, True
        while at < len(queue):
            try:
                sent = self._channel.udp.send(queue[at : at + TRAIN_MAX_SEGMENTS], self.address, self.segment_max)
            except BlockingIOError:
                has_room = False
                break
            except TrainRefused:
                self.segment_max = 0
                continue
            except OSError as error:
                self._on_send_error(error, len(queue[at]))
                at += 1
                continue
            size = len(queue[at]) * (sent - 1) + len(queue[at + sent - 1])
            counters.out_bytes += size
            self._queued_bytes -= size
            self.link.out_datagrams += sent
            at += sent
        del queue[:at]
        return has_room

    def _on_send_error(self, error: OSError, size: int) -> None:
        """No route, a packet too large, a filter: what was to be sent is lost, and asked for again."""
        self._queued_bytes -= size
        self.counters.drops += 1
        self.link.out_errors += 1
        if error.errno == errno.EMSGSIZE:
            self.refresh_path()

    def close(self) -> None:
        if self.up:
            self.flush()
        super().close()
        if self._writer is not None:
            self._writer.close()
        if self._timer is not None:
            self._timer.cancel()
        self._reassembler.close()
        self._channel.forget(self)


class DatagramChannel:
    """A bound UDP socket; `greet` makes a face for a peer that is not known yet, or refuses it.

    A peer makes itself known by a packet: bytes that are none get no face.
    """

    def __init__(
        self,
        udp: UdpSocket,
        greet: Callable[[DatagramChannel, Address], DatagramFace | None],
        receive: Receive,
        budget: ReassemblyBudget,
    ) -> None:
        self.udp, self._greet, self._receive, self.budget = udp, greet, receive, budget
        self._loop = asyncio.get_running_loop()
        self.local_address: Address = udp.socket.getsockname()
        self.faces: dict[Address, DatagramFace] = {}
        # What the kernel has taken and the interface has not, of all peers.
        self.unsent_bytes = 0
        self.undecodable = self.in_errors = 0
        self._dirty: list[DatagramFace] = []
        self._waiting: set[DatagramFace] = set()
        self._is_reading = self._is_closed = False
        self._loop.add_reader(udp.socket, self._on_readable)

    # --- in

    def _on_readable(self) -> None:
        self._is_reading = True
        try:
            now = self._loop.time()
            for _ in range(_READS_MAX):
                if not self._read(now):
                    break
        finally:
            self._is_reading = False
            self._flush()

    def _read(self, now: float) -> bool:
        """Takes one train; whether there may be more."""
        try:
            train = self.udp.receive()
        except OSError:
            self.in_errors += 1
            return True
        if train is None:
            return False
        chunk, size, address = train
        face = self.faces.get(address)
        if face is not None and face.refuses(chunk, size, now):
            return True
        wires = [chunk] if len(chunk) <= size else [chunk[at : at + size] for at in range(0, len(chunk), size)]
        if face is None and any(self._is_packet(wire) for wire in wires):
            face = self._greet(self, address)
        if face is not None:
            face.on_datagrams(wires, self._receive, now)
        return not self._is_closed

    def _is_packet(self, wire: bytes) -> bool:
        try:
            if link.is_fragment(wire):
                link.check_fragment(wire)
                return True
            fragment = packet.decode_link(wire).fragment
            if fragment[:1] == b"\x06":
                packet.decode_data(fragment)
            elif fragment:
                packet.decode_interest(fragment)
        except DecodeError:
            self.undecodable += 1
            return False
        return True

    # --- out

    def touch(self, face: DatagramFace) -> None:
        """A face has something to send: at the end of the batch, or in the loop's next turn."""
        if not self._dirty and not self._is_reading:
            self._loop.call_soon(self._flush)
        self.remeasure()
        self._dirty.append(face)

    def wait_for_room(self, face: DatagramFace) -> None:
        if not self._waiting:
            self._loop.add_writer(self.udp.socket, self._on_writable)
        self._waiting.add(face)

    def forget(self, face: DatagramFace) -> None:
        self._waiting.discard(face)
        if self.faces.get(face.address) is face:
            del self.faces[face.address]

    def _on_writable(self) -> None:
        self._loop.remove_writer(self.udp.socket)
        waiting, self._waiting = self._waiting, set()
        for face in waiting:
            face.flush()

    def _flush(self) -> None:
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, []
        for face in dirty:
            if face.up:
                face.flush()

    def measure(self) -> None:
        """Sees what the kernel still has; only for peers on other machines, where an interface can be slow."""
        self.unsent_bytes = self.udp.unsent_bytes()

    def remeasure(self) -> None:
        """The same where there was something when it was last seen."""
        if self.unsent_bytes:
            self.measure()

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self.udp.socket)
        self._loop.remove_writer(self.udp.socket)
        self.udp.close()
