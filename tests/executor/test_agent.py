"""The executor as a real process with real containers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from executor_world import World, as_user, wait_until

from gateway.executor.client import ExecutorError
from gateway.executor.runtimes.processes import Process
from gateway.protocol.messages import HealthCheck, Port


def test_a_service_runs_and_answers_at_the_gateways_address(world: World, gateway) -> None:
    """What a decision assigns is unpacked, started and answers over HTTP with the node's name and the image's nonce."""
    g = gateway().start()
    g.apply(world.decide([world.sign_spec(g.spec(nonce="n0nce"))]))
    status = g.wait_for("running", health="healthy")
    answer = g.get()
    assert (answer["service"], answer["node"], answer["nonce"]) == ("hello", "n1", "n0nce")
    assert status.ports == (8000,) and status.generation == 1 and status.memory_bytes > 0
    assert b"serving on port 8080" in asyncio.run(g.client.logs("hello"))


def test_a_stop_request_ends_everything_within_five_seconds(world: World, gateway) -> None:
    """After the request `stop` no process of the gateway is left."""
    g = gateway().start()
    g.apply(world.decide([world.sign_spec(g.spec())]))
    g.wait_for("running")
    begin = time.monotonic()
    asyncio.run(g.client.stop())
    assert g.process.wait(5) == 0 and time.monotonic() - begin < 5
    assert g.processes() == []


def test_a_spent_token_is_taken_out_of_the_configuration(gateway) -> None:
    """The request `forget-token` removes the token for a network-facing process that may not write the file."""
    g = gateway().start()
    path = g.settings.path
    path.write_text("# mine\nconfig gateway 'gateway'\n\toption token 'x'\n\toption node 'n1'\n")
    asyncio.run(g.client.forget_token())
    assert path.read_text() == "# mine\nconfig gateway 'gateway'\n\toption node 'n1'\n"
    path.unlink()
    with pytest.raises(ExecutorError, match=path.name):
        asyncio.run(g.client.forget_token())


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_services_outlive_the_executor_and_are_adopted(world: World, gateway, end: str) -> None:
    """A service goes on when its executor ends or is killed, and the next one adopts it without a restart."""
    g = gateway().start()
    g.apply(world.decide([world.sign_spec(g.spec())]))
    first = g.wait_for("running")
    started = g.get()["started"]
    getattr(g, end)()
    assert g.get()["started"] == started
    g.start()
    second = g.wait_for("running")
    assert (second.started, second.restarts) == (first.started, 0) and g.get()["started"] == started
    asyncio.run(g.client.stop())
    assert g.processes() == []


def test_a_service_starts_from_local_disk_after_everything_was_lost_but_the_disk(world: World, gateway) -> None:
    """Killed with all it started, its run directory removed, nobody to talk to: the service is back by itself."""
    g = gateway().start()
    g.apply(world.decide([world.sign_spec(g.spec())]))
    g.wait_for("running")
    before = g.get()
    g.kill_everything()
    shutil.rmtree(g.settings.gateway.run_dir)
    g.start()
    g.wait_for("running", health="healthy")
    after = g.get()
    assert after["started"] > before["started"] and after["nonce"] == before["nonce"]


def test_containers_whose_run_directory_is_lost_are_replaced(world: World, gateway) -> None:
    """A container that nothing is known of any more, still holding its port, is ended and started anew."""
    g = gateway().start()
    g.apply(world.decide([world.sign_spec(g.spec())]))
    g.wait_for("running")
    before = g.get()
    g.kill()
    shutil.rmtree(g.settings.gateway.run_dir)
    g.start()
    g.wait_for("running", health="healthy")
    assert g.get()["started"] > before["started"]


@pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")
def test_a_container_without_shim_and_directory_is_ended(world: World, gateway) -> None:
    """Executor and shim are killed and the run directory is lost: the next executor finds the container and ends it."""
    g = gateway().start()
    g.apply(world.decide([world.sign_spec(g.spec())]))
    g.wait_for("running")
    shim, init = g.processes()[:2]
    lost = Process.of(init)
    g.kill()
    os.kill(shim, signal.SIGKILL)
    shutil.rmtree(g.settings.gateway.run_dir)
    assert lost.alive and len(g.groups()) > 0
    g.settings.services_dir.joinpath("desired.cbor").unlink()
    g.start()
    wait_until(lambda: not lost.alive, 5)
    assert g.groups() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")
def test_no_control_group_is_left_behind(world: World, gateway) -> None:
    """After a stop, after a death, and after all was killed and a new executor found nothing to run, there is none."""
    g = gateway().start()
    g.apply(world.decide([world.sign_spec(g.spec())]))
    g.wait_for("running")
    os.kill(g.processes()[1], signal.SIGKILL)
    g.wait_for("running", restarts=1)
    asyncio.run(g.client.stop())
    assert g.groups() == []
    g.start()
    g.wait_for("running")
    g.kill_everything()
    assert g.groups() != []
    g.settings.services_dir.joinpath("desired.cbor").unlink()
    g.start()
    wait_until(lambda: g.groups() == [], 5)


def test_reload_takes_the_policy_of_the_file_and_refuses_a_broken_one(world: World, gateway) -> None:
    """What the new policy refuses is stopped; a file with an error changes nothing and the error names its line."""
    g = gateway().start()
    g.apply(world.decide([world.sign_spec(g.spec())]))
    g.wait_for("running", health="healthy")
    g.settings.path.write_text("config policy 'policy'\n\tlist allow_port 'x'\n")
    with pytest.raises(ExecutorError, match="config:2: error"):
        asyncio.run(g.client.reload())
    assert g.service().state == "running"
    g.settings.path.write_text("config executor 'executor'\n\toption memory '1M'\n")
    asyncio.run(g.client.reload())
    assert "1 MiB are left" in g.wait_for("refused").reason
    wait_until(lambda: g.processes() == [], 5)


def test_a_port_of_the_gateway_itself_is_refused(world: World, gateway) -> None:
    """A service may not have the port of the gateway's own page, whatever the owner allows."""
    g = gateway()
    g.settings = replace(g.settings, gateway=replace(g.settings.gateway, page=(g.address, 8000)))
    g.start()
    g.apply(world.decide([world.sign_spec(g.spec())]))
    assert "port 8000 is taken by this gateway itself (gateway.page)" in g.wait_for("refused").reason


