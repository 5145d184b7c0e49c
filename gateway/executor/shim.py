"""One small process a service: the parent of its container, the drain of its log, and the relay of its ports.

It is started as `python -I -S shim.py KEY=VALUE… -- COMMAND…`, imports the standard library only, and outlives the
executor, which finds it again by its arguments. It listens in the host's network namespace, then enters the
container's (which has a loopback interface and nothing else) and gives up every privilege. So a service is reached
through its published ports alone and reaches nothing: no bridge, no address translation, no firewall rule.

Keys: `tag` and `service` (labels), `directory` (its state), `mode` (`detached`: the command leaves the container's
pid in `init.pid`; `foreground`: the command stays and says it on `{info}`), `listen` as `address,port,container port`
(an empty address is the unix socket `health.sock`), `limit` as `name,value` of a resource limit.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import select
import selectors
import signal
import socket
import struct
import sys
import time
from typing import NoReturn

LOG_MAX_BYTES = 64 << 10
_CHUNK_BYTES = 64 << 10
_CONNECTIONS_MAX = 256
_IDLE_S = 300.0
_START_S = 30
_FLUSH_S = 1.0  # for what a service said last and its clients have not read yet
_NOBODY = 65534
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_NS_GET_USERNS = 0xB701
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 22, 36, 38
_NOT_STARTED, TIMED_OUT = 125, 124

_libc = ctypes.CDLL(None, use_errno=True)


class Journal:
    """The `status` and `log` files of the state directory, opened before privileges are given up."""

    def __init__(self, directory: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        self._status = os.open(f"{directory}/status", flags | os.O_APPEND | os.O_TRUNC, 0o600)
        self._log = os.open(f"{directory}/log", flags, 0o600)
        self._log_bytes = os.lseek(self._log, 0, os.SEEK_END)
        self._tail = bytearray()

    def status(self, line: str) -> None:
        os.write(self._status, line.replace("\n", " ").encode() + b"\n")

    def log(self, chunk: bytes) -> None:
        """Appends; once the file is full it starts again from the newer half."""
        self._tail = (self._tail + chunk)[-LOG_MAX_BYTES // 2 :]
        if self._log_bytes + len(chunk) > LOG_MAX_BYTES:
            os.ftruncate(self._log, 0)
            os.lseek(self._log, 0, os.SEEK_SET)
            chunk, self._log_bytes = bytes(self._tail), 0
        self._log_bytes += os.write(self._log, chunk)

    @property
    def last_line(self) -> str:
        lines = self._tail.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


class Connection:
    """A client's connection and its other half to the service; what one sends waits here for the other."""

    def __init__(self, client: socket.socket, service: socket.socket, now: float) -> None:
        self.peer = {client: service, service: client}
        self.pending = {client: bytearray(), service: bytearray()}
        self.ended = {client: False, service: False}
        self.finished: set[socket.socket] = set()
        self.active = now

    def interest(self, side: socket.socket) -> int:
        """The selector events that this side waits for."""
        other = self.peer[side]
        readable = not self.ended[side] and len(self.pending[other]) < _CHUNK_BYTES
        return (selectors.EVENT_READ if readable else 0) | (selectors.EVENT_WRITE if self.pending[side] else 0)

    def on_ready(self, side: socket.socket, events: int, now: float) -> bool:
        """Moves bytes; False when the connection is over."""
        self.active = now
        try:
            if events & selectors.EVENT_READ:
                self._read(side)
            if events & selectors.EVENT_WRITE and self.pending[side]:
                del self.pending[side][: side.send(self.pending[side])]
            for end in self.peer.keys() - self.finished:
                if self.ended[self.peer[end]] and not self.pending[end]:
                    self.finished.add(end)
                    end.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return len(self.finished) < 2

    def _read(self, side: socket.socket) -> None:
        chunk = side.recv(_CHUNK_BYTES)
        if chunk:
            self.pending[self.peer[side]] += chunk
        else:
            self.ended[side] = True


