import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller import control, daemon, workspace
from controller.daemon import Controller
from controller.errors import ControllerError
from controller.repository.deployment import deploy
from controller.repository.publication import Publication
from controller.repository.service_file import ServiceFile
from gateway.protocol import codec, keys
from gateway.protocol.keys import Key
from gateway.protocol.messages import BlobRef, Head
from tests.controller import fakes
from tests.controller.fakes import NOW, FakeFace, Home, report, sign_report

BLOB = BlobRef(b"\1" * 32, 1, b"\2" * 32)


class Face(FakeFace):
    """A fake face that can go away."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = asyncio.Event()

    async def closed(self) -> None:
        await self.gone.wait()

    def close(self) -> None:
        self.gone.set()


@asynccontextmanager
async def running(
    home: Home, monkeypatch: pytest.MonkeyPatch, faces: list[Face], interval_s: float = 0.2
) -> AsyncIterator[Controller]:
    """The daemon in this loop, connected to fake faces, one after the other."""

    async def connect(uri: str) -> Face:
        if faces and faces[-1].gone.is_set() and len(faces) > 3:
            raise ConnectionError(f"no forwarder at {uri}")
        if not faces or faces[-1].gone.is_set():
            faces.append(Face())
        return faces[-1]

    monkeypatch.setattr(daemon, "connect", connect)
    monkeypatch.setattr(daemon, "SETTLE_S", 0.02)
    monkeypatch.setattr(daemon, "RECONNECT_FIRST_S", 0.05)
    controller = Controller(replace(home.settings, report_interval_s=interval_s))
    task = asyncio.ensure_future(controller.run())
    try:
        await until(lambda: workspace.control_path(home.settings).exists() or task.done())
        yield controller
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        controller.close()


async def until(check: Callable[[], Any], timeout_s: float = 5.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (result := check()):
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.02)
    return result


async def ask(home: Home, **request: Any) -> Any:
    return await asyncio.to_thread(control.ask, workspace.control_path(home.settings), request)


def answer(home: Home, face: Face, key: Key, **facts: Any) -> None:
    node = keys.names.text(keys.names.components(key.identity)[-1])
    face.answers[home.network.report(node)] = sign_report(home, key, report(node, **facts))


def put_service(home: Home, name: str = "web", replicas: int = 1) -> None:
    home.store.publish("img:1", codec.encode(Publication("img:1", BLOB, (BLOB,))), NOW)
    wanted = ServiceFile.model_validate({"name": name, "image": "img:1", "replicas": replicas})
    deploy(home.store, home.authority, wanted, NOW)


def head_of(home: Home) -> Head | None:
    row = home.store.head()
    return None if row is None else codec.decode(Head, keys.parse(row.wire).content)


def test_reports_become_a_head_that_is_served(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployed service is placed on the node whose report came, and the head answers an Interest."""
    key = home.enrol("n1")
    put_service(home)

    async def main() -> None:
        faces: list[Face] = []
        async with running(home, monkeypatch, faces) as controller:
            await until(lambda: faces and home.network.controller in faces[0].registered)
            answer(home, faces[0], key)
            await until(lambda: (head := head_of(home)) and head.sections)
            row = home.store.head()
            assert row is not None
            await until(lambda: controller.application.heads.find(home.network.head, True) == row.wire)
            wire = await faces[0].ask(home.network.head, can_be_prefix=True)
            assert wire is not None and codec.decode(Head, keys.parse(wire).content) == head_of(home)
            spec = await faces[0].ask(home.network.provider("main"), can_be_prefix=True)
            assert spec == home.store.services()[0].wire
            status = await ask(home, command="status")
            assert status["connected"] and status["live"] == ["n1"]

    asyncio.run(main())


def test_deployment_takes_effect_at_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """`refresh` decides on what is new in the database and says in which head."""
    key = home.enrol("n1")

    async def main() -> None:
        faces: list[Face] = []
        async with running(home, monkeypatch, faces) as controller:
            await until(lambda: faces)
            answer(home, faces[0], key)
            await until(lambda: controller.engine._nodes)
            first = head_of(home)
            assert first is not None
            put_service(home)
            result = await ask(home, command="refresh", why="web deployed")
            assert result == {"head": [1, first.version + 1], "changed": True}
            assert await ask(home, command="refresh") == {"head": result["head"], "changed": False}
            row = home.store.head()
            assert row is not None and row.why == "web deployed"

    asyncio.run(main())


