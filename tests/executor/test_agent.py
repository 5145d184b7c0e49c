"""The executor as a real process with real containers."""

from __future__ import annotations

import asyncio
import shutil
import time

import pytest
from world import World


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
    """Killed with all it started, its run directory removed and with nobody to talk to, the service is back by itself."""
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
