import stat
from pathlib import Path

import pytest

from controller import authority, workspace
from controller.authority import Authority
from controller.errors import ControllerError
from controller.initialise import Places, Wishes, initialise
from gateway import config as gateway_config
from gateway.protocol import codec, keys, names
from gateway.protocol.errors import TrustError
from gateway.protocol.messages import Head, ServiceSpec
from gateway.protocol.trust import TrustStore
from tests.controller.fakes import NOW, Home, make_home

NETWORK = names.Network("/net")


def test_init_makes_a_network_that_verifies(tmp_path: Path) -> None:
    """After init the anchor certifies controller and provider, and the gateway beside is enrolled and configured."""
    outcome = initialise(Places.below(tmp_path), Wishes("/net", "casa", listen=("tcp4://127.0.0.9:7001",)), NOW)
    state = outcome.settings.state_dir
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for secret in [*state.glob("*.key"), *state.glob("providers/*.key"), state / "controller.db"]:
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600, secret
    settings, problems = gateway_config.load(tmp_path / "picasso")
    assert settings is not None and not problems
    assert "tcp4://127.0.0.9:7001" in settings.forwarder.listen
    trust = TrustStore(NETWORK, (settings.gateway.state_dir / "anchor.ndn").read_bytes())
    for certificate in (state / "controller.ndn", state / "providers/main.ndn"):
        trust.add_certificate(certificate.read_bytes(), NOW)
    packet = trust.add_certificate((settings.gateway.state_dir / "identity.ndn").read_bytes(), NOW)
    assert keys.key_name_of(packet.name) == keys.Key.load(settings.gateway.state_dir / "identity.key").name


def test_init_again_keeps_every_key(tmp_path: Path) -> None:
    """A second init changes no byte of what is there, and adds a provider that is asked for."""
    initialise(Places.below(tmp_path), Wishes("/net", "casa"), NOW)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".db"}
    outcome = initialise(Places.below(tmp_path), Wishes("/net", "casa", ("main", "second")), NOW + 5)
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in outcome.made} == {"second.key", "second.ndn"}


def test_init_with_the_anchor_offline_needs_it_only_for_new_certificates(tmp_path: Path) -> None:
    """Everything but certifying works without the anchor's private key, and that says which file is needed."""
    settings = initialise(Places.below(tmp_path), Wishes("/net", "casa"), NOW).settings
    (settings.state_dir / "anchor.key").unlink()
    initialise(Places.below(tmp_path), Wishes("/net", "casa"), NOW)
    Authority(settings.state_dir, NETWORK).certify_node("n", keys.Key.generate(NETWORK.node("n")).spki, NOW)
    with pytest.raises(ControllerError, match=r"anchor\.key is needed for this and is not here"):
        initialise(Places.below(tmp_path), Wishes("/net", "casa", ("second",)), NOW)
    assert not (settings.state_dir / "providers" / "second.key").exists()


def test_init_refuses_another_network_or_node_in_the_same_place(tmp_path: Path) -> None:
    """What is there is never mixed with another network."""
    initialise(Places.below(tmp_path), Wishes("/net", "casa"), NOW)
    with pytest.raises(ControllerError, match="its network is '/net', not '/other'"):
        initialise(Places.below(tmp_path), Wishes("/other", "casa"), NOW)
    with pytest.raises(ControllerError, match="its node is 'casa', not 'tower'"):
        initialise(Places.below(tmp_path), Wishes("/net", "tower"), NOW)


def test_init_uses_a_gateway_that_was_there(tmp_path: Path) -> None:
    """The identity goes where an existing gateway's configuration says, and that file is not touched."""
    text = f"config gateway\n\toption network '/net'\n\toption node 'casa'\n\toption state_dir '{tmp_path}/own'\n"
    (tmp_path / "picasso").write_text(text)
    initialise(Places.below(tmp_path), Wishes("/net", "casa"), NOW)
    assert (tmp_path / "own" / "identity.ndn").exists() and (tmp_path / "picasso").read_text() == text
    (tmp_path / "picasso").write_text(text.replace("'casa'", "'tower'"))
    with pytest.raises(ControllerError, match="picasso:3 is kept, and its node is 'tower'"):
        initialise(Places.below(tmp_path), Wishes("/net", "casa"), NOW)


