"""A controller and gateways as processes: enrolment, content, decisions, and what must not be accepted."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

from gateways import GatewayProcess, Network, SlowLink, neighbor, route, wait_for

from controller.demo.image import build_service_image
from gateway.forwarder.endpoint import connect
from gateway.protocol import codec, keys, names
from gateway.protocol.keys import Key
from gateway.protocol.messages import Head

Make = Callable[..., GatewayProcess]


def member(
    network: Network,
    make_gateway: Make,
    node: str,
    uri: str = "",
    *,
    token: str = "",
    rate: str = "",
    executor: bool = False,
) -> GatewayProcess:
    """A gateway that joins through the controller's, with a token; `uri` is where it finds that."""
    gateway = make_gateway(node, network=network.network)
    gateway.base = gateway.base.replace(
        f"option node '{node}'", f"option node '{node}'\n\toption token '{token or network.token(node)}'"
    )
    address = f"\toption address '{gateway.address}'\n"
    gateway.configure(
        "\nconfig controller 'controller'\n\toption interval '1'\n"
        + neighbor("hub", uri or network.uri, rate=rate)
        + route(network.network, "hub")
        + (f"\nconfig executor 'executor'\n{address}" if executor else "")
    )
    return gateway.start()


def is_enrolled(gateway: GatewayProcess) -> bool:
    return bool(gateway.ask("status")["enrolled"])


def test_fifty_megabytes_arrive_byte_for_byte(network: Network, make_gateway: Make, tmp_path: Path) -> None:
    """What `publish` took in, `fetch` at another gateway brings out the same; a name nobody has is an error."""
    content = random.Random(1).randbytes(50_000_000)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    printed = network.controller("publish", "--raw", str(source)).stdout
    name = f"{network.network}/blob/{hashlib.sha256(content).hexdigest()}"
    assert name in printed
    gateway = member(network, make_gateway, "far")
    wait_for(lambda: is_enrolled(gateway), what="enrolment")
    fetched = gateway.call("fetch", name, "-o", str(target))
    assert fetched.returncode == 0, fetched.stderr
    assert target.read_bytes() == content
    missing = gateway.call("fetch", f"{network.network}/blob/{'0' * 64}", "-o", str(tmp_path / "none"))
    assert missing.returncode == 1 and "0000" in missing.stderr
    assert not (tmp_path / "none").exists()


def test_enrolment_wipes_its_token_and_a_token_is_good_once(network: Network, make_gateway: Make) -> None:
    """The token is gone from the file after its use; a second gateway with the same one is refused with the reason."""
    token = network.token("far")
    gateway = member(network, make_gateway, "far", token=token)
    wait_for(lambda: is_enrolled(gateway), what="enrolment")
    wait_for(lambda: token not in gateway.config.read_text(), what="the token's end")
    gateway.stop()
    for path in (gateway.directory / "state").iterdir():
        if path.is_file():
            path.unlink()
    text = gateway.config.read_text()
    gateway.config.write_text(text.replace("option node 'far'", f"option node 'far'\n\toption token '{token}'"))
    gateway.start()
    refusal = wait_for(lambda: "refused" in gateway.ask("status")["enrolment"], what="a refusal")
    assert refusal and not is_enrolled(gateway)


SERVICE = """
name: hello
image: hello:1
replicas: 1
ports: ["8081:8080"]
health: {path: /health, port: 8080}
constraints: {exclude: [hub]}
"""


def test_placement_follows_what_was_measured(network: Network, make_gateway: Make, tmp_path: Path) -> None:
    """A false `rate` fools nobody: the link is known with what it carries, and the service goes to the better node.

    hub ═══════════════════════ fast
     ╚═ relay of 6 Mbit/s ═════ slow      `slow` states 900 Mbit/s for its link, `fast` states 200
    """
    relay = SlowLink((network.address, 6363), 6.0)
    fast = member(network, make_gateway, "fast", network.uri, rate="200M", executor=True)
    slow = member(network, make_gateway, "slow", relay.uri, rate="900M", executor=True)

    def links() -> dict[tuple[str, str], float]:
        rows = json.loads(network.controller("links", "--json").stdout)
        rows = rows["links"] if isinstance(rows, dict) else rows
        return {(row["from"], row["to"]): row["mbps"] for row in rows if row["mbps"]}

    known = wait_for(lambda: (k := links()) and {("slow", "hub"), ("fast", "hub")} <= set(k) and k, 60, "the reports")
    assert 4.8 < known["slow", "hub"] < 7.2
    assert known["fast", "hub"] > 50
    build_service_image(tmp_path / "hello.tar", "hello", "nonce-1")
    (tmp_path / "hello.yaml").write_text(SERVICE)
    network.controller("publish", str(tmp_path / "hello.tar"), "--name", "hello:1")
    network.controller("deploy", str(tmp_path / "hello.yaml"))

    def heads() -> list[dict[str, object]]:
        decided = json.loads(network.controller("placement", "--json").stdout)["services"]
        return decided[0]["heads"] if decided else []

    head = wait_for(heads, 30, "a placement")[0]
    assert head["node"] == "fast", head
    state = wait_for(lambda: [s for s in fast.ask("services") if s["health"] == "healthy"], 30, "a healthy service")
    assert state[0]["name"] == "hello"
    with urllib.request.urlopen(f"http://{slow.address}:8080/hello/", timeout=10) as answer:
        body = answer.read()
    assert b"nonce-1" in body and b"fast" in body
    relay.close()


