"""Who may say what: every row of the table both ways, and everything that must be refused."""

import contextlib
import hashlib
import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ndn.encoding import MetaInfo, SignatureType, make_data
from ndn.security.signer.sha256_hmac_signer import HmacSha256Signer

from gateway.protocol import keys, names, trust
from gateway.protocol.errors import ProtocolError, TrustError, UnknownKey
from gateway.protocol.keys import Key, PublicKey
from gateway.protocol.names import Name
from gateway.protocol.trust import Token, TrustStore, may_sign

NETWORK = names.Network("/guifi/sants")
NOW, YEAR = 1_700_000_000.0, 365 * 86400.0

ANCHOR = Key.generate(NETWORK.anchor)
CONTROLLER = Key.generate(NETWORK.controller)
PROVIDER, OTHER_PROVIDER = Key.generate(NETWORK.provider("upc")), Key.generate(NETWORK.provider("evil"))
NODE, OTHER_NODE = Key.generate(NETWORK.node("a")), Key.generate(NETWORK.node("b"))
FOREIGN = Key.generate(names.Network("/guifi").controller)
SIGNERS = {
    "anchor": ANCHOR,
    "controller": CONTROLLER,
    "provider upc": PROVIDER,
    "provider evil": OTHER_PROVIDER,
    "node a": NODE,
    "node b": OTHER_NODE,
    "foreign": FOREIGN,
}

# name, who may sign it; everybody else may not
TABLE = [
    ("/guifi/sants/KEY/x/self/v=1", {"anchor"}),
    ("/guifi/sants/KEY/epoch/v=2", {"anchor"}),
    ("/guifi/sants/provider/upc/KEY/x/anchor/v=1", {"anchor"}),
    ("/guifi/sants/controller/KEY/x/anchor/v=1", {"anchor"}),
    ("/guifi/sants/node/a/KEY/x/controller/v=1", {"anchor", "controller"}),
    ("/guifi/sants/provider/upc/service/wiki/v=1", {"provider upc"}),
    ("/guifi/sants/controller/head/v=4294967296", {"controller"}),
    ("/guifi/sants/controller/enrol/17/nonce", {"controller"}),
    ("/guifi/sants/node/a/report/v=1", {"node a"}),
    ("/guifi/sants/node/a/want", {"node a"}),
    ("/localhop/picasso/hello/a/v=1", {"node a"}),
    ("/guifi/sants", set()),
    ("/guifi/sants/blob/00/seg=0", set()),
    ("/guifi/sants/controller/other/v=1", set()),
    ("/guifi/sants/controller", set()),
    ("/guifi/sants/provider/upc", set()),
    ("/guifi/sants/provider/upc/other", set()),
    ("/guifi/sants/node", set()),
    ("/guifi/sants/other/controller/head/v=1", set()),
    ("/guifi/controller/head/v=1", set()),
    ("/elsewhere/controller/head/v=1", set()),
    ("/localhop/picasso/other/a", set()),
    ("/localhop/other/hello/a/v=1", set()),
    ("/", set()),
]


def certify(issuer: Key, subject: Key, issued: float = NOW) -> bytes:
    return issuer.certify(subject.name, subject.spki, issued, YEAR, "test")


@pytest.fixture
def store() -> TrustStore:
    """A store that knows the anchor and everyone's certificate."""
    store = TrustStore(NETWORK, certify(ANCHOR, ANCHOR))
    for key in (CONTROLLER, PROVIDER, OTHER_PROVIDER):
        store.add_certificate(certify(ANCHOR, key), NOW + 1)
    for key in (NODE, OTHER_NODE):
        store.add_certificate(certify(CONTROLLER, key), NOW + 1)
    return store


@pytest.mark.parametrize(("uri", "allowed"), TABLE)
@pytest.mark.parametrize("signer", SIGNERS)
def test_every_row_of_the_table(store: TrustStore, uri: str, allowed: set[str], signer: str) -> None:
    """A packet is accepted from the identities that the table gives its name, with their signature, and no others."""
    wire = SIGNERS[signer].sign(names.parse(uri), b"content", 1000)
    if signer in allowed:
        assert store.verify(wire).content == b"content"
    else:
        with pytest.raises(TrustError, match="may not say this"):
            store.verify(wire)