def test_a_closed_port_inside_is_named(world: World, gateway) -> None:
    """When the container listens on another port than the check asks, the reason says so in plain words."""
    g = gateway().start()
    g.apply(world.decide([world.sign_spec(g.spec(health=HealthCheck(path="/", port=81, interval_s=1.0)))]))
    text = "nothing listens on port 81 inside the container"
    wait_until(lambda: g.service() and g.service().reason == text, 5, lambda: str(g.service()))


def test_what_fails_verification_changes_nothing(world: World, gateway) -> None:
    """A wrongly signed decision and an older one are refused with their reason; the service does not notice."""
    g = gateway().start()
    wire = world.sign_spec(g.spec())
    g.apply(world.decide([wire], version=5))
    g.wait_for("running", health="healthy")
    started = g.get()["started"]
    for desired, text in (
        (world.decide([wire], version=6, key=world.provider_key), "may not say this"),
        (world.decide([], version=4), "older than the stored one"),
        (replace(world.decide([]), head=b"junk"), "not a Data packet"),
    ):
        with pytest.raises(ExecutorError, match=text):
            g.apply(desired)
    assert g.get()["started"] == started and (g.status().epoch, g.status().version) == (1, 5)
    g.kill()
    g.start()
    with pytest.raises(ExecutorError, match="older than the stored one"):
        g.apply(world.decide([], version=4))
    assert g.get()["started"] == started


def test_an_update_waits_for_its_blobs_and_then_replaces_the_service(world: World, gateway) -> None:
    """The old generation answers until the new image is complete; then the new one does, on the same port."""
    g = gateway().start()
    g.apply(world.decide([world.sign_spec(g.spec(nonce="old"))]))
    g.wait_for("running", health="healthy")
    spec = g.spec(version=2, nonce="new")
    page = g.blob_dir / "blobs" / "sha256" / spec.blobs[-1].sha256.hex()
    content = page.read_bytes()
    page.unlink()
    g.apply(world.decide([world.sign_spec(spec)], version=2))
    status = g.wait_for("running", reason="generation 2: 1 of 4 blobs have not arrived")
    assert status.generation == 1 and g.get()["nonce"] == "old"
    page.write_bytes(content)
    g.wait_for("running", generation=2, health="healthy")
    assert g.get()["nonce"] == "new"


