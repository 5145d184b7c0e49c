"""What a service cannot do, asked of real containers from the inside, in each runtime that works here."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest
from executor_world import World, wait_until

from gateway.executor.client import ExecutorError
from gateway.executor.image import ImageStore
from gateway.executor.runtimes import bubblewrap, oci, seccomp
from gateway.executor.runtimes.base import Labels, Launch, RuntimeFailure
from gateway.executor.runtimes.selection import select
from gateway.executor.runtimes.supervised import SupervisedRuntime
from gateway.protocol.messages import Port, ServiceSpec

NAMES = ["bubblewrap"] + (["runc", "crun"] if os.geteuid() == 0 else [])
CGROUP_NAMES = [name for name in NAMES if name != "bubblewrap"]
HYBRID = Path("/sys/fs/cgroup/unified").is_dir()


def make(name: str, directory: Path) -> SupervisedRuntime:
    directory.mkdir(parents=True)
    if name == "bubblewrap":
        assert bubblewrap.probe() == ""
        return bubblewrap.BubblewrapRuntime(directory / name, "test-tag")
    command = next(c for c in oci.candidates(HYBRID) if c[-1] == name)
    assert oci.probe(command, directory) == ""
    return oci.OciRuntime(directory / name, f"test-{name}", command)


@pytest.fixture(params=NAMES)
def runtime(request: pytest.FixtureRequest, runtimes: None, tmp_path: Path):
    made = make(request.param, tmp_path / "run")
    yield made
    for instance in made.list_managed():
        made.remove(instance.labels.service)


@pytest.fixture
def launch(world: World):
    manifest, blobs = world.image(world.directory / "blobs")
    spec = ServiceSpec("hello", 1, "ann", manifest, blobs)
    image = ImageStore(world.directory / "blobs", world.directory / "images").prepare(spec)

    def make(runtime: SupervisedRuntime, *command: str, **fields) -> Launch:
        values = {
            "labels": Labels(runtime._tag, "hello", b"\1" * 32, 1),
            "rootfs": image.rootfs,
            "command": command or image.command,
            "environment": ("PATH=/bin", "PICASSO_NODE=n1", "PICASSO_SERVICE=hello"),
            "directory": "/",
            "uid": image.uid,
            "gid": image.gid,
            "address": "127.0.0.1",
            "ports": (),
            "health_port": 8080,
            "cpu": 0.5,
            "memory_bytes": 32 << 20,
            "tmp_bytes": 1 << 20,
        }
        return Launch(**values | fields)

    return make


def run(runtime: SupervisedRuntime, launch: Launch, timeout_s: float = 8) -> str:
    """Runs to the end; the output and the exit code."""
    runtime.start(launch)
    wait_until(lambda: runtime.list_managed()[0].state == "exited", timeout_s, lambda: str(runtime.list_managed()))
    instance = runtime.list_managed()[0]
    return f"{runtime.logs('hello').decode()}[{instance.exit_code}]{instance.reason}"


QUESTIONS = [
    ("busybox touch /x", "Read-only file system"),
    ("busybox touch /etc/passwd", "Read-only file system"),
    ("busybox id -u", "^1000$"),
    (
        "busybox grep -E '^Cap(Prm|Eff|Bnd|Amb)' /proc/self/status | busybox grep -v 0000000000000000; echo none",
        "^none",
    ),
    ("busybox grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"),
    ("busybox ip -o link | busybox wc -l", "^1$"),
    ("busybox ps -o comm | busybox grep -c python; echo", "^0$"),
    ("busybox mount -t tmpfs x /tmp", "permission denied"),
    ("busybox unshare -r true || echo denied", "^denied$"),
    ("busybox chroot /tmp true || echo denied", "^denied$"),
    ("busybox dd if=/dev/zero of=/tmp/x bs=1024 count=2048", "No space left|File too large"),
    ("busybox ls /dev | busybox grep -E 'sd|vd|mem|kmsg|kvm|fuse'; echo none", "^none"),
    ("busybox hostname other", "not permitted"),
    ("echo $PICASSO_NODE $AWS_SECRET$DEBIAN_FRONTEND$PYTHONPATH.", "^n1 [.]$"),
]


def test_a_service_has_nothing_but_its_own(runtime: SupervisedRuntime, launch) -> None:
    """Read-only root, no capability, no other process, no other network, no device, a bounded /tmp, its environment."""
    script = "\n".join(f"echo; echo =={n}; {question}" for n, (question, _) in enumerate(QUESTIONS))
    output = run(runtime, launch(runtime, "/bin/sh", "-c", f"exec 2>&1; {script}; exit 3"))
    answers = dict(part.split("\n", 1) for part in output.split("\n==")[1:])
    for n, (question, expected) in enumerate(QUESTIONS):
        answer = answers[str(n)].strip()
        assert re.search(expected, answer, re.MULTILINE), f"{question}: {answer}"
    assert "[3]" in output


def test_the_exit_code_of_a_service_that_ends_at_once_is_told(runtime: SupervisedRuntime, launch) -> None:
    """However short a service lives, its exit code is known."""
    for _ in range(3):
        assert run(runtime, launch(runtime, "/bin/sh", "-c", "exit 5")) == "[5]"
        runtime.remove("hello")


def test_a_service_reaches_neither_the_host_nor_the_network(runtime: SupervisedRuntime, launch) -> None:
    """A listener of the host on loopback and on every address is out of reach of a service."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        script = f"for a in 127.0.0.1 10.0.0.1; do busybox nc -w 1 $a {port} </dev/null && echo reached; done; echo end"
        output = run(runtime, launch(runtime, "/bin/sh", "-c", script))
    assert "end" in output and "reached" not in output