def test_every_row_is_tested() -> None:
    """No rule is without a name in the table above that it lets pass."""
    used = {
        pattern
        for uri, allowed in TABLE
        if allowed
        for pattern, _ in [
            next(
                row
                for row in trust.RULES
                if trust._match(
                    row[0],
                    names.components(names.parse(uri))[0 if row[0].startswith("/") else 2 :],
                )
                is not None
            )
        ]
    }
    assert used == {pattern for pattern, _ in trust.RULES}


HEAD = NETWORK.head_version(1, 1)
REPORT = NETWORK.node("a") + names.component("report") + names.version(1)


@pytest.mark.parametrize(
    "name",
    [
        NETWORK.prefix + names.component("") + HEAD[len(NETWORK.prefix) :],
        NETWORK.prefix + names.component("controller") + names.component("") + names.component("head"),
        NETWORK.prefix + b"\xfd\x00\x08\x0acontroller" + names.component("head") + names.version(1),
        NETWORK.prefix + b"\x08\xfd\x00\x0acontroller" + names.component("head") + names.version(1),
        NETWORK.prefix + names.component("controller", names.KEYWORD) + names.component("head") + names.version(1),
        NETWORK.prefix + names.component("controller/head") + names.version(1),
        NETWORK.prefix[:-1] + b"t" + HEAD[len(NETWORK.prefix) :],
    ],
    ids=["empty component", "empty inside", "long type", "long length", "keyword", "slash inside", "another network"],
)
def test_no_other_spelling_passes(name: Name) -> None:
    """A name that only reads like the head's is not the controller's to sign."""
    assert may_sign(NETWORK, HEAD, NETWORK.controller)
    assert not may_sign(NETWORK, name, NETWORK.controller)


@pytest.mark.parametrize(
    "signer",
    [
        NETWORK.nodes + names.component("A"),
        NETWORK.nodes + names.component("a", names.KEYWORD),
        NETWORK.nodes + names.component("a") + names.component("a"),
        NETWORK.nodes + names.component("") + names.component("a"),
        NETWORK.nodes,
        NETWORK.provider("a"),
        NETWORK.prefix + NETWORK.node("a"),
        names.Network("/guifi").node("a"),
        b"",
    ],
)
def test_a_node_is_only_itself(signer: Name) -> None:
    """No identity that resembles a node's signs below its name."""
    assert may_sign(NETWORK, REPORT, NETWORK.node("a"))
    assert not may_sign(NETWORK, REPORT, signer)


@settings(max_examples=200)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_random_names_are_nobodys(tail: bytes, identity: bytes) -> None:
    """Random bytes below the network's prefix give an answer or ValueError; nobody may sign what has no rule."""
    for name, signer in itertools.product((tail, NETWORK.prefix + tail), (identity, NETWORK.prefix + identity)):
        with contextlib.suppress(ValueError):
            assert not may_sign(NETWORK, name, signer) or name.startswith(NETWORK.prefix)


# --- signatures


def test_a_changed_packet_is_refused(store: TrustStore) -> None:
    """A packet in which any one bit was changed is refused, and nothing but TrustError is raised."""
    wire = CONTROLLER.sign(HEAD, b"decision", 1000)
    for at in range(len(wire)):
        changed = bytearray(wire)
        changed[at] ^= 1 << (at % 8)
        with pytest.raises(TrustError):
            store.verify(bytes(changed))


def test_another_keys_signature_is_refused(store: TrustStore) -> None:
    """A packet whose KeyLocator names the controller's key but that another key signed is refused as wrong."""
    forger = Key.generate(NETWORK.controller)
    forger_named = Key(CONTROLLER.name, forger._key)
    with pytest.raises(TrustError, match="the signature is wrong"):
        store.verify(forger_named.sign(HEAD, b"decision"))


def test_an_unknown_key_says_where_to_fetch_it(store: TrustStore) -> None:
    """A packet of a rightful identity with a key that is not known raises UnknownKey with the key's name."""
    new = Key.generate(NETWORK.controller)
    with pytest.raises(UnknownKey) as raised:
        store.verify(new.sign(HEAD, b"decision"))
    assert raised.value.key_name == new.name and names.to_uri(new.name) in str(raised.value)
    store.add_certificate(certify(ANCHOR, new))
    assert store.verify(new.sign(HEAD, b"decision")).name == HEAD