def test_an_image_whose_bytes_do_not_match_is_refused_and_the_old_one_goes_on(world: World, gateway) -> None:
    """A damaged blob of the new generation is named; the old generation is not touched."""
    g = gateway().start()
    g.apply(world.decide([world.sign_spec(g.spec(nonce="old"))]))
    g.wait_for("running", health="healthy")
    spec = g.spec(version=2, nonce="new")
    page = g.blob_dir / "blobs" / "sha256" / spec.blobs[-1].sha256.hex()
    page.write_bytes(page.read_bytes()[:-9] + bytes(9))
    g.apply(world.decide([world.sign_spec(spec)], version=2))
    wait_until(lambda: page.name[:12] in g.service().reason, 5, lambda: str(g.service()))
    assert g.service().state == "running" and g.get()["nonce"] == "old"


def test_services_come_and_go_with_decisions(world: World, gateway) -> None:
    """A second service joins the first on its own port; one that is decided away ends and its port is free."""
    g = gateway().start()
    hello = world.sign_spec(g.spec("hello", nonce="h"))
    maps = world.sign_spec(g.spec("maps", nonce="m", ports=(Port(8080, 8001),)))
    g.apply(world.decide([hello, maps], version=1))
    g.wait_for("running", "hello")
    g.wait_for("running", "maps")
    assert (g.get()["service"], g.get(port=8001)["service"]) == ("hello", "maps")
    g.apply(world.decide([maps], version=2))
    wait_until(lambda: g.service("hello") is None, 5)
    with pytest.raises(OSError):
        g.get()
    assert g.get(port=8001)["nonce"] == "m"


@pytest.mark.parametrize(
    ("options", "fields", "text"),
    [
        ({"providers": ("bob",)}, {}, "the owner does not allow the provider 'ann'"),
        ({}, {"ports": (Port(8080, 80),)}, "the owner does not allow the port 80"),
        ({"memory_bytes": 32 << 20}, {}, "it asks for 64 MiB of memory, 32 MiB are left"),
        ({"runtimes": ("none",)}, {}, "the owner switched services off"),
        ({"runtimes": ("docker",)}, {}, "no container runtime: install crun"),
    ],
)
def test_the_owners_policy_has_the_last_word(world: World, gateway, options: dict, fields: dict, text: str) -> None:
    """What the owner does not allow, or the machine cannot do, is `refused` with the reason and nothing is started."""
    g = gateway(**options).start()
    g.apply(world.decide([world.sign_spec(g.spec(**fields))]))
    status = g.wait_for("refused")
    assert text in status.reason and g.processes() == []


def test_a_service_that_dies_is_back_and_the_count_says_so(world: World, gateway) -> None:
    """A killed service is restarted after about a second; restarts and the exit code are told."""
    g = gateway().start()
    g.apply(world.decide([world.sign_spec(g.spec())]))
    g.wait_for("running", health="healthy")
    before = g.get()["started"]
    init = g.processes()[1]
    begin = time.monotonic()
    os.kill(init, signal.SIGKILL)
    wait_until(lambda: g.service().state == "back-off" and g.service().exit_code == 137, 2, lambda: str(g.service()))
    g.wait_for("running", restarts=1, health="healthy")
    assert 0.7 < time.monotonic() - begin < 4 and g.get()["started"] > before


def test_a_killed_shim_does_not_leave_its_service_behind(world: World, gateway) -> None:
    """Without its shim a service cannot be reached: it is ended and started anew with one."""
    g = gateway().start()
    g.apply(world.decide([world.sign_spec(g.spec())]))
    g.wait_for("running", health="healthy")
    shim = g.processes()[0]
    os.kill(shim, signal.SIGKILL)
    g.wait_for("running", restarts=1, health="healthy")
    assert g.get()["node"] == "n1"


def test_a_port_in_use_is_named(world: World, gateway) -> None:
    """When something else listens on the service's port, the status says so; once it is free the service comes."""
    g = gateway()
    with socket.create_server((g.address, 8000)):
        g.start()
        g.apply(world.decide([world.sign_spec(g.spec())]))
        wait_until(lambda: g.service() and "Address already in use" in g.service().reason, 5, lambda: str(g.service()))
        assert f"cannot listen on {g.address} port 8000" in g.service().reason
    g.wait_for("running", health="healthy")