def test_what_fails_verification_is_visible_and_changes_nothing(network: Network, make_gateway: Make) -> None:
    """A head signed by a node is rejected, counted in `status` with its reason, and the decision in force stays."""
    gateway = member(network, make_gateway, "far")
    wait_for(lambda: is_enrolled(gateway) and gateway.ask("status")["decision"], what="a decision")
    before = gateway.ask("status")["decision"]
    network.stop("controller")
    wires = names.Network(network.network)
    thief = Key.load(gateway.directory / "state" / "identity.key")
    forged = Head(network.network, before["epoch"], before["version"] + 5, 2e9, 3e9)
    name = wires.head_version(forged.epoch, forged.version)
    wire = thief.sign(name, codec.encode(forged), 1000)

    async def publish() -> None:
        endpoint = await connect(f"unix://{network.directory}/run/ndn.sock")
        endpoint.serve(wires.head, lambda interest: wire)
        await endpoint.register(wires.head)
        await asyncio.to_thread(wait_for, lambda: gateway.ask("status")["rejected"], 20, "a rejection")
        endpoint.close()

    asyncio.run(publish())
    status = gateway.ask("status")
    assert "may not say this" in status["last_rejection"]
    assert (status["decision"]["epoch"], status["decision"]["version"]) == (before["epoch"], before["version"])


def test_controller_in_a_blackout(network: Network, make_gateway: Make) -> None:
    """A member that starts with its network gone is a member all the same, with the last decision in force."""
    gateway = member(network, make_gateway, "far")
    stored = gateway.directory / "state" / "decision" / "decision.cbor"
    wait_for(lambda: is_enrolled(gateway) and gateway.ask("status")["decision"] and stored.exists(), what="a decision")
    gateway.stop(9)
    network.stop()
    with socket.socket() as probe:
        assert probe.connect_ex((network.address, 6363)) != 0
    gateway.start()
    assert is_enrolled(gateway)
    assert gateway.ask("status")["decision"]["source"] == "disk"


def order(gateway: GatewayProcess) -> tuple[int, int]:
    decision = gateway.ask("status")["decision"] or {"epoch": 0, "version": 0}
    return decision["epoch"], decision["version"]


async def fetch(network: Network, name: names.Name, can_be_prefix: bool = False) -> bytes:
    """What the network answers to MustBeFresh, which no cache does for an epoch's statement."""
    endpoint = await connect(f"unix://{network.directory}/run/ndn.sock")
    try:
        data = await endpoint.express(name, can_be_prefix=can_be_prefix, must_be_fresh=True, retries=2)
        return data.wire
    finally:
        endpoint.close()


def test_raised_epoch_reaches_every_gateway(network: Network, make_gateway: Make) -> None:
    """After `epoch --raise` members take heads of the new epoch, and so does who joins after a restart."""
    wires = names.Network(network.network)
    gateway = member(network, make_gateway, "far")
    wait_for(lambda: order(gateway) >= (1, 1), what="a decision")
    network.controller("epoch", "--raise")
    wait_for(lambda: order(gateway) >= (2, 1), what="a decision of epoch 2")
    assert "unproven" not in gateway.ask("status")["rejected"]
    anchor = (network.directory / "state" / "anchor.ndn").read_bytes()
    for _ in range(2):
        assert keys.parse(asyncio.run(fetch(network, wires.epoch(2)))).name == wires.epoch(2)
        assert asyncio.run(fetch(network, wires.anchor + keys.KEY, can_be_prefix=True)) == anchor
        network.stop("controller")
        network.start("controller")
        wait_for(lambda: '"connected": true' in network.controller("status", "--json", check=False).stdout)
    later = member(network, make_gateway, "later")
    wait_for(lambda: order(later) >= (2, 1), what="a decision of epoch 2 at a new member")


def test_revoked_gateway_comes_back_with_a_new_key(network: Network, make_gateway: Make) -> None:
    """It says by which head it is revoked; a new token makes a new key, with which the controller hears it again."""
    gateway = member(network, make_gateway, "far")

    def state() -> str:
        rows = json.loads(network.controller("nodes", "--json").stdout)
        return next((row["state"] for row in rows if row["node"] == "far"), "not enrolled")

    wait_for(lambda: state() == "up", 30, "the first report, soon after the enrolment")
    old = Key.load(gateway.directory / "state" / "identity.key")
    network.controller("revoke", "far")
    told = wait_for(lambda: (text := gateway.ask("status")["enrolment"]).startswith("revoked by head 1.") and text)
    assert "picasso-controller enrol far" in told and not is_enrolled(gateway)
    assert state() == "not enrolled"
    gateway.stop()
    text = gateway.config.read_text()
    token = f"option node 'far'\n\toption token '{network.token('far')}'"
    gateway.config.write_text(text.replace("option node 'far'", token))
    gateway.start()
    wait_for(lambda: is_enrolled(gateway), what="a second enrolment")
    assert Key.load(gateway.directory / "state" / "identity.key").name != old.name
    wait_for(lambda: state() == "up", what="a report signed with the new key")
    assert "option token" not in gateway.config.read_text()
