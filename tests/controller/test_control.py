import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from controller import control
from controller.control import ControlServer, NotRunning, Report
from controller.errors import ControllerError


async def echo(request: dict[str, Any], report: Report) -> Any:
    report(1, 2)
    return request["value"]


async def refuse(request: dict[str, Any], report: Report) -> Any:
    raise ControllerError("not today")


async def fail(request: dict[str, Any], report: Report) -> Any:
    raise RuntimeError("secret detail")


COMMANDS = {"echo": echo, "refuse": refuse, "fail": fail}


async def served(path: Path, *requests: dict[str, Any]) -> list[Any]:
    server = ControlServer(path, COMMANDS)
    await server.start()
    try:
        return [await asyncio.to_thread(_ask, path, request) for request in requests]
    finally:
        server.stop()


def _ask(path: Path, request: dict[str, Any]) -> Any:
    try:
        return control.ask(path, request)
    except ControllerError as error:
        return error


def test_answers_and_errors_reach_the_asker(tmp_path: Path) -> None:
    """A result comes back, an error with its text, and a bug without its details."""
    requests = ({"command": "echo", "value": [1]}, {"command": "refuse"}, {"command": "fail"}, {"command": "what"})
    answers = asyncio.run(served(tmp_path / "s", *requests))
    assert answers[0] == [1]
    assert [str(answer) for answer in answers[1:3]] == ["not today", "fail failed; the controller's log says why"]
    assert "unknown command 'what'; known are echo, fail, refuse" in str(answers[3])


def test_progress_comes_before_the_answer(tmp_path: Path) -> None:
    """A command that takes long reports as it goes."""
    seen: list[tuple[int, int]] = []

    async def main() -> Any:
        server = ControlServer(tmp_path / "s", COMMANDS)
        await server.start()
        request = {"command": "echo", "value": 7}
        result = await asyncio.to_thread(control.ask, tmp_path / "s", request, lambda *at: seen.append(at))
        server.stop()
        return result

    assert asyncio.run(main()) == 7 and seen == [(1, 2)]


def test_rubbish_closes_nothing(tmp_path: Path) -> None:
    """A line that is no request gets an error, the connection lives on, and an endless line ends it alone."""

    async def main() -> list[bytes]:
        server = ControlServer(tmp_path / "s", COMMANDS)
        await server.start()
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        answers = []
        for line in (
            b"\xff\n",
            b"[]\n",
            b"{}\n",
            b"[" * 60_000 + b"\n",
            b'{"command": ["x"]}\n',
            b'{"command": "refuse"}\n',
        ):
            writer.write(line)
            answers.append(await reader.readline())
        endless, end = await asyncio.open_unix_connection(str(tmp_path / "s"))
        end.write(b"x" * 200_000)
        assert await endless.read() == b""
        writer.write(b'{"command": "refuse"}\n')
        answers.append(await reader.readline())
        writer.close()
        end.close()
        server.stop()
        return answers

    answers = [json.loads(answer) for answer in asyncio.run(main())]
    assert all(answer["ok"] is False for answer in answers)
    assert answers[-1]["error"] == answers[-2]["error"] == "not today"


def test_socket_is_private_and_used_by_one_daemon(tmp_path: Path) -> None:
    """Only the owner may connect; a second daemon is refused; what a crash left behind is not in the way."""

    async def main() -> None:
        first = ControlServer(tmp_path / "s", COMMANDS)
        await first.start()
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
        with pytest.raises(ControllerError, match="another picasso-controller runs"):
            await ControlServer(tmp_path / "s", COMMANDS).start()
        assert first._server is not None
        first._server.close()  # as a crash does: the path stays
        again = ControlServer(tmp_path / "s", COMMANDS)
        await again.start()
        again.stop()

    asyncio.run(main())
    with pytest.raises(NotRunning):
        control.ask(tmp_path / "s", {"command": "echo"})


def test_path_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A directory that is not there, or a path too long for a socket, is in the message."""
    with pytest.raises(ControllerError, match="nowhere"):
        asyncio.run(ControlServer(tmp_path / "nowhere" / "s", COMMANDS).start())
    with pytest.raises(ControllerError, match="xxxx"):
        asyncio.run(ControlServer(tmp_path / ("x" * 120), COMMANDS).start())