FORKS = ("/bin/sh", "-c", "i=0; while [ $i -lt 90 ]; do sleep 5 & i=$((i+1)); done 2>&1")


@pytest.mark.parametrize("name", CGROUP_NAMES)
def test_processes_are_limited(runtimes: None, tmp_path: Path, launch, name: str) -> None:
    """A service that forks without end is stopped at 64 processes."""
    runtime = make(name, tmp_path / "run")
    try:
        assert "can't fork" in run(runtime, launch(runtime, *FORKS))
    finally:
        runtime.remove("hello")


@pytest.mark.parametrize("name", CGROUP_NAMES)
def test_memory_is_limited_and_the_reason_is_told(runtimes: None, tmp_path: Path, launch, name: str) -> None:
    """A service that takes more than its memory is killed, and the status says that this was why."""
    runtime = make(name, tmp_path / "run")
    script = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done"
    try:
        output = run(runtime, launch(runtime, "/bin/sh", "-c", script, memory_bytes=8 << 20))
        assert "out of memory" in output
    finally:
        runtime.remove("hello")


def test_the_log_is_bounded(runtime: SupervisedRuntime, launch) -> None:
    """A service that writes a megabyte leaves 64 KB at most, the last ones."""
    script = "busybox seq 1 200000; echo the-end"
    run(runtime, launch(runtime, "/bin/sh", "-c", script))
    logs = runtime.logs("hello")
    assert 16 << 10 <= len(logs) <= 64 << 10 and logs.endswith(b"the-end\n")


def test_a_program_that_is_not_there_is_named(runtime: SupervisedRuntime, launch) -> None:
    """The runtime's own words are the reason."""
    assert "/no/such" in run(runtime, launch(runtime, "/no/such"))


def test_commands_run_inside_and_with_no_more_rights(runtime: SupervisedRuntime, launch) -> None:
    """execute() gives the exit code, sees the container's files and cannot write; one that hangs is an error."""
    runtime.start(launch(runtime))
    wait_until(lambda: runtime.list_managed()[0].state == "running", 5)
    assert runtime.execute("hello", ("/bin/cat", "/www/health"), 3) == 0
    assert runtime.execute("hello", ("/bin/sh", "-c", "exit 7"), 3) == 7
    assert runtime.execute("hello", ("/bin/busybox", "touch", "/x"), 3) != 0
    assert runtime.execute("hello", ("/bin/busybox", "mount", "-t", "tmpfs", "x", "/tmp"), 3) != 0
    assert (
        runtime.execute("hello", ("/bin/busybox", "grep", "-q", "CapEff:\t0000000000000000", "/proc/self/status"), 3)
        == 0
    )
    with pytest.raises(RuntimeFailure, match="did not end"):
        runtime.execute("hello", ("/bin/sleep", "9"), 0.3)