class Relay:
    """Accepts on the listeners and connects each client to 127.0.0.1 in the namespace it runs in."""

    def __init__(self, selector: selectors.BaseSelector, listeners: dict[socket.socket, int]) -> None:
        self._selector, self._listeners = selector, listeners
        self._connections: set[Connection] = set()
        for listener in listeners:
            selector.register(listener, selectors.EVENT_READ, (self._on_client,))

    def _on_client(self, listener: socket.socket, _events: int, now: float) -> None:
        service = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            client, _ = listener.accept()
        except OSError:
            service.close()
            return
        try:
            if len(self._connections) >= _CONNECTIONS_MAX:
                raise OSError("too many connections")
            service.settimeout(1.0)
            service.connect(("127.0.0.1", self._listeners[listener]))
        except OSError:
            client.close()
            service.close()
            return
        connection = Connection(client, service, now)
        self._connections.add(connection)
        for side in connection.peer:
            side.setblocking(False)
            self._selector.register(side, selectors.EVENT_READ, (self._on_side, connection))

    def _on_side(self, connection: Connection, side: socket.socket, events: int, now: float) -> None:
        if connection in self._connections:
            if connection.on_ready(side, events, now):
                for end in connection.peer:
                    self._watch(end, connection)
            else:
                self._close(connection)

    def _watch(self, side: socket.socket, connection: Connection) -> None:
        wanted = connection.interest(side)
        current = self._selector.get_map().get(side)
        if wanted and current:
            self._selector.modify(side, wanted, (self._on_side, connection))
        elif wanted:
            self._selector.register(side, wanted, (self._on_side, connection))
        elif current:
            self._selector.unregister(side)

    def _close(self, connection: Connection) -> None:
        self._connections.discard(connection)
        for side in connection.peer:
            if side in self._selector.get_map():
                self._selector.unregister(side)
            side.close()

    @property
    def is_busy(self) -> bool:
        return bool(self._connections)

    def close_listeners(self) -> None:
        for listener in self._listeners:
            self._selector.unregister(listener)
            listener.close()
        self._listeners = {}

    def close_idle(self, now: float) -> None:
        for connection in [c for c in self._connections if now - c.active > _IDLE_S]:
            self._close(connection)


def listen(listens: list[str]) -> dict[socket.socket, int]:
    """Listening sockets and their container ports; raises OSError that names the address."""
    listeners = {}
    for item in listens:
        address, port, container_port = item.rsplit(",", 2)
        family = socket.AF_UNIX if not address else socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if address:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, int(port)) if address else "health.sock")
            listener.listen(64)
        except OSError as error:
            raise OSError(f"cannot listen on {address} port {port}: {error.strerror}") from error
        listener.setblocking(False)
        listeners[listener] = int(container_port)
    return listeners


def spawn(command: list[str], output: int, passed: dict[str, int]) -> int:
    """Starts the command with `{name}` in its arguments replaced by inherited descriptors; returns its pid."""
    argv = [part if part[:1] != "{" else str(passed[part.strip("{}")]) for part in command]
    pid = os.fork()
    if pid == 0:
        run_child(argv, output, passed)
    return pid


def run_child(argv: list[str], output: int, passed: dict[str, int]) -> NoReturn:
    try:
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for descriptor in passed.values():
            os.set_inheritable(descriptor, True)
        # Python ignores SIGPIPE, and an ignored signal survives exec: the service would inherit it.
        for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
    os._exit(_NOT_STARTED)


def start_detached(command: list[str], output: int) -> tuple[int, int]:
    """Runs a command that leaves the container behind; returns (pid to wait for, pid in the namespace)."""
    _, status = os.waitpid(spawn(command, output, {}), 0)
    if status != 0:
        raise OSError(f"{os.path.basename(command[0])} could not start the container")
    with open("init.pid") as file:
        pid = int(file.read())
    return pid, pid


def start_foreground(command: list[str], output: int, limits: list[str]) -> tuple[int, int]:
    """Runs a command that stays with the container; limits are set before the service's program starts."""
    info, info_write = os.pipe()
    block, unblock = os.pipe()
    passed = {"info": info_write, "block": block}
    if os.path.exists("seccomp.bpf"):
        passed["seccomp"] = os.open("seccomp.bpf", os.O_RDONLY)
    pid = spawn(command, output, passed)
    for descriptor in passed.values():
        os.close(descriptor)
    inner = read_child_pid(info)
    for limit in limits:
        name, value = limit.split(",")
        resource.prlimit(inner, getattr(resource, "RLIMIT_" + name), (int(value), int(value)))
    os.write(unblock, b"x")
    os.close(unblock)
    return pid, inner


def read_child_pid(info: int) -> int:
    """The `child-pid` of bubblewrap's JSON; the json module would cost a megabyte a service."""
    text = b""
    while b"}" not in text:
        chunk = os.read(info, 4096)
        if not chunk:
            raise OSError("bwrap could not start the container")
        text += chunk
    os.close(info)
    return int(text.split(b'"child-pid":')[1].split(b",")[0].split(b"}")[0])


def enter_network(pid: int) -> None:
    """Moves this process to the network of `pid`, through the user namespace that owns it, and drops privileges."""
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    owner = fcntl.ioctl(network, _NS_GET_USERNS)
    if not os.path.samestat(os.fstat(owner), os.stat("/proc/self/ns/user")):
        check(_libc.setns(owner, _CLONE_NEWUSER), "enter the container's user namespace")
        check(_libc.setns(network, _CLONE_NEWNET), "enter the container's network")
    else:
        check(_libc.setns(network, _CLONE_NEWNET), "enter the container's network")
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    os.close(network)
    os.close(owner)
    give_up_privileges()


