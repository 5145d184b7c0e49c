"""Enrolment against a controller's side made of the real keys and checks of gateway.protocol."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random

import pytest

from gateway import uci
from gateway.placement_client import enrolment as enrolment_module
from gateway.placement_client.enrolment import Enrolment, EnrolmentRefused
from gateway.placement_client.identity import IdentityStore
from gateway.protocol import codec, keys, names
from gateway.protocol.errors import ProtocolError
from gateway.protocol.keys import Key
from gateway.protocol.messages import EnrolReply, EnrolRequest
from gateway.protocol.trust import Token, enrol_proof

CONFIG = """# my gateway
config gateway 'gateway'
\toption network '/guifi/sants'
\toption token '{token}'
\toption node 'n1'   # on the roof
"""


class ControllerSide:
    """Gives out one token and answers for it: one use, one node, an expiry."""

    def __init__(self, world, node="n1"):
        self.world, self.node, self.secret, self.id = world, node, b"s" * 16, "t1"
        self.nonces, self.used_by, self.expired, self.requests = [], None, False, []
        self.signer = world.controller
        self.token = Token(world.network.uri, self.id, self.secret, hashlib.sha256(world.anchor_wire).digest()).format()
        world.shelf.handlers[world.network.enrol] = self.answer

    def answer(self, name, parameters):
        if name.endswith(names.component("nonce")):
            self.nonces.append(b"nonce-%d" % len(self.nonces))
            return self.signer.sign(name, self.nonces[-1], 1)
        self.requests.append(parameters)
        request = codec.decode(EnrolRequest, parameters)
        digest = names.component(hashlib.sha256(parameters).digest(), names.PARAMETERS_DIGEST)
        return self.signer.sign(name + digest, codec.encode(self.judge(request)), 1)

    def judge(self, request):
        proof = enrol_proof(self.secret, request.nonce, request.node, request.public_key)
        if request.nonce != self.nonces[-1] or not hmac.compare_digest(proof, request.proof):
            return EnrolReply(refusal="the proof does not fit the token")
        if request.node != self.node:
            return EnrolReply(refusal=f"the token is for node {self.node!r}, not for {request.node!r}")
        if self.used_by not in (None, request.public_key):
            return EnrolReply(refusal="the token was used already; make a new one")
        if self.expired:
            return EnrolReply(refusal="the token has expired; make a new one")
        self.used_by = request.public_key
        key_name = self.key_name(request.public_key)
        wire = self.world.controller.certify(key_name, request.public_key, self.world.now, 1e6, "controller")
        return EnrolReply(certificate=wire)

    def key_name(self, public_key):
        key_id = hashlib.sha256(public_key).digest()[:8]
        return self.world.network.node(self.node) + keys.KEY + names.component(key_id)


class Joining:
    """A gateway that is to join: its state directory, its configuration file and its endpoint."""

    def __init__(self, world, tmp_path, token, node="n1"):
        self.config = tmp_path / "picasso"
        self.config.write_text(CONFIG.format(token=token))
        self.store = IdentityStore(tmp_path / "state", world.network, node)
        self.endpoint = world.endpoint()
        self.enrolment = Enrolment(
            self.store,
            self.endpoint,
            token,
            self.config,
            unreachable=(world.unreachable,),
            chance=random.Random(1),
            pause_s=(0.005, 0.01),
            refused_pause_s=(0.005, 0.01),
        )

    def attempt(self):
        return asyncio.run(self.enrolment.attempt())

    async def until(self, condition):
        running = asyncio.create_task(self.enrolment.run())
        async with asyncio.timeout(5):
            while not condition() and not running.done():  # noqa: ASYNC110 - the condition is the caller's
                await asyncio.sleep(0.002)
        if running.done():
            return running.result()
        running.cancel()
        return None


@pytest.fixture
def controller(world):
    return ControllerSide(world)


@pytest.fixture
def joining(world, controller, tmp_path):
    return Joining(world, tmp_path, controller.token)


def test_a_token_makes_a_member(world, controller, joining):
    """The node ends with its own key certified, the anchor stored, and no token in the file."""
    identity = joining.attempt()
    again = joining.store.load()
    assert identity.key.name == again.key.name and again.certificate == identity.certificate
    report = identity.key.sign(world.network.report("n1"), b"report")
    assert again.trust.verify(report).content == b"report"
    assert (joining.store.directory / "anchor.ndn").read_bytes() == world.anchor_wire
    assert joining.config.read_text() == CONFIG.replace("\toption token '{token}'\n", "")
    assert joining.enrolment.state == "enrolled"


def test_the_secret_never_travels(controller, joining):
    """Whoever listens sees a proof and a public key, neither the token's secret nor the private key."""
    joining.attempt()
    sent = b"".join(a.name + (a.options.get("parameters") or b"") for a in joining.endpoint.asked)
    assert controller.secret not in sent and controller.secret.hex().encode() not in sent
    assert controller.requests