def test_the_relay_carries_large_answers_and_half_closed_connections(runtime: SupervisedRuntime, launch) -> None:
    """A megabyte each way arrives whole, also when the client closes its sending side first."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = "busybox nc -l -p 8080 -e /bin/cat"
    runtime.start(launch(runtime, "/bin/sh", "-c", script, ports=(Port(8080, port),), health_port=0))
    payload = os.urandom(1 << 20)
    answer = b""

    def connected() -> socket.socket | None:
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=5)
            connection.sendall(payload[:1])
            return connection if connection.recv(1) == payload[:1] else None
        except OSError:
            return None

    deadline = time.monotonic() + 5
    while (connection := connected()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with connection:
        sender = os.fork()
        if sender == 0:
            connection.sendall(payload[1:])
            connection.shutdown(socket.SHUT_WR)
            os._exit(0)
        while chunk := connection.recv(1 << 16):
            answer += chunk
        os.waitpid(sender, 0)
    assert answer == payload[1:]


def test_an_ordinary_user_runs_services_with_bubblewrap(world: World, gateway, open_directory: Path) -> None:
    """As `nobody` a service runs, is limited, answers, is adopted and stopped; the status says `reduced`."""
    g = gateway(directory=open_directory / "n1", user=65534 if os.geteuid() == 0 else None)
    spec = g.spec(nonce="plain")
    if g.user:
        subprocess.run(["chown", "-R", "65534:65534", g.base], check=True)
    g.start()
    g.apply(world.decide([world.sign_spec(spec)]))
    status = g.wait_for("running", health="healthy")
    assert status.runtime == "bubblewrap (reduced: no cgroup limits)" and g.get()["nonce"] == "plain"
    assert "runtime: bubblewrap (reduced: no cgroup limits)" in g.status().notes
    started = g.get()["started"]
    forks = g.spec("forks", command=FORKS, ports=(), health=None, restart="never")
    g.apply(world.decide([world.sign_spec(spec), world.sign_spec(forks)], version=2))
    wait_until(lambda: b"can't fork" in logs(g, "forks"), 8, lambda: str(g.status()))
    g.kill()
    g.start()
    g.wait_for("running", health="healthy")
    assert g.get()["started"] == started
    asyncio.run(g.client.stop())
    assert g.processes() == []


def logs(g, service: str) -> bytes:
    try:
        return asyncio.run(g.client.logs(service))
    except ExecutorError:
        return b""


def test_without_any_runtime_every_service_is_refused_with_the_way_out(tmp_path: Path, monkeypatch) -> None:
    """On a machine with neither crun, runc nor bubblewrap the reason names what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    selection = select(("auto",), tmp_path / "run", "tag")
    assert selection.runtime is None and selection.refusal.startswith("no container runtime: install crun (")
    assert any("bwrap is not installed" in note for note in selection.notes)


def test_a_runtime_that_is_there_and_does_not_work_is_told_of(tmp_path: Path, monkeypatch) -> None:
    """A broken crun is tried, named with its words, and not used."""
    for program in ("crun", "runc", "bwrap"):
        path = tmp_path / program
        path.write_text(f"#!/bin/sh\necho {program} is broken >&2\nexit 1\n")
        path.chmod(0o755)
    shutil.copy(shutil.which("unshare"), tmp_path / "unshare")
    (tmp_path / "sh").symlink_to("/bin/sh")
    (tmp_path / "umount").symlink_to(shutil.which("umount"))
    monkeypatch.setenv("PATH", str(tmp_path))
    selection = select(("auto",), tmp_path / "run", "tag")
    assert selection.runtime is None
    assert any("bwrap is broken" in note for note in selection.notes)
    assert os.geteuid() != 0 or any("runc is broken" in note for note in selection.notes)


def test_the_filter_program_decides_as_the_list_says() -> None:
    """Run by a small interpreter, the BPF program denies what is listed, allows the rest, and kills foreign ABIs."""
    program = seccomp.bpf("x86_64")
    x86_64 = 0xC000003E
    errno_1, errno_38, allow, kill = 0x50001, 0x50026, 0x7FFF0000, 0x80000000
    assert interpret(program, x86_64, 165) == errno_1  # mount
    assert interpret(program, x86_64, 101) == errno_1  # ptrace
    assert interpret(program, x86_64, 435) == errno_38  # clone3
    assert interpret(program, x86_64, 56, 0x10000000 | 17) == errno_1  # clone into a new user namespace
    assert interpret(program, x86_64, 56, 17) == allow  # an ordinary fork
    assert all(interpret(program, x86_64, number) == allow for number in (0, 1, 2, 41, 59, 231))
    assert interpret(program, 0x40000003, 165) == kill and interpret(program, x86_64, 0x40000000) == kill
    assert seccomp.bpf("mips") is None


def interpret(program: bytes, architecture: int, number: int, argument: int = 0) -> int:
    """What classic BPF makes of one system call."""
    data = {0: number, 4: architecture, 16: argument}
    code = [struct.unpack("<HBBI", program[at : at + 8]) for at in range(0, len(program), 8)]
    at, value = 0, 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        if operation == 0x20:
            value = data[k]
        elif operation == 0x06:
            return k
        else:
            holds = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[operation]
            at += if_true if holds else if_false


def test_the_written_configuration_grants_nothing() -> None:
    """The OCI configuration has no capability, its own namespaces, a read-only root, limits and the filter."""
    configuration = oci.base_configuration(Path("/r"), ("/x",), (), "/", 1000, 1000, 1 << 20)
    process = configuration["process"]
    assert not any(process["capabilities"].values()) and process["noNewPrivileges"] and process["user"]["uid"] == 1000
    assert configuration["root"]["readonly"]
    assert {n["type"] for n in configuration["linux"]["namespaces"]} == {"pid", "network", "ipc", "uts", "mount"}
    assert not any("path" in n for n in configuration["linux"]["namespaces"])
    assert all("noexec" in m["options"] for m in configuration["mounts"]) and "/sys" not in json.dumps(
        configuration["mounts"]
    )
    resources = oci.limits("/picasso/x", 1 << 20, 0.5)["resources"]
    assert resources["pids"]["limit"] == 64 and resources["cpu"]["quota"] == 50_000