def test_who_may_not_say_it_is_refused_before_the_key_is_fetched(store: TrustStore) -> None:
    """The name is judged first, so that a stranger's packet causes no fetch of its certificate."""
    stranger = Key.generate(NETWORK.node("stranger"))
    with pytest.raises(TrustError) as raised:
        store.verify(stranger.sign(HEAD, b"decision"))
    assert not isinstance(raised.value, UnknownKey)


def test_a_revoked_key_is_refused(store: TrustStore) -> None:
    """After its revocation a key's packets and the certificates it issues are refused, the others' are not."""
    store.revoked = frozenset({hashlib.sha256(CONTROLLER.name).digest()})
    with pytest.raises(TrustError, match="is revoked"):
        store.verify(CONTROLLER.sign(HEAD, b"decision"))
    with pytest.raises(TrustError, match="is revoked"):
        store.add_certificate(certify(CONTROLLER, Key.generate(NETWORK.node("c"))))
    assert store.verify(NODE.sign(REPORT, b"report")).content == b"report"
    successor = Key.generate(NETWORK.controller)
    store.add_certificate(certify(ANCHOR, successor))
    assert store.verify(successor.sign(HEAD, b"decision")).content == b"decision"


def test_a_digest_is_no_signature(store: TrustStore) -> None:
    """A packet with DigestSha256 says nothing that needs trust."""
    with pytest.raises(TrustError, match="bears no signature by a key"):
        store.verify(keys.sign_data(HEAD, b"decision"))


def test_other_signature_types_are_refused(store: TrustStore) -> None:
    """A KeyLocator under another signature type, such as an HMAC with a public value, is refused."""
    signer = HmacSha256Signer(names.components(CONTROLLER.name), CONTROLLER.spki)
    wire = bytes(make_data(names.components(HEAD), MetaInfo(), b"decision", signer))
    with pytest.raises(TrustError, match=f"signature type {SignatureType.HMAC_WITH_SHA256}"):
        store.verify(wire)


def test_oversized_packets_are_refused(store: TrustStore) -> None:
    """What is larger than a packet may be is refused before it is read, and is not signed either."""
    with pytest.raises(TrustError, match="8801 bytes, at most 8800"):
        store.verify(bytes(8801))
    with pytest.raises(ValueError, match="at most 8800 travel"):
        CONTROLLER.sign(HEAD, bytes(8800))


# --- certificates


def test_the_anchor_must_be_the_networks_own() -> None:
    """An anchor of another name, one signed by another key, or no certificate at all is no anchor."""
    TrustStore(NETWORK, certify(ANCHOR, ANCHOR))
    elsewhere = Key.generate(names.parse("/elsewhere"))
    with pytest.raises(TrustError, match="another's name"):
        TrustStore(NETWORK, certify(elsewhere, elsewhere))
    with pytest.raises(TrustError, match="another's name"):
        TrustStore(NETWORK, certify(NODE, NODE))
    with pytest.raises(TrustError, match="not signed by itself"):
        TrustStore(NETWORK, certify(CONTROLLER, ANCHOR))
    with pytest.raises(TrustError):
        TrustStore(NETWORK, ANCHOR.sign(ANCHOR.name, b"no key"))


@pytest.mark.parametrize(
    ("issuer", "subject"),
    [
        (CONTROLLER, PROVIDER),
        (CONTROLLER, CONTROLLER),
        (CONTROLLER, ANCHOR),
        (PROVIDER, PROVIDER),
        (NODE, OTHER_NODE),
        (NODE, NODE),
        (PROVIDER, NODE),
        (FOREIGN, NODE),
    ],
)
def test_only_issuers_certify(store: TrustStore, issuer: Key, subject: Key) -> None:
    """The controller certifies nodes only, the anchor all; nobody certifies himself."""
    new = Key.generate(subject.identity)
    with pytest.raises(TrustError, match="may not say this"):
        store.add_certificate(certify(issuer, new))