def test_another_anchor_than_the_tokens_is_not_accepted(world, controller, joining):
    """A false network of the same name cannot take the node in."""
    false = Key.generate(world.network.anchor)
    world.shelf.packets = {
        name: wire for name, wire in world.shelf.packets.items() if not name.startswith(world.anchor.name)
    }
    world.shelf.put(false.certify(false.name, false.spki, world.now, 1e6, "self"))
    with pytest.raises(ProtocolError, match="not the anchor that the token names"):
        joining.attempt()
    assert not (joining.store.directory / "anchor.ndn").exists()
    assert controller.requests == []


@pytest.mark.parametrize("who", ["provider", "stranger"])
def test_answers_that_the_controller_did_not_sign_are_not_believed(world, controller, joining, who):
    """Neither nonce nor reply counts without the controller's signature."""
    controller.signer = world.provider if who == "provider" else Key.generate(world.network.controller)
    with pytest.raises((ProtocolError, world.unreachable)):
        joining.attempt()
    assert joining.store.load() is None
    assert controller.requests == []


def test_a_reply_with_a_certificate_of_another_key_is_not_stored(world, controller, joining, tmp_path):
    """The certificate must be for the key that this node made."""
    other = Key.generate(world.network.node("n1"))
    wire = world.controller.certify(other.name, other.spki, world.now, 1e6, "controller")
    controller.judge = lambda request: EnrolReply(certificate=wire)
    with pytest.raises(ProtocolError, match="does not certify this node's key"):
        joining.attempt()
    assert joining.store.load() is None


@pytest.mark.parametrize("case", ["used", "expired", "other node"])
def test_a_refusal_is_shown_with_its_reason_and_the_token_stays(world, controller, tmp_path, case):
    """The owner reads why the token does not work, in `status`, and nothing was stored."""
    joining = Joining(world, tmp_path, controller.token, node="n2" if case == "other node" else "n1")
    controller.used_by = b"somebody else" if case == "used" else None
    controller.expired = case == "expired"
    with pytest.raises(EnrolmentRefused, match={"used": "used already", "other node": "for node 'n1'"}.get(case, case)):
        joining.attempt()
    assert asyncio.run(joining.until(lambda: joining.enrolment.state.startswith("refused: the token"))) is None
    assert joining.store.load() is None
    assert "option token" in joining.config.read_text()


def test_a_replayed_request_is_worth_nothing(world, controller, joining):
    """The proof is bound to the controller's nonce: sent again, it is refused."""
    joining.attempt()
    replayed = controller.requests[0]
    controller.answer(world.network.enrol + names.component("t1") + names.component("nonce"), None)
    wire = controller.answer(world.network.enrol + names.component("t1") + names.component("request"), replayed)
    assert codec.decode(EnrolReply, keys.parse(wire).content).refusal == "the proof does not fit the token"


def test_a_lost_reply_does_not_spend_the_token(world, controller, joining):
    """The second attempt proves the same key, to which the controller gives its certificate again."""
    judge, lost = controller.judge, []

    def lose_first(request):
        lost.append(judge(request))
        if len(lost) == 1:
            raise world.unreachable("the reply was lost")
        return lost[-1]

    controller.judge = lose_first
    with pytest.raises(world.unreachable):
        joining.attempt()
    assert joining.attempt().certificate == lost[1].certificate
    assert lost[0].refusal == lost[1].refusal == ""


def test_it_goes_on_trying_while_the_controller_cannot_be_reached(world, controller, joining):
    """A gateway that is switched on before its network waits, and joins when it can."""
    world.shelf.up = False

    async def scenario():
        assert await joining.until(lambda: len(joining.endpoint.asked) >= 4) is None
        assert joining.enrolment.state.startswith("waiting for the controller: /guifi/sants/KEY: no answer")
        world.shelf.up = True
        return await joining.until(lambda: False)

    assert asyncio.run(scenario()).node == "n1"