def test_silent_head_is_replaced(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that misses three reports loses its services to one that is heard."""
    nodes = {name: home.enrol(name) for name in ("n1", "n2", "n3")}
    put_service(home)

    async def main() -> None:
        faces: list[Face] = []
        async with running(home, monkeypatch, faces):
            await until(lambda: faces)
            sequence = 1
            for key in nodes.values():
                answer(home, faces[0], key, sequence=1, interval_s=0.1)
            await ask(home, command="refresh")
            await until(lambda: home.store.decisions() and len(placed(home)) == 1)
            (first,) = placed(home)
            del faces[0].answers[home.network.report(first)]
            deadline = time.monotonic() + 5
            while placed(home) in ({first}, set()) and time.monotonic() < deadline:
                sequence += 1
                for name, key in nodes.items():
                    if name != first:
                        answer(home, faces[0], key, sequence=sequence, interval_s=0.1)
                await asyncio.sleep(0.05)
            assert len(placed(home)) == 1 and first not in placed(home)

    asyncio.run(main())


def placed(home: Home) -> set[str]:
    from gateway.protocol.messages import Section

    return {h.node for d in home.store.decisions() for h in codec.decode(Section, d.section).heads}


def test_raised_epoch_is_served_at_once_and_after_a_restart(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The anchor's statement is there for whoever gets a head of the new epoch."""

    async def main() -> None:
        faces: list[Face] = []
        async with running(home, monkeypatch, faces):
            await until(lambda: faces and home.network.controller in faces[0].registered)
            home.authority.raise_epoch(2)
            assert (await ask(home, command="refresh"))["head"] == [2, 1]
            wire = await faces[0].ask(home.network.epoch(2))
            assert wire is not None and home.authority.trust.verify(wire).name == home.network.epoch(2)
        faces.clear()
        async with running(home, monkeypatch, faces):
            await until(lambda: faces and home.network.controller in faces[0].registered)
            assert await faces[0].ask(home.network.epoch(2)) == wire

    asyncio.run(main())


def test_node_that_does_not_answer_at_first_is_asked_again_soon(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that has just enrolled is heard within seconds of its first answer, not after the interval of reports."""
    key = home.enrol("n1")

    async def main() -> None:
        faces: list[Face] = []
        async with running(home, monkeypatch, faces, 30.0) as controller:
            await until(lambda: (row := home.store.node("n1")) and "no answer" in row.problem)
            answer(home, faces[0], key)
            await until(lambda: controller._view().reports)

    asyncio.run(main())


def test_hours_that_are_over_are_kept(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that starts makes up for the hour that ended while none ran, and placement counts on what it says."""
    now = time.time()
    for node in ("n1", "n2"):
        home.store.add_node(node, b"", now - 86400)
    for at in range(8):
        told = report("n1", {"n2": 5.0}, sequence=at, interval_s=600.0)
        home.store.save_report("n1", "b1", at, codec.encode(told), now - now % 3600 - 3600 * at - 60)

    async def main() -> None:
        faces: list[Face] = []
        async with running(home, monkeypatch, faces, 30.0) as controller:
            history = controller.engine.history
            await until(lambda: history.low_rates(now) == {("n2", "n1"): 5.0})
            assert history.availability(now)["n2"] == 0.0

    asyncio.run(main())


def test_damaged_epoch_statement_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon goes on with the file's name among its problems."""
    (home.settings.state_dir / "epoch.ndn").write_bytes(b"x")

    async def main() -> None:
        faces: list[Face] = []
        async with running(home, monkeypatch, faces) as controller:
            await until(lambda: "epoch.ndn" in controller.problem)

    asyncio.run(main())


def test_gateway_that_goes_away_is_found_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the face closed everything is registered at the next one, and the daemon says what it waits for."""

    async def main() -> None:
        faces: list[Face] = []
        async with running(home, monkeypatch, faces) as controller:
            await until(lambda: faces and faces[0].registered)
            for at in range(3):
                faces[at].gone.set()
                await until(lambda at=at: len(faces) == at + 2 and home.network.controller in faces[-1].registered)  # type: ignore[misc]
            faces[3].gone.set()
            await until(lambda: "no forwarder" in controller.problem)
            assert not (await ask(home, command="status"))["connected"]

    asyncio.run(main())


def test_bad_reports_and_a_failing_database_take_nothing_down(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forged reports become the node's problem; while the database fails the daemon serves on and recovers."""
    good, other = home.enrol("n1"), home.enrol("n2")

    async def main() -> None:
        faces: list[Face] = []
        async with running(home, monkeypatch, faces, 0.1) as controller:
            await until(lambda: faces)
            face = faces[0]
            face.answers[home.network.report("n1")] = other.sign(home.network.report("n1"), b"")
            face.answers[home.network.report("n2")] = b"\x06\x00"
            await until(lambda: all(home.store.node(n).problem for n in ("n1", "n2")))  # type: ignore[union-attr]
            store = controller.intake._store
            monkeypatch.setattr(store, "save_report", fail)
            answer(home, face, good)
            await until(lambda: "disk" in controller.problem)
            monkeypatch.undo()
            await until(lambda: controller._view().reports)
            status = await ask(home, command="status")
            assert status["live"] == ["n1"] and status["problem"] == ""

    def fail(*_: object) -> None:
        raise ControllerError("disk I/O error")

    asyncio.run(main())


def test_image_is_published_by_the_running_daemon(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """`publish` over the control socket stores the image; a bad one is refused by name."""
    archive = tmp_path / "hello.tar"
    archive.write_bytes(fakes.tar(fakes.layout((b"layer",))))

    async def main() -> None:
        faces: list[Face] = []
        async with running(home, monkeypatch, faces) as controller:
            result = await ask(home, command="publish", path=str(archive))
            assert result["reference"] == "hello:1" and controller.blobs.has(bytes.fromhex(result["sha256"]))
            assert home.store.publication("hello:1") is not None
            with pytest.raises(ControllerError, match="no-such-file"):
                await ask(home, command="publish", path=str(tmp_path / "no-such-file"))
            with pytest.raises(ControllerError, match="platform 'x'"):
                await ask(home, command="publish", path=str(archive), platform="x")

    asyncio.run(main())


def test_reload_takes_new_settings_and_keeps_the_old_when_they_are_wrong(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGHUP reads the file again; every mistake in it is logged and changes nothing."""

    async def main() -> None:
        faces: list[Face] = []
        async with running(home, monkeypatch, faces) as controller:
            text = home.settings.path.read_text()
            home.settings.path.write_text(text + "\toption report_interval '7s'\n")
            await controller.reload()
            assert controller.network_state.interval_s == 7.0
            home.settings.path.write_text(text + "\toption report_interval 'soon'\n")
            await controller.reload()
            assert controller.network_state.interval_s == 7.0 and "soon" in caplog.text

    asyncio.run(main())


def test_cancellation_is_not_lost_beside_an_event() -> None:
    """A stop that comes in the same moment as news stops the daemon all the same."""

    async def main() -> bool:
        event = asyncio.Event()

        async def job() -> None:
            while True:
                await daemon._wait(event, 60.0)

        task = asyncio.ensure_future(job())
        await asyncio.sleep(0.01)
        event.set()
        task.cancel()
        await asyncio.wait([task], timeout=1.0)
        return task.cancelled()

    assert asyncio.run(main())


# --- real processes ------------------------------------------------------------------------------------------


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=Path(__file__).parents[2], stderr=subprocess.PIPE
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


@pytest.fixture
def open_home() -> Iterator[Home]:
    """A home in a directory that a gateway may enter that was started by root and became another user."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        made = fakes.make_home(Path(directory) / "c")
        yield made
        made.store.close()


def test_controller_beside_a_real_gateway(open_home: Home) -> None:
    """With a gateway that starts later, the controller hears its node, serves a file, and ends soon after SIGTERM."""
    home = open_home
    directory = home.settings.path.parent
    with (directory / "picasso").open("a") as file:
        file.write("\nconfig executor 'executor'\n\tlist runtime 'none'\n\nconfig monitor\n\toption interval '1s'\n")
    with home.settings.path.open("a") as file:
        file.write("\toption report_interval '1s'\n")
    socket = workspace.control_path(home.settings)
    with process("controller", "run", "--config", str(home.settings.path)) as controller:
        wait_for(socket.exists, controller)
        with process("gateway", "run", "--config", str(directory / "picasso")) as gateway:
            wait_for(lambda: control.ask(socket, {"command": "status"})["live"] == ["origin"], controller, gateway)
            content = os.urandom(100_000)
            (directory / "file").write_bytes(content)
            published = control.ask(socket, {"command": "publish", "path": str(directory / "file")})
            fetch = ["fetch", published["name"], "-o", str(directory / "copy"), "--config", str(directory / "picasso")]
            with process("gateway", *fetch) as fetching:
                assert fetching.wait(20) == 0
            assert (directory / "copy").read_bytes() == content
        controller.send_signal(signal.SIGHUP)
        started = time.monotonic()
        controller.terminate()
        assert controller.wait(10) == 0 and time.monotonic() - started < 5
    assert not socket.exists()


def wait_for(check: Callable[[], bool], *processes: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while not check():
        for each in processes:
            assert each.poll() is None, each.communicate()[1].decode()
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.1)


def test_second_daemon_on_the_same_state_is_refused(home: Home) -> None:
    """The message names the lock, and the first one is not disturbed."""
    with (
        workspace.repository_lock(home.settings),
        process("controller", "run", "--config", str(home.settings.path)) as second,
    ):
        assert second.wait(20) == 1
        assert second.stderr is not None and b"repository.lock is held" in second.stderr.read()


def test_publishing_waits_for_a_daemon_that_is_starting(tmp_path: Path, home: Home) -> None:
    """While somebody holds the repository and nobody answers, publishing waits; then it goes on by itself."""
    (tmp_path / "file").write_bytes(b"content")
    command = ("controller", "publish", "--raw", str(tmp_path / "file"), "--config", str(home.settings.path))
    with contextlib.ExitStack() as starting:
        starting.enter_context(workspace.repository_lock(home.settings))
        with process(*command) as publishing:
            time.sleep(2.0)
            assert publishing.poll() is None, publishing.communicate()[1].decode()
            starting.close()
            assert publishing.wait(20) == 0