@pytest.mark.parametrize("missing", ["controller.key", "controller.ndn", "anchor.ndn"])
def test_missing_key_is_named(home: Home, missing: str) -> None:
    """A file of the controller that is not there is named, with what makes it."""
    (home.settings.state_dir / missing).unlink()
    with pytest.raises(ControllerError, match=f"{missing}: No such file.*init"):
        Authority(home.settings.state_dir, NETWORK)


def test_keys_of_another_network_are_refused(tmp_path: Path, home: Home) -> None:
    """A controller key that this anchor did not certify cannot be used."""
    other = make_home(tmp_path / "other")
    for name in ("controller.key", "controller.ndn"):
        (home.settings.state_dir / name).write_bytes((other.settings.state_dir / name).read_bytes())
    with pytest.raises(ControllerError, match="not the keys of /net"):
        Authority(home.settings.state_dir, NETWORK)
    (home.settings.state_dir / "controller.key").write_text("rubbish")
    with pytest.raises(ControllerError, match=r"controller\.key: not a key file"):
        Authority(home.settings.state_dir, NETWORK)


def test_each_signature_verifies_for_its_role_only(home: Home) -> None:
    """Heads verify as the controller's, specifications as the provider's, and a forged role does not."""
    wire = home.authority.sign_head(Head("/net", 1, 2, NOW, NOW + 10))
    assert codec.decode(Head, home.authority.trust.verify(wire).content).order == (1, 2)
    blob = authority_blob()
    spec = ServiceSpec("s", 1, "main", blob, (blob,))
    trust = home.authority.trust
    trust.verify(authority.sign_service(home.settings.state_dir, NETWORK, spec))
    provider = keys.Key.load(home.settings.state_dir / "providers/main.key")
    with pytest.raises(keys.TrustError, match="may not say this"):
        trust.verify(provider.sign(NETWORK.head_version(1, 3), b""))


def authority_blob() -> codec.Any:
    from gateway.protocol.messages import BlobRef

    return BlobRef(b"\0" * 32, 1, b"\0" * 32)


def test_epoch_is_raised_by_the_anchor_alone(home: Home) -> None:
    """The epoch is 1, then what the anchor stated; a statement by anybody else is refused."""
    assert home.authority.epoch() == 1
    home.authority.raise_epoch(4)
    assert Authority(home.settings.state_dir, NETWORK).epoch() == 4
    forged = keys.Key.load(home.settings.state_dir / "controller.key")
    wire = forged.sign(authority.epoch_prefix(NETWORK) + names.version(9), b"")
    (home.settings.state_dir / "epoch.ndn").write_bytes(wire)
    with pytest.raises(ControllerError, match=r"epoch\.ndn: .*may not say this"):
        home.authority.epoch()
    assert home.authority.known_epoch() == 0


def test_revoked_key_is_not_certified_again(home: Home) -> None:
    """A revoked node comes back with a new key only; the refusal says so."""
    old = home.enrol("n1")
    row = home.store.node("n1")
    assert row is not None
    home.store.revoke_node("n1", authority.key_hash(row.certificate))
    workspace.add_certificates(home.authority, home.store)
    with pytest.raises(TrustError, match="revoked; it must make a new one"):
        home.authority.certify_node("n1", old.spki, NOW)
    new = home.enrol("n1")
    assert home.authority.trust.verify(new.sign(home.network.report("n1"), b"")).content == b""


def test_missing_key_of_a_network_is_not_blindly_made_anew(home: Home, tmp_path: Path) -> None:
    """Where there is a network, a backup comes first; where there is none, `init`."""
    (home.settings.state_dir / "controller.key").unlink()
    with pytest.raises(ControllerError, match="from a backup") as caught:
        Authority(home.settings.state_dir, NETWORK)
    assert "run `picasso-controller init` first" not in str(caught.value)
    with pytest.raises(ControllerError, match="run `picasso-controller init` first"):
        Authority(tmp_path / "empty", NETWORK)
    (home.settings.state_dir / "controller.ndn").unlink()
    initialise(Places.below(home.settings.path.parent), Wishes("/net", "origin"), NOW)
    assert Authority(home.settings.state_dir, NETWORK).epoch() == 1


def test_bad_certificate_in_the_database_is_left_out_and_named(home: Home) -> None:
    """One damaged row costs its node, not the controller."""
    home.enrol("good")
    home.store.add_node("bad", b"rubbish", NOW)
    fresh = Authority(home.settings.state_dir, NETWORK)
    problems = workspace.add_certificates(fresh, home.store)
    assert len(problems) == 1 and "node bad" in problems[0]
    assert len(fresh.trust.certificates) == 5  # anchor, controller, main, origin, good
