"""A non-blocking UDP socket that moves trains: many packets of one length in one system call where the kernel can.

Linux cuts a train into datagrams as late as it can (UDP_SEGMENT, since 4.18) and hands one over whole where it comes
as one (UDP_GRO, since 5.0). Elsewhere, or where an interface refuses, each datagram has its own call.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import socket
import struct
import sys
import termios
from collections.abc import Sequence

# Host and port; over IPv6 also the flow and the scope, without which a link-local peer can't be answered.
Address = tuple[str, int] | tuple[str, int, int, int]

# From linux/udp.h, linux/in.h, linux/in6.h and asm-generic/socket.h: Python has no names for them.
_UDP_SEGMENT, _UDP_GRO = 103, 104
_IP_MTU, _IPV6_MTU = 14, 24
_SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 33, 32
TRAIN_MAX_SEGMENTS = 64
_DATAGRAM_MAX_BYTES = {socket.AF_INET: 65_507, socket.AF_INET6: 65_487}
_HEADER_BYTES = {socket.AF_INET: 28, socket.AF_INET6: 48}
# A consumer's window (256 packets of 8 kB) from two peers, as the kernel counts: nearly twice the bytes.
RECEIVE_BUFFER_BYTES = 8 << 20
SEND_BUFFER_BYTES = 1 << 20
_READ_BYTES = 65_535
_SEGMENT = struct.Struct("=H")
_CONTROL_BYTES = socket.CMSG_SPACE(4)
_NO_OFFLOAD = frozenset((errno.EINVAL, errno.EMSGSIZE, errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT))


class TrainRefused(OSError):
    """The kernel does not cut trains on this way; single datagrams may go."""


class UdpSocket:
    """Bound to an address, or a given socket. `is_offloading` says whether the kernel cuts trains."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.family = socket.AddressFamily(sock.family)
        self.datagram_max_bytes = _DATAGRAM_MAX_BYTES[self.family]
        sock.setblocking(False)
        _enlarge(sock, socket.SO_RCVBUF, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        _enlarge(sock, socket.SO_SNDBUF, _SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
        self.is_offloading = _set(sock, _UDP_SEGMENT, 0)
        _set(sock, _UDP_GRO, 1)

    def receive(self) -> tuple[bytes, int, Address] | None:
        """Datagrams of one peer, one after another, the length of each but the last, and who sent them.

        None when nothing is there; raises OSError for what the network reports of an earlier packet.
        """
        try:
            chunk, control, _, address = self.socket.recvmsg(_READ_BYTES, _CONTROL_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        if control and control[0][1] == _UDP_GRO and control[0][0] == socket.IPPROTO_UDP:
            return chunk, int.from_bytes(control[0][2][:4], sys.byteorder), address
        return chunk, max(1, len(chunk)), address

    def send(self, wires: Sequence[bytes], address: Address, segment_max: int) -> int:
        """Sends the datagrams at the front that make one train; how many those were.

        `segment_max` is the largest packet that the path takes whole, 0 to make no trains. Raises OSError:
        BlockingIOError when the kernel has no room, TrainRefused, or the reason why the first datagram can't be sent.
        """
        count = self._train(wires, segment_max) if self.is_offloading and len(wires) > 1 else 1
        if count > 1:
            option = (socket.IPPROTO_UDP, _UDP_SEGMENT, _SEGMENT.pack(len(wires[0])))
            try:
                self.socket.sendmsg(wires[:count], (option,), 0, address)
                return count
            except OSError as error:
                if error.errno not in _NO_OFFLOAD:
                    raise
                raise TrainRefused(*error.args) from error
        self.socket.sendto(wires[0], address)
        return 1

    def _train(self, wires: Sequence[bytes], segment_max: int) -> int:
        """How many datagrams at the front are of one length; the last one may be shorter."""
        size = len(wires[0])
        if not 0 < size <= segment_max:
            return 1
        room, count = min(self.datagram_max_bytes // size, TRAIN_MAX_SEGMENTS, len(wires)), 1
        while count < room and (length := len(wires[count])) <= size:
            if not length:
                break
            count += 1
            if length < size:
                break
        return count

    def unsent_bytes(self) -> int:
        """What the kernel has taken and not yet passed to an interface."""
        return int.from_bytes(fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def close(self) -> None:
        self.socket.close()


def bound(family: socket.AddressFamily, host: str, port: int) -> UdpSocket:
    """A socket that listens at an address of this machine; raises OSError. A scope stands as in fe80::1%eth0."""
    # As bytes it is not looked through for international letters, which takes a table of all of them.
    address = socket.getaddrinfo(host.encode(), port, family, socket.SOCK_DGRAM, 0, socket.AI_PASSIVE)[0][4]
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        return UdpSocket(sock)
    except BaseException:
        sock.close()
        raise


def path(address: Address) -> tuple[int, bool]:
    """What the kernel knows of the way to a peer: the UDP payload it takes whole, and whether it stays on this machine.

    Raises OSError where there is no way.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        if family == socket.AF_INET6:
            mtu = probe.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
        else:
            mtu = probe.getsockopt(socket.IPPROTO_IP, _IP_MTU)
        source = probe.getsockname()
    return min(mtu - _HEADER_BYTES[family], _DATAGRAM_MAX_BYTES[family]), is_here(address, source)


def is_here(address: Address, source: Address) -> bool:
    """Whether a peer is on this machine, by the address that it is reached from. No forged packet comes from such."""
    host = address[0].partition("%")[0]
    return host == source[0].partition("%")[0] or ipaddress.ip_address(host).is_loopback


def _set(sock: socket.socket, option: int, value: int) -> bool:
    try:
        sock.setsockopt(socket.IPPROTO_UDP, option, value)
    except OSError:
        return False
    return True


def _enlarge(sock: socket.socket, option: int, force: int, size: int) -> None:
    """As large as the system's limit lets it be; beyond that where we may."""
    sock.setsockopt(socket.SOL_SOCKET, option, size)
    with contextlib.suppress(PermissionError):
        sock.setsockopt(socket.SOL_SOCKET, force, size)
