"""The very bytes that the tools of NFD send, and what they demand of the answer; and any bytes at all."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ndn import encoding as reference
from ndn.app_support import nfd_mgmt as nfd
from ndn.encoding import InterestParam

from gateway.forwarder import packet
from gateway.forwarder.management import PREFIX, REMOTE_PREFIX
from gateway.forwarder.management.encoding import ControlParameters, decode_parameters, encode_parameters
from gateway.forwarder.packet import DecodeError, decode_data, decode_interest
from gateway.protocol import names
from tests.forwarder.management.commands import Managed, command_v2, command_v3


def block(kind: int, *values: bytes) -> bytes:
    return names.tlv(kind, b"".join(values))


def ndn_cxx(module: str, verb: str, parameters: bytes, nonce: int = 1) -> bytes:
    """A command as ndn-cxx 0.9 makes it: empty application parameters, signature info with type, nonce and time."""
    signed_name = PREFIX + names.component(module) + names.component(verb) + names.component(parameters)
    info = (
        "2c 17"  # InterestSignatureInfo
        "  1b 01 00"  # SignatureType DigestSha256
        f"  26 08 {nonce:016x}"  # SignatureNonce
        "  28 08 0000018bcfe56800"  # SignatureTime
    )
    unsigned = bytes.fromhex("24 00" + info)
    value = block(0x2E, hashlib.sha256(signed_name + unsigned).digest())
    name = signed_name + block(0x02, hashlib.sha256(unsigned + value).digest())
    nonce_and_lifetime = bytes.fromhex("0a 04 01020304  0c 02 2710")  # ten seconds
    return block(0x05, block(0x07, name), b"\x12\x00", nonce_and_lifetime, unsigned, value)


NDN_NAME = "07 09  08 03 6e646e  08 02 6170"  # /ndn/ap
# What is sent, and the fields that ndn-cxx rejects a reply without.
COMMANDS: list[tuple[str, str, str, tuple[str, ...]]] = [
    # an application's registration: Name, Flags child-inherit
    ("rib", "register", f"68 0e {NDN_NAME} 6c 01 01", ("name", "face_id", "origin", "cost", "flags")),
    # nfdc route add: Name, FaceId 0x100, Origin static, Cost, Flags
    (
        "rib",
        "register",
        f"68 18 {NDN_NAME} 69 02 0100 6f 01 ff 6a 01 00 6c 01 01",
        ("name", "face_id", "origin", "cost", "flags"),
    ),
    ("rib", "unregister", f"68 12 {NDN_NAME} 69 02 0100 6f 01 ff", ("name", "face_id", "origin")),
    ("faces", "update", "68 06 6c 01 01 70 01 01", ("face_id", "flags", "face_persistency")),
    ("cs", "config", "68 04 83 02 03e8", ("capacity", "flags")),
    ("cs", "config", "68 06 6c 01 03 70 01 03", ("capacity", "flags")),
    ("cs", "erase", f"68 0b {NDN_NAME}", ("name", "count")),
    # strategy-choice/set: Name, Strategy /localhost/nfd/strategy/asf
    (
        "strategy-choice",
        "set",
        f"68 31 {NDN_NAME} 6b 24 07 22"
        "  08 09 6c6f63616c686f7374 08 03 6e6664 08 08 7374726174656779 08 03 617366 36 01 05",
        ("name", "strategy"),
    ),
    ("strategy-choice", "unset", f"68 0b {NDN_NAME}", ("name",)),
]


def is_missing(value: Any) -> bool:
    """python-ndn reads a name that is not there as an empty one."""
    return value is None or (isinstance(value, list) and not value)


@pytest.mark.parametrize(("module", "verb", "parameters", "fields"), COMMANDS)
def test_what_nfdc_and_ndn_cxx_send(module: str, verb: str, parameters: str, fields: tuple[str, ...]) -> None:
    """Each command, byte for byte, is done, and the reply has all that the client would reject it without."""
    managed = Managed()
    assert managed.face.id == 0x100
    data = managed.send(ndn_cxx(module, verb, bytes.fromhex(parameters)))
    reply = nfd.parse_response(data.content)
    assert reply["status_code"] == 200, reply["status_text"]
    assert [field for field in fields if is_missing(reply[field])] == []


def test_face_creation_as_nfdc_asks_for_it() -> None:
    """The bytes of `nfdc face create tcp4://192.0.2.1:6363 persistency persistent` reach who makes faces."""

    class Control:
        def __init__(self) -> None:
            self.asked: list[tuple[str, int | None]] = []

        def channels(self) -> list[str]:
            return []

        async def create(self, uri: str, mtu: int | None, is_reliable: bool) -> Any:
            self.asked.append((uri, mtu))
            return managed.app

        def destroy(self, face: Any) -> None: ...

    control = Control()
    managed = Managed(faces=control)
    # Uri, FacePersistency persistent
    parameters = "68 1a  72 15 746370343a2f2f3139322e302e322e313a36333633  85 01 00"
    reply = managed.ask(ndn_cxx("faces", "create", bytes.fromhex(parameters)))
    assert control.asked == [("tcp4://192.0.2.1:6363", None)]
    demanded = ("face_id", "uri", "local_uri", "flags", "face_persistency")
    assert reply["status_code"] == 200 and [field for field in demanded if reply[field] is None] == []


@pytest.mark.parametrize(
    "dataset",
    [
        "status/general",
        "faces/channels",
        "faces/list",
        "fib/list",
        "rib/list",
        "cs/info",
        "strategy-choice/list",
    ],
)
def test_what_a_status_report_asks_for(dataset: str) -> None:
    """Every dataset of `nfdc status report`, asked with CanBePrefix and MustBeFresh, comes."""
    managed = Managed()
    name = PREFIX + b"".join(names.component(part) for part in dataset.split("/"))
    wire = block(0x05, block(0x07, name), bytes.fromhex("21 00 12 00 0a 04 01020304"))
    data = managed.send(wire)
    assert data.name.startswith(name) and names.last_number(data.name, names.SEGMENT) == 0
    assert data.final_block == names.segment(0) and data.freshness_ms == 1000


def test_the_registration_of_the_others() -> None:
    """NDNts' options (origin 65, capture, 20 minutes) and a name alone, with MustBeFresh, as ndnd sends it."""
    managed = Managed()
    options = {"origin": 65, "cost": 0, "flags": 2, "expiration_period": 1_200_000}
    reply = managed.ask(command_v3("rib", "register", name="/p", **options))
    assert [reply[field] for field in options] == list(options.values()) and reply["status_code"] == 200
    bare = bytes.fromhex("68 05 07 03 08 01 71")
    reply = managed.ask(ndn_cxx("rib", "register", bare), managed.node.app())
    assert (reply["status_code"], reply["flags"], reply["cost"]) == (200, 1, 0)