def test_expiry_is_judged_by_a_trusted_clock_only(store: TrustStore) -> None:
    """Outside its validity a certificate is refused when the clock is trusted, and taken when there is none."""
    key = Key.generate(NETWORK.provider("new"))
    wire = certify(ANCHOR, key)
    assert keys.validity(wire) == (NOW, NOW + YEAR)
    for now in (NOW - 1, NOW + YEAR + 1):
        with pytest.raises(TrustError, match="is not valid at this time"):
            store.add_certificate(wire, now)
    spec = NETWORK.service("new", "wiki", 1)
    with pytest.raises(UnknownKey):
        store.verify(key.sign(spec, b""))
    store.add_certificate(wire, None)
    assert store.verify(key.sign(spec, b"")).name == spec


def test_data_that_is_no_certificate_is_refused(store: TrustStore) -> None:
    """A packet of a certificate's name and signer that holds no key, or is no key packet, is refused."""
    name = NETWORK.provider("new") + keys.KEY + names.component("k") + names.component("i") + names.version(1)
    with pytest.raises(TrustError, match="is not a certificate"):
        store.add_certificate(ANCHOR.sign(name, PROVIDER.spki))
    with pytest.raises(TrustError, match="not an Ed25519 public key"):
        store.add_certificate(
            ANCHOR.certify(NETWORK.provider("new") + keys.KEY + names.component("k"), b"", NOW, 1, "i")
        )


def test_certificates_are_kept_to_be_served(store: TrustStore) -> None:
    """The store hands out the anchor first and each certificate once."""
    wires = store.certificates
    assert wires[0] == store.anchor_wire and len(wires) == len(set(wires)) == 6
    again = TrustStore(NETWORK, wires[0])
    for wire in wires[1:]:
        again.add_certificate(wire, NOW + 1)
    assert again.verify(NODE.sign(REPORT, b"x")).content == b"x"


# --- bytes from anywhere


def raises_only_protocol_errors(store: TrustStore, wire: bytes) -> None:
    for call in (store.verify, store.add_certificate, keys.parse, keys.validity, lambda w: TrustStore(NETWORK, w)):
        with contextlib.suppress(ProtocolError):
            call(wire)


KNOWING = TrustStore(NETWORK, certify(ANCHOR, ANCHOR))
KNOWING.add_certificate(certify(ANCHOR, CONTROLLER))
SAMPLES = [CONTROLLER.sign(HEAD, b"decision", 1000), certify(CONTROLLER, NODE), keys.sign_data(HEAD, b"x")]


@settings(max_examples=300)
@given(st.binary(max_size=300))
@example(b"")
@example(b"\x06")
@example(b"\x06\x00")
@example(b"\x06\xff" + b"\xff" * 8)
@example(b"\x06\x02\x07\x00")
@example(b"\x06\x04\x07\x02\x08\x05")
@example(bytes.fromhex("0609 0700 1600 1700 1500 14".replace(" ", "")))
def test_random_bytes_raise_protocol_errors_only(wire: bytes) -> None:
    """Random bytes where a packet is expected raise ProtocolError and nothing else."""
    raises_only_protocol_errors(KNOWING, wire)
    raises_only_protocol_errors(KNOWING, b"\x06" + names.number(len(wire)) + wire)
    raises_only_protocol_errors(KNOWING, names.tlv(6, b"\x07\x03\x08\x01a" + wire))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SAMPLES), st.data())
def test_damaged_packets_raise_protocol_errors_only(sample: bytes, data: st.DataObject) -> None:
    """Packets cut, spliced or overwritten anywhere raise ProtocolError and nothing else."""
    at = data.draw(st.integers(0, len(sample)))
    end = data.draw(st.integers(at, min(len(sample), at + 4)))
    raises_only_protocol_errors(KNOWING, sample[:at] + data.draw(st.binary(max_size=4)) + sample[end:])


# --- keys and files


def test_keys_survive_their_file(tmp_path: pytest.TempPathFactory) -> None:
    """A saved key is readable by its owner only, is never replaced, and signs as before."""
    path = tmp_path / "identity.key"  # type: ignore[operator]
    NODE.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    again = Key.load(path)
    assert (again.name, again.spki, again.sign(REPORT, b"x")) == (NODE.name, NODE.spki, NODE.sign(REPORT, b"x"))
    with pytest.raises(FileExistsError):
        OTHER_NODE.save(path)


