"""`picasso-gateway` as its owner meets it: run, check, status, reload, stop, and what goes wrong."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from gateways import GatewayProcess, neighbor, route, wait_for

Make = Callable[..., GatewayProcess]


def test_two_gateways_measure_their_link_and_ignore_its_configured_rate_of_the_other_end(make_gateway: Make) -> None:
    """A gateway that states 400 Mbit/s for a link that its peer shapes to 8 reports 8."""
    one, two = make_gateway("one"), make_gateway("two")
    one.configure(neighbor("two", two.uri, rate="400M"))
    two.configure(neighbor("one", one.uri, rate="8M"))
    one.start()
    two.start()

    def measured() -> list[dict[str, object]]:
        return [row for row in one.ask("links") if row["node"] == "two" and row["rx_source"] == "probe"]

    row = wait_for(measured, 30, "a measurement")[0]
    assert 6.4 < row["rx_mbps"] < 9.6
    assert row["neighbor"] == "two"


def test_stop_is_clean_and_fast(make_gateway: Make) -> None:
    """SIGTERM ends a gateway in under five seconds with status 0 and leaves no socket behind."""
    gateway = make_gateway("one").start()
    assert gateway.stop() < 5.0
    assert gateway.process is not None and gateway.process.returncode == 0
    assert not list((gateway.directory / "run").glob("*.sock"))


def test_reload_takes_new_neighbours_and_routes_and_keeps_connections(make_gateway: Make) -> None:
    """SIGHUP puts a new route in force; the face that did not change stays; a broken file changes nothing."""
    one, two = make_gateway("one"), make_gateway("two")
    two.start()
    one.configure(neighbor("two", two.uri))
    one.start()
    before = wait_for(lambda: [f for f in one.ask("faces") if f["neighbor"] == "two" and f["up"]], what="the face")
    one.configure(neighbor("two", two.uri) + route("/new", "two", 5))
    os.kill(one.process.pid, signal.SIGHUP)
    rows = wait_for(lambda: [r for r in one.ask("routes") if r["prefix"] == "/new"], what="the route")
    assert (rows[0]["neighbor"], rows[0]["cost"]) == ("two", 5)
    one.config.write_text("config gateway 'gateway'\n\toption page 'nonsense'\n")
    os.kill(one.process.pid, signal.SIGHUP)
    wait_for(lambda: "goes on with what it had" in one.log.read_text(), what="the refusal")
    after = [f for f in one.ask("faces") if f["neighbor"] == "two"]
    assert after[0]["id"] == before[0]["id"] and after[0]["up"]
    assert [r for r in one.ask("routes") if r["prefix"] == "/new"]


def test_check_lists_every_error_with_its_line(make_gateway: Make) -> None:
    """All that is wrong with a file is told at once, each with its line, and `run` refuses it."""
    gateway = make_gateway("one", "\nconfig neighbor 'x'\n\toption uri 'tcp4://'\n\toption cost 'many'\n")
    lines = gateway.config.read_text().splitlines()
    checked = gateway.call("check")
    assert checked.returncode == 2
    for wrong in ("option uri 'tcp4://'", "option cost 'many'"):
        number = lines.index("\t" + wrong) + 1
        assert f":{number}:" in checked.stdout
    assert "2 errors" in checked.stdout
    assert gateway.call("run").returncode == 2


def test_a_port_in_use_is_named(make_gateway: Make) -> None:
    """A gateway that can't listen says where and why, and leaves nothing running."""
    gateway = make_gateway("one")
    with socket.socket() as taken:
        taken.bind((gateway.address, 6363))
        taken.listen()
        result = gateway.call("run", timeout_s=20)
    assert result.returncode == 1
    assert f"tcp4://{gateway.address}:6363" in result.stderr and "in use" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unreachable_neighbour_does_not_matter(make_gateway: Make) -> None:
    """A gateway whose neighbour is away runs, says that the face is down, and connects when it comes."""
    one, two = make_gateway("one"), make_gateway("two")
    one.configure(neighbor("two", two.uri))
    one.start()
    assert [f["up"] for f in one.ask("faces") if f["neighbor"] == "two"] == [False]
    two.start()
    wait_for(lambda: [f for f in one.ask("faces") if f["neighbor"] == "two" and f["up"]], what="the connection")


def test_random_bytes_on_every_face(make_gateway: Make) -> None:
    """Noise on unix, TCP and UDP is counted and dropped; the gateway goes on answering."""
    gateway = make_gateway("one").start()
    noise = random.Random(7)
    for _ in range(20):
        for family, kind, address in (
            (socket.AF_UNIX, socket.SOCK_STREAM, str(gateway.unix)),
            (socket.AF_INET, socket.SOCK_STREAM, (gateway.address, 6363)),
            (socket.AF_INET, socket.SOCK_DGRAM, (gateway.address, 6363)),
        ):
            with socket.socket(family, kind) as connection:
                connection.connect(address)
                # It may close a stream that makes no sense before all was sent.
                with contextlib.suppress(ConnectionError):
                    connection.sendall(noise.choice([b"", b"\x05", b"\x06\xfd\x20"]) + noise.randbytes(600))
    wait_for(lambda: gateway.ask("status")["forwarder"]["undecodable"] > 0, what="dropped packets")
    assert gateway.process is not None and gateway.process.poll() is None


def test_json_and_tables_of_every_dataset(make_gateway: Make) -> None:
    """Every dataset prints as JSON and as text; an unknown command on the socket gets an error, not silence."""
    gateway = make_gateway("one").start()
    for dataset in ("status", "services", "links", "faces", "routes", "cache", "wants"):
        assert json.loads(gateway.call(dataset, "--json").stdout) is not None
        assert gateway.call(dataset).stdout.strip()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(gateway.directory / "run" / "control.sock"))
        connection.sendall(b'{"command": "reboot"}\nnonsense\n{"command": "status"}\n')
        answers = [json.loads(connection.makefile("rb").readline()) for _ in range(1)]
    assert answers[0]["ok"] is False and "reboot" in answers[0]["error"]


def test_nobody_answers(make_gateway: Make) -> None:
    """Asking a gateway that does not run says so and how to start it."""
    result = make_gateway("one").call("status")
    assert result.returncode == 1
    assert "picasso-gateway run" in result.stderr


def test_the_page_of_a_plain_forwarder(make_gateway: Make) -> None:
    """A gateway in no network has a page all the same."""
    gateway = make_gateway("one").start()
    with urllib.request.urlopen(f"http://{gateway.address}:8080/", timeout=5) as answer:
        assert answer.status == 200 and b"one" in answer.read()


@pytest.mark.parametrize("state", ["identity.key", "anchor.ndn", "boot_counter"])
def test_a_damaged_state_file_is_named_and_kept(make_gateway: Make, state: str) -> None:
    """A state file that makes no sense is reported by name in `status`; the gateway runs and forwards."""
    gateway = make_gateway("one")
    path = gateway.directory / "state" / state
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x00damaged")
    gateway.start()
    time.sleep(0.2)
    problems = gateway.ask("status")["problems"]
    assert any(state in name for name in problems), problems
    kept: list[Path] = list(path.parent.glob(state + "*"))
    assert any(p.read_bytes() == b"\x00damaged" for p in kept)