# --- anything

components = st.one_of(
    st.sampled_from(["rib", "faces", "fib", "cs", "strategy-choice", "status"]).map(names.component),
    st.sampled_from(
        ["register", "unregister", "announce", "create", "update", "destroy", "list", "query", "events"]
    ).map(names.component),
    st.sampled_from(["config", "erase", "info", "set", "unset", "general", "channels", "add-nexthop"]).map(
        names.component
    ),
    st.binary(max_size=40).map(names.component),
    st.binary(max_size=40).map(lambda value: names.component(names.tlv(0x68, value))),
    st.integers(0, 2**40).map(names.version),
    st.integers(0, 5).map(names.segment),
    st.integers(0, 5).map(lambda value: names.tlv(58, bytes([value]))),
)
names_below = st.lists(components, max_size=7).map(b"".join)


def _close(reply: Any) -> bytes | None:
    """A reply that takes time is not waited for: it must not have raised."""
    if isinstance(reply, Awaitable):
        reply.close()  # type: ignore[attr-defined]
        return None
    return reply


@settings(max_examples=300)
@given(st.sampled_from([PREFIX, REMOTE_PREFIX]), names_below, st.booleans(), st.none() | st.binary(max_size=20))
def test_any_name_is_answered_without_an_exception(
    prefix: bytes, below: bytes, can_be_prefix: bool, parameters: bytes | None
) -> None:
    """Whatever stands behind the prefix there is a packet that bears the name, or silence."""
    managed = Managed()
    name, wire = packet.encode_interest(prefix + below, can_be_prefix=can_be_prefix, parameters=parameters)
    interest = decode_interest(wire)
    interest.incoming_face = managed.app.id
    reply = _close(managed.management.on_interest(interest))
    assert reply is None or decode_data(reply).name.startswith(interest.name)
    assert name == interest.name


