"""The CBOR codec: every message goes there and back, and nothing from outside breaks it."""

import contextlib
import dataclasses
import inspect
import types
import typing
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.protocol import codec, messages
from gateway.protocol.errors import MessageError
from gateway.protocol.messages import Bandwidth, BlobRef, Head, NodeReport, Section, SectionRef, ServiceSpec

MESSAGES = [
    cls
    for _, cls in inspect.getmembers(messages, inspect.isclass)
    if dataclasses.is_dataclass(cls) and cls.__module__ == messages.__name__
]

SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(1 << 63), (1 << 64) - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(max_size=12),
    bytes: st.binary(max_size=40),
    bool: st.booleans(),
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type as the messages declare them."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return instances(typing.cast(type, hint))
    if origin in (typing.Union, types.UnionType):
        (inner,) = (a for a in arguments if a is not type(None))
        return st.none() | values(inner)
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=2)
    return SCALARS[hint]


def instances(cls: type) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{f.name: values(hints[f.name]) for f in dataclasses.fields(cls)})


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_messages_go_there_and_back(cls: type) -> None:
    """Every message decodes to an equal one, and equal messages have equal bytes."""

    @settings(max_examples=30, deadline=None)
    @given(instances(cls))
    def check(message: Any) -> None:
        wire = codec.encode(message)
        assert codec.decode(cls, wire) == message
        assert codec.encode(codec.decode(cls, wire)) == wire

    check()


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_keys_are_unique_small_integers(cls: type) -> None:
    """No two fields of a message share a key, and a key fits one byte."""
    numbers = [f.metadata["key"] for f in dataclasses.fields(cls)]
    assert len(set(numbers)) == len(numbers) and all(1 <= n <= 23 for n in numbers)


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        # {1: h'aa', 2: 5, 3: h'bb'}
        (BlobRef(b"\xaa", 5, b"\xbb"), "a3 0141aa 0205 0341bb"),
        # {1: 2.5, 2: "probe"}: what has its default value is left out
        (Bandwidth(2.5, "probe"), "a2 01 f94100 02 6570726f6265"),
        # {1: "/n", 2: 1, 3: 2, 4: 0.0, 5: 1.0, 6: [{1: "", 2: "w", 3: {1: h'', 2: 0, 3: h''}}]}
        (
            Head("/n", 1, 2, 0.0, 1.0, (SectionRef("", "w", BlobRef(b"", 0, b"")),)),
            "a6 01622f6e 0201 0302 04f90000 05f93c00 0681 a3 0160 026177 03 a3 0140 0200 0340",
        ),
    ],
)
def test_vectors(message: Any, wire: str) -> None:
    """These messages have exactly these bytes: canonical CBOR (RFC 8949, 4.2) with integer keys."""
    assert codec.encode(message) == bytes.fromhex(wire.replace(" ", ""))
    assert codec.decode(type(message), codec.encode(message)) == message


def test_unknown_keys_are_ignored() -> None:
    """A newer sender's fields do not make a message unreadable."""
    wire = cbor2.dumps({1: b"a", 2: 1, 3: b"r", 99: ["new"], "note": 1, -1: None})
    assert codec.decode(BlobRef, wire) == BlobRef(b"a", 1, b"r")


def test_missing_fields_take_their_default() -> None:
    """An older sender's message is complete without the fields that came later."""
    report = codec.decode(NodeReport, cbor2.dumps({1: "n", 2: "b", 3: 4}))
    assert report == NodeReport("n", "b", 4) and report.interval_s == 30.0


def test_integers_are_taken_for_floats() -> None:
    """A sender that writes 3 for 3.0 is understood; the reverse is an error."""
    assert codec.decode(Bandwidth, cbor2.dumps({1: 3, 2: "peer"})).mbps == 3.0
    with pytest.raises(MessageError, match=r"BlobRef\.size: int was expected, not 3\.0"):
        codec.decode(BlobRef, cbor2.dumps({1: b"", 2: 3.0, 3: b""}))