def execute_inside(pid: int, command: list[str], timeout_s: float) -> NoReturn:
    """Runs a command in the sandbox of `pid`, with no more rights than its own program has; ends with its exit code.

    A command that takes longer is killed and collected here, because the sandbox cannot end before it, and the exit
    code is 124.
    """
    kinds = ("mnt", "pid", "net", "ipc", "uts")
    spaces = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in kinds]
    user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
    owner = fcntl.ioctl(spaces[0], _NS_GET_USERNS)
    with open(f"/proc/{pid}/environ", "rb") as file:
        environment = dict(entry.split(b"=", 1) for entry in file.read().split(b"\0") if b"=" in entry)
    program = b""
    if os.path.exists("seccomp.bpf"):
        with open("seccomp.bpf", "rb") as file:
            program = file.read()
    check(_libc.setns(owner, _CLONE_NEWUSER), "enter the sandbox's user namespace")
    for space in spaces:
        check(_libc.setns(space, 0), "enter the sandbox")
    if not os.path.samestat(os.fstat(user), os.fstat(owner)):
        check(_libc.setns(user, _CLONE_NEWUSER), "enter the sandbox's inner user namespace")
    os.chdir("/")
    child = os.fork()  # a pid namespace is entered by children only
    if child:
        ended = select.select([os.pidfd_open(child)], [], [], timeout_s)[0]
        if not ended:
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        sys.exit(exit_code(status) if ended else TIMED_OUT)
    check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "end with the one who asked")
    give_up_privileges()
    if program:
        code = ctypes.create_string_buffer(program, len(program))
        filters = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
        check(_libc.prctl(_PR_SET_SECCOMP, 2, filters, 0, 0), "install the system call filter")
    os.execvpe(command[0], command, environment)


def give_up_privileges() -> None:
    check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "set no_new_privs")
    version_3 = struct.pack("Ii", 0x20080522, 0)
    check(_libc.capset(version_3, bytes(24)), "drop capabilities")


def check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(f"cannot {what}: {os.strerror(ctypes.get_errno())}")


def start_time(pid: int) -> int:
    """When `pid` started, in clock ticks since boot: with the pid it names a process for good."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def exit_code(status: int) -> int:
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def drain(output: int, journal: Journal) -> None:
    try:
        while chunk := os.read(output, _CHUNK_BYTES):
            journal.log(chunk)
    except BlockingIOError:
        pass


def serve(pid: int, output: int, listeners: dict[socket.socket, int], journal: Journal) -> int:
    """Relays and drains until `pid` ends; returns its wait status."""
    selector = selectors.DefaultSelector()
    relay = Relay(selector, listeners)
    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, "end")
    selector.register(output, selectors.EVENT_READ, "log")
    deadline = None
    while deadline is None or (relay.is_busy and time.monotonic() < deadline):
        ready = selector.select(_IDLE_S / 2 if deadline is None else 0.05)
        now = time.monotonic()
        for key, events in ready:
            if key.data == "end":
                selector.unregister(key.fileobj)
                relay.close_listeners()
                deadline = now + _FLUSH_S
            elif key.data == "log":
                drain(output, journal)
            else:
                handler, *arguments = key.data
                handler(*arguments, key.fileobj, events, now)
        relay.close_idle(now)
    return os.waitpid(pid, 0)[1]


def run(values: dict[str, list[str]], command: list[str]) -> int:
    directory = values["directory"][0]
    os.chdir(directory)
    journal = Journal(directory)
    output, output_write = os.pipe()
    os.set_blocking(output, False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "become the container's parent")
    signal.alarm(_START_S)  # a runtime that hangs ends this process, and with it this attempt
    try:
        listeners = listen(values.get("listen", []))
        if values["mode"] == ["detached"]:
            pid, inner = start_detached(command, output_write)
        else:
            pid, inner = start_foreground(command, output_write, values.get("limit", []))
        os.close(output_write)
        signal.alarm(0)
        journal.status(f"running {inner} {start_time(inner)}")
        try:
            enter_network(inner)
        except FileNotFoundError:  # it has ended already: there is its exit code to collect, and nothing to relay
            listeners = {}
        status = serve(pid, output, listeners, journal)
    except (OSError, ValueError, IndexError) as error:
        drain(output, journal)
        journal.status(f"failed {': '.join(filter(None, (str(error), journal.last_line)))}")
        return 1
    drain(output, journal)
    journal.status(f"exited {exit_code(status)}")
    return 0


def main(argv: list[str]) -> int:
    split = argv.index("--")
    values: dict[str, list[str]] = {}
    for item in argv[:split]:
        name, _, value = item.partition("=")
        values.setdefault(name, []).append(value)
    if values["mode"] == ["enter"]:
        os.chdir(values["directory"][0])
        execute_inside(int(values["pid"][0]), argv[split + 1 :], float(values["timeout"][0]))
    return run(values, argv[split + 1 :])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