def test_a_token_of_an_enrolled_node_is_only_wiped(controller, joining):
    """After a power cut between the certificate and the file, no second certificate is asked for."""
    joining.attempt()
    uci_text = joining.config.read_text()
    joining.config.write_text(uci.set_option(uci_text, "gateway", "token", controller.token))
    joining.endpoint.asked.clear()
    joining.attempt()
    assert joining.endpoint.asked == []
    assert "token" not in joining.config.read_text()


def test_a_token_gives_a_revoked_node_a_new_key(controller, joining):
    """The old key and its certificate are kept aside, the new ones make a member, and the token is gone."""
    old = joining.attempt()
    joining.config.write_text(uci.set_option(joining.config.read_text(), "gateway", "token", controller.token))
    controller.used_by, asked = None, []

    async def revocation_of(key_name):
        asked.append(key_name)
        return "revoked by head 1.7"

    joining.enrolment._revocation_of = revocation_of
    new = joining.attempt()
    assert asked == [old.key.name] and new.key.name != old.key.name
    assert joining.store.load().key.name == new.key.name
    assert Key.load(joining.store.directory / "identity.key.revoked").name == old.key.name
    assert (joining.store.directory / "identity.ndn.revoked").read_bytes() == old.certificate
    assert "token" not in joining.config.read_text()
    assert joining.store.problems == {}


def test_a_new_key_is_kept_while_its_token_is_refused(controller, joining):
    """A lost reply must not spend the token for nothing: the next attempt proves the same new key."""
    old = joining.attempt()

    async def revocation_of(key_name):
        return "revoked by head 1.7" if key_name == old.key.name else ""

    joining.enrolment._revocation_of = revocation_of
    controller.used_by = b"somebody else"
    made = []
    for _ in range(2):
        with pytest.raises(EnrolmentRefused, match="used already"):
            joining.attempt()
        made.append(joining.store.load_key().name)
    assert made[0] == made[1] != old.key.name


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("rubbish", "four parts"),
        ("/guifi/sants.t1.00.00", "damaged"),
        ("/guifi/gracia.t1." + "00" * 16 + "." + "00" * 32, "for network /guifi/gracia"),
    ],
)
def test_a_token_that_cannot_be_used_is_refused_before_any_interest(world, controller, tmp_path, token, why):
    """A typing error and a token of another network are told apart, in words."""
    joining = Joining(world, tmp_path, token)
    with pytest.raises(EnrolmentRefused, match=why):
        joining.attempt()
    assert joining.endpoint.asked == []


def test_a_node_of_one_network_does_not_change_its_anchor_by_token(world, controller, joining, tmp_path):
    """Joining another network takes more than a line in a file: the old anchor must be moved away by hand."""
    joining.attempt()
    other = Joining(world, tmp_path, Token(world.network.uri, "t2", b"x" * 16, b"y" * 32).format())
    with pytest.raises(EnrolmentRefused, match="already trusts another anchor"):
        other.attempt()
    assert other.store.load() is not None


def test_damaged_identity_files_are_kept_when_a_token_renews_them(world, controller, tmp_path):
    """What could not be read is set aside under another name, never overwritten."""
    state = tmp_path / "state"
    state.mkdir()
    for name in ("identity.key", "identity.ndn", "anchor.ndn"):
        (state / name).write_bytes(b"damaged " + name.encode())
    joining = Joining(world, tmp_path, controller.token)
    joining.attempt()
    for name in ("identity.key", "identity.ndn", "anchor.ndn"):
        assert (state / f"{name}.damaged").read_bytes() == b"damaged " + name.encode()
    assert joining.store.load() is not None


def test_a_configuration_that_cannot_be_written_is_a_problem_and_no_failure(controller, joining):
    """The node is in; the owner is told to remove the spent token by hand."""
    joining.config.write_bytes(b"config gateway\n\toption token 'unclosed\n")
    assert joining.attempt() is not None
    assert "by hand" in joining.store.problems[str(joining.config)]


@pytest.mark.parametrize("helper_works", [True, False])
def test_a_file_that_only_root_may_write_is_left_to_the_executor(controller, joining, monkeypatch, helper_works):
    """Without the right to write, the executor is asked; if it can't either, the owner is told."""
    asked = []

    def refuse(config):
        raise PermissionError(f"{config}: not ours")

    async def forget_as_root():
        asked.append(joining.config)
        if not helper_works:
            raise OSError("nor is it mine")

    monkeypatch.setattr(enrolment_module, "forget_token", refuse)
    joining.enrolment._forget_as_root = forget_as_root
    assert joining.attempt() is not None
    assert asked == [joining.config]
    assert ("nor is it mine" in joining.store.problems.get(str(joining.config), "")) is not helper_works