fields = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["/", "/p", "/p/q", "/localhost/nfd", "/x" * 33]),
        "face_id": st.integers(0, 300),
        "uri": st.sampled_from(["tcp4://127.0.0.1:1", "udp6://[::1]:6363", "x", "", "tcp4://[", "fd://1"]),
        "local_uri": st.text("abc:/", max_size=5),  # python-ndn can't write others
        "origin": st.integers(0, 300),
        "cost": st.integers(0, 2**64 - 1),
        "capacity": st.integers(0, 2**64 - 1),
        "count": st.integers(0, 5),
        "mtu": st.integers(0, 70_000),
        "flags": st.integers(0, 7),
        "mask": st.integers(0, 7),
        "expiration_period": st.integers(0, 2**64 - 1),
        "face_persistency": st.sampled_from(list(nfd.FacePersistency)),
        "strategy": st.sampled_from(["/localhost/nfd/strategy/asf", "/localhost/nfd/strategy", "/"]),
    },
)
verbs = st.sampled_from(
    [
        ("rib", "register"),
        ("rib", "unregister"),
        ("faces", "update"),
        ("faces", "create"),
        ("faces", "destroy"),
        ("fib", "add-nexthop"),
        ("fib", "remove-nexthop"),
        ("cs", "config"),
        ("cs", "erase"),
        ("strategy-choice", "set"),
        ("strategy-choice", "unset"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([command_v2, command_v3]), verbs, fields), max_size=5))
def test_any_well_formed_commands_are_answered(commands: list[Any]) -> None:
    """Every command in every state gets a status, and the tables stay in step: no route to a face that is not there."""
    managed = Managed()
    for command, (module, verb), parameters in commands:
        interest = decode_interest(command(module, verb, **parameters))
        interest.incoming_face = managed.app.id
        reply = _close(managed.management.on_interest(interest))
        assert reply is not None
        assert 200 <= nfd.parse_response(decode_data(reply).content)["status_code"] < 600
    for _, hops in managed.forwarder.fib:
        assert all(hop.face_id in managed.forwarder.faces for hop in hops)


@given(st.binary(max_size=80))
def test_signatures_of_any_shape(info: bytes) -> None:
    """Signature fields of both forms that are malformed get a refusal and never an exception."""
    managed = Managed()
    base = PREFIX + names.component("rib") + names.component("register") + names.component(b"\x68\x05\x07\x03\x08\x01p")
    old = base + names.component(bytes(8)) + names.component(b"n") + names.component(block(0x16, info))
    old += names.component(block(0x17, info))
    tail = block(0x24) + block(0x2C, info) + block(0x2E, info)
    new = block(0x05, block(0x07, base, block(2, hashlib.sha256(tail).digest())), b"\x0a\x04abcd", tail)
    for wire in (packet.encode_interest(old)[1], new):
        interest = decode_interest(wire)
        interest.incoming_face = managed.app.id
        reply = managed.management.on_interest(interest)
        assert isinstance(reply, bytes)
        status = nfd.parse_response(decode_data(reply).content)["status_code"]
        assert status in (200, 400, 403)


# --- the blocks by themselves


@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda value: names.tlv(0x68, value)))
def test_parameters_of_any_bytes(wire: bytes) -> None:
    """They are read, or DecodeError is raised, and nothing else."""
    try:
        found = decode_parameters(wire)
    except DecodeError:
        return
    assert decode_parameters(encode_parameters(found)) == found


@given(fields)
def test_parameters_are_read_and_written_as_the_reference_does(values: dict[str, Any]) -> None:
    """Ours and python-ndn's are the same bytes in both directions."""
    theirs = nfd.ControlParameters()
    theirs.cp = nfd.ControlParametersValue()
    for field, value in values.items():
        if field == "strategy":
            theirs.cp.strategy = nfd.Strategy()
            theirs.cp.strategy.name = value
        else:
            setattr(theirs.cp, field, value)
    wire = bytes(theirs.encode())
    ours = decode_parameters(wire)
    assert encode_parameters(ours) == wire
    expected = {
        "expiration_period": "expiration_ms",
        "face_persistency": "persistency",
    }
    for field, value in values.items():
        found = getattr(ours, expected.get(field, field))
        if field in ("name", "strategy"):
            assert found == b"".join(bytes(part) for part in reference.Name.normalize(value))
        elif field == "face_persistency":
            assert found == value.value
        else:
            assert found == value
    assert ours != ControlParameters() or not values


def test_the_reference_library_s_interest_is_what_ndn_cxx_sends() -> None:
    """Our hand-made bytes are a signed Interest to the reference library too: the fixture is no invention."""
    wire = ndn_cxx("rib", "register", bytes.fromhex(COMMANDS[0][2]))
    name, param, parameters, pointers = reference.parse_interest(wire)
    assert isinstance(param, InterestParam) and param.lifetime == 10_000 and bytes(parameters or b"") == b""
    assert reference.Name.to_str(name[:4]) == "/localhost/nfd/rib/register"
    covered = b"".join(bytes(part) for part in pointers.signature_covered_part)
    assert hashlib.sha256(covered).digest() == bytes(pointers.signature_value_buf)