@pytest.mark.parametrize(
    ("cls", "plain", "text"),
    [
        (BlobRef, [1, 2], "BlobRef: a map was expected, not list"),
        (BlobRef, {1: b"", 3: b""}, r"BlobRef\.size: key 2 is missing"),
        (BlobRef, {1: "text", 2: 1, 3: b""}, r"BlobRef\.sha256: bytes was expected, not 'text'"),
        (BlobRef, {1: b"", 2: True, 3: b""}, r"BlobRef\.size: int was expected, not True"),
        (BlobRef, {1: b"", 2: 1 << 70, 3: b""}, r"BlobRef\.size: the integer is out of range"),
        (BlobRef, {1: b"", 2: None, 3: b""}, r"BlobRef\.size: int was expected, not None"),
        (Bandwidth, {1: float("nan"), 2: ""}, r"Bandwidth\.mbps: float was expected, not nan"),
        (Bandwidth, {1: float("inf"), 2: ""}, r"Bandwidth\.mbps: float was expected, not inf"),
        (Bandwidth, {1: 1 << 80, 2: ""}, r"Bandwidth\.mbps"),
        (Section, {1: "s", 2: "", 3: b"", 4: b"", 8: {}}, r"Section\.heads: a list was expected, not dict"),
        (Section, {1: "s", 2: "", 3: b"", 4: b"", 8: [{}]}, r"Section\.heads\[0\]\.node: key 1 is missing"),
        (Section, {1: "s", 2: "", 3: b"", 4: b"", 10: {"n": 7}}, r"Section\.members\['n'\]: str was expected, not 7"),
        (Section, {1: "s", 2: "", 3: b"", 4: b"", 10: {5: "h"}}, r"Section\.members: str was expected, not 5"),
        (ServiceSpec, {1: "s", 2: 1, 3: "p", 4: 9, 5: []}, r"ServiceSpec\.manifest: a map was expected, not int"),
    ],
)
def test_errors_name_message_and_field(cls: type, plain: Any, text: str) -> None:
    """What is wrong in a message is said with the message, the field and the value."""
    with pytest.raises(MessageError, match=text):
        codec.decode(cls, cbor2.dumps(plain))


def test_trailing_bytes_and_size_are_checked() -> None:
    """Bytes after a message, a message cut short and one larger than allowed are refused."""
    wire = codec.encode(BlobRef(b"a", 1, b"r"))
    with pytest.raises(MessageError, match="2 bytes after the message"):
        codec.decode(BlobRef, wire + b"\0\0")
    for end in range(len(wire)):
        with pytest.raises(MessageError, match=r"^BlobRef: not CBOR"):
            codec.decode(BlobRef, wire[:end])
    with pytest.raises(MessageError, match=f"{len(wire)} bytes, at most 5 are accepted"):
        codec.decode(BlobRef, wire, max_bytes=5)


@settings(max_examples=400)
@given(st.binary(max_size=200), st.sampled_from(MESSAGES))
def test_random_bytes_are_a_message_error(wire: bytes, cls: type) -> None:
    """Random bytes raise MessageError and nothing else."""
    with contextlib.suppress(MessageError):
        codec.decode(cls, wire)


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 23) | st.text(max_size=3), inner),
    max_leaves=20,
)


@settings(max_examples=300)
@given(plain_values, st.sampled_from(MESSAGES))
def test_random_cbor_is_a_message_or_an_error(plain: Any, cls: type) -> None:
    """Well-formed CBOR of any shape gives a message of the declared types, or MessageError."""
    try:
        message = codec.decode(cls, cbor2.dumps(plain))
    except MessageError:
        return
    assert codec.decode(cls, codec.encode(message)) == message


@pytest.mark.parametrize(
    "wire",
    [
        "9f" * 2000,  # lists in lists without end
        "81" * 100_000,
        "a1" * 5000 + "00",
        "bb7fffffffffffffff",  # a map of 2**63 entries
        "5b7fffffffffffffff",  # a byte string of 2**63 bytes
        "9b7fffffffffffffff",
        "d81c81d81d00",  # a list that holds itself
        "d81d00",  # a shared value that nobody defined
        "c249" + "ff" * 9,  # a bignum
        "c1fbfff0000000000000",  # a date of minus infinity
        "c074" + "7878" * 10,  # a date that is none
        "d9011f60",
        "d81e820100",  # a fraction by zero
        "c48221" + "1b7fffffffffffffff",
        "c5821b7fffffffffffffff01",  # a bigfloat that would fill the memory
        "c4821b00000000ffffffff01",
        "d8236128",  # a regular expression that is none
        "d82551ffffffffffffffffffffffffffffffffff",  # a UUID of 17 bytes
        "d9010444ffffffff",
        "a1a001",  # a map as a key
        "a18001",  # a list as a key
        "a1f97e0001",  # NaN as a key
        "ff",
        "f8ff",
        "7f61ff",
        "62c328",  # text that is not UTF-8
        "1c",
    ],
)
def test_hostile_cbor(wire: str) -> None:
    """CBOR made to exhaust the stack, the memory or a decoder's special types raises MessageError, at once."""
    for cls in (BlobRef, Head):
        with pytest.raises(MessageError):
            codec.decode(cls, bytes.fromhex(wire))


def test_json_for_people() -> None:
    """The JSON form has field names, lists for tuples and hex for bytes."""
    head = Head("/n", 1, 2, 0.5, 1.0, (SectionRef("z", "w", BlobRef(b"\xaa", 3, b"\xbb")),), (b"\xcc",))
    assert codec.to_json(head) == {
        "network": "/n",
        "epoch": 1,
        "version": 2,
        "issued": 0.5,
        "expires": 1.0,
        "sections": [{"zone": "z", "service": "w", "blob": {"sha256": "aa", "size": 3, "root": "bb"}}],
        "revocations": ["cc"],
    }
    assert codec.to_json(Section("s", "", b"", b"", members={"a": "b"}))["members"] == {"a": "b"}