def test_an_unhealthy_service_is_restarted_with_the_reason(world: World, gateway) -> None:
    """A path that is not there is told with its status; the service is restarted after its grace and failures."""
    g = gateway().start()
    health = HealthCheck(path="/missing", port=8080, interval_s=1.0, grace_s=0.0, failures=2)
    g.apply(world.decide([world.sign_spec(g.spec(health=health))]))
    wait_until(lambda: g.service() and g.service().restarts >= 1, 8, lambda: str(g.service()))
    assert "GET /missing gave status 404" in g.service().reason


def test_a_command_is_a_health_check_too(world: World, gateway) -> None:
    """A command inside decides: exit code 0 is healthy."""
    g = gateway().start()
    check = HealthCheck(command=("/bin/cat", "/www/health"), interval_s=1.0)
    g.apply(world.decide([world.sign_spec(g.spec(health=check))]))
    g.wait_for("running", health="healthy")


def test_two_gateways_on_one_host_do_not_touch_each_other(world: World, gateway) -> None:
    """The same service on two gateways is two containers; stopping one leaves the other."""
    one, two = gateway(node="n1").start(), gateway(node="n2").start()
    for g in (one, two):
        g.apply(world.decide([world.sign_spec(g.spec())], node=g.node))
        g.wait_for("running", health="healthy")
    assert (one.get()["node"], two.get()["node"]) == ("n1", "n2")
    asyncio.run(one.client.stop())
    assert one.processes() == [] and two.get()["node"] == "n2"


def test_a_second_executor_on_the_same_directories_is_refused(world: World, gateway, capfd) -> None:
    """Two executors would stop each other's services: the second ends at once and says why."""
    g = gateway().start()
    with pytest.raises(AssertionError, match="ended with 1"):
        other = type(g)(world, "n1", g.base)
        other.settings = replace(other.settings, gateway=replace(g.settings.gateway, run_dir=g.base / "run2"))
        other.client = None
        other.start()
    assert "in use by another executor" in capfd.readouterr().err


def test_a_node_without_an_anchor_says_so(world: World, gateway) -> None:
    """Before enrolment every decision is refused, because nothing can be verified."""
    g = gateway()
    (g.settings.gateway.state_dir / "anchor.ndn").unlink()
    g.start()
    with pytest.raises(ExecutorError, match="not enrolled"):
        g.apply(world.decide([]))


def test_damaged_state_is_set_aside_and_told(world: World, gateway) -> None:
    """A stored decision cut by a power failure does not stop the executor; it is kept for its owner to look at."""
    g = gateway()
    g.settings.services_dir.mkdir(parents=True, mode=0o700)
    (g.settings.services_dir / "desired.cbor").write_bytes(b"\xa1\x01")
    g.start()
    assert any("damaged" in note for note in g.status().notes)
    assert (g.settings.services_dir / "desired.cbor.damaged").exists()
    g.apply(world.decide([world.sign_spec(g.spec())]))
    g.wait_for("running")


@pytest.mark.parametrize("frame", [b"", b"\0\0", b"\xff\xff\xff\xff", b"\0\0\0\4junk", b"\0\0\0\4\xa1\x01\x61x"])
def test_random_frames_are_answered_or_dropped(world: World, gateway, frame: bytes) -> None:
    """Whatever a client sends, the next one is served."""
    g = gateway().start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(g.settings.gateway.run_dir / "executor.sock"))
        client.sendall(frame)
    assert g.status().services == ()


def test_only_the_right_users_may_speak_to_the_executor(world: World, gateway, open_directory: Path) -> None:
    """The socket is 0600, and even with an open file mode another user is refused by its credentials."""
    g = gateway(directory=open_directory / "n1").start()
    path = g.settings.gateway.run_dir / "executor.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o666)
    code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(path)!r}); print(s.recv(1000))"
    done = subprocess.run(as_user(65534, [sys.executable, "-c", code]), capture_output=True, check=False)
    assert b"user 65534 may not speak" in done.stdout, done