@pytest.mark.parametrize("text", ["", "Name: /a/KEY/b\n", "junk\njunk", "Name: /a%zz\nx", "Name: /a/KEY/b\n-----BEGIN"])
def test_a_damaged_key_file_is_named(tmp_path: pytest.TempPathFactory, text: str) -> None:
    """A file that is no key raises TrustError with its path."""
    path = tmp_path / "identity.key"  # type: ignore[operator]
    path.write_text(text)
    with pytest.raises(TrustError, match=r"identity\.key: not a key file"):
        Key.load(path)


@pytest.mark.parametrize("spki", [b"", b"junk", ANCHOR.spki[:-1], bytes(44)])
def test_a_damaged_public_key_is_named(spki: bytes) -> None:
    """Bytes that are no Ed25519 key raise TrustError with the key's name."""
    with pytest.raises(TrustError, match=r"/guifi/sants/node/a.*: not an Ed25519 public key"):
        PublicKey(NODE.name, spki)


def test_identities_are_read_from_names() -> None:
    """Key and certificate names give identity and key name; others raise TrustError with the name."""
    certificate = NODE.name + names.component("controller") + names.version(1)
    assert keys.identity_of(certificate) == keys.identity_of(NODE.name) == NETWORK.node("a")
    assert keys.key_name_of(certificate) == NODE.name
    for call in (keys.identity_of, keys.key_name_of):
        with pytest.raises(TrustError, match="/guifi/sants/node/a is no"):
            call(NETWORK.node("a"))
    with pytest.raises(TrustError):
        keys.key_name_of(NETWORK.node("a") + keys.KEY)


# --- enrolment


TOKEN = Token("/guifi/sants", "17", bytes(range(16)), bytes(range(32)))


def test_token_goes_there_and_back() -> None:
    """A token is one line of text, with blanks around it allowed, and does not show its secret when printed."""
    assert Token.parse(f"  {TOKEN.format()}\n") == TOKEN
    assert TOKEN.format() == "/guifi/sants.17." + bytes(range(16)).hex() + "." + bytes(range(32)).hex()
    assert TOKEN.secret.hex() not in repr(TOKEN)
    dotted = Token("/guifi.net/x", "1", bytes(20), bytes(32))
    assert Token.parse(dotted.format()) == dotted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/guifi/sants",
        "....",
        f"/guifi/sants.17.{'00' * 15}.{'00' * 32}",  # a secret that could be guessed
        f"/guifi/sants.17.{'00' * 16}.{'00' * 31}",
        f"/guifi/sants.17.{'00' * 16}.{'0' * 63}",
        f"/guifi/sants.17.{'zz' * 16}.{'00' * 32}",
        f"guifi.17.{'00' * 16}.{'00' * 32}",
        TOKEN.format()[:-2],
        TOKEN.format()[1:],
        TOKEN.format().replace(".", ","),
    ],
)
def test_a_damaged_token_is_refused(text: str) -> None:
    """A token that was cut, changed or mistyped raises ValueError, without telling the secret."""
    with pytest.raises(ValueError, match="token") as raised:
        Token.parse(text)
    assert "000102" not in str(raised.value)


@given(st.text(max_size=200))
def test_any_text_is_a_token_or_a_value_error(text: str) -> None:
    """Whatever stands in the file, the answer is a token or ValueError."""
    with contextlib.suppress(ValueError):
        assert Token.parse(Token.parse(text).format())


def test_proof_is_bound_to_everything() -> None:
    """The enrolment proof changes with secret, nonce, node and key, and no two splits of the text are the same."""
    base = (b"s" * 16, b"nonce", "node", b"key")
    proof = trust.enrol_proof(*base)
    assert len(proof) == 32 and proof == trust.enrol_proof(*base)
    others = [
        (b"t" * 16, b"nonce", "node", b"key"),
        (b"s" * 16, b"nonc", "node", b"key"),
        (b"s" * 16, b"nonce", "nodf", b"key"),
        (b"s" * 16, b"nonce", "node", b"kez"),
        (b"s" * 16, b"nonce", "nod", b"ekey"),
    ]
    assert proof not in [trust.enrol_proof(*other) for other in others]
