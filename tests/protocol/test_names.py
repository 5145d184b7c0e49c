"""Names as bytes: URIs, components, numbers, and the names of a network."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.protocol import names

generic = st.binary(min_size=1, max_size=20).map(names.component)
typed = st.tuples(st.sampled_from([names.KEYWORD, 300, 65535]), st.binary(max_size=20)).map(
    lambda pair: names.tlv(*pair)
)
numbered = st.one_of(st.integers(0, (1 << 64) - 1).map(names.segment), st.integers(0, (1 << 64) - 1).map(names.version))
proper_names = st.lists(st.one_of(generic, typed, numbered), max_size=8).map(b"".join)


@given(proper_names)
def test_uri_and_back(name: bytes) -> None:
    """The URI of a name parses to the very same bytes, whatever its components hold."""
    assert names.parse(names.to_uri(name)) == name


@pytest.mark.parametrize(
    ("uri", "wire"),
    [
        ("/", ""),
        ("/guifi/sants", "08056775696669 080573616e7473"),
        ("/a/seg=3", "080161 320103"),
        ("/a/v=256", "080161 36020100"),
        ("/a/32=metadata/seg=0", "080161 20086d65746164617461 320100"),
        ("/%00%FF", "080200ff"),
    ],
)
def test_uri_vectors(uri: str, wire: str) -> None:
    """Well-known URIs have these bytes."""
    assert names.parse(uri) == bytes.fromhex(wire)


@pytest.mark.parametrize("uri", ["/a%", "/%zz", "/seg=x", "/seg=-1", "/v=99999999999999999999999", "/sha256digest=zz"])
def test_no_uri_is_a_value_error(uri: str) -> None:
    """Text that is no NDN URI raises ValueError, which shows it."""
    with pytest.raises(ValueError, match=f"^'{uri}' is not an NDN name"):
        names.parse(uri)


@given(st.text(max_size=30))
@example("/\ud800")
def test_any_text_parses_or_is_a_value_error(text: str) -> None:
    """Whatever an owner types, the answer is a name or a ValueError."""
    with contextlib.suppress(ValueError):
        assert names.components(names.parse(text)) is not None


@given(st.binary(max_size=60))
@example(b"\xfd\x00")
@example(b"\x32\x00")
@example(b"\x32\x03\x01\x02\x03")
@example(b"\x00\x00")
@example(b"\xff" * 20)
def test_any_bytes_have_a_text(wire: bytes) -> None:
    """Bytes from the network can always be shown, and are split into components or refused with ValueError."""
    assert isinstance(names.to_uri(wire), str)
    try:
        parts = names.components(wire)
    except ValueError:
        return
    assert b"".join(parts) == wire
    names.last_number(wire, names.SEGMENT)


@given(st.integers(0, (1 << 64) - 1))
def test_numbers_are_shortest_and_come_back(value: int) -> None:
    """TLV numbers and NonNegativeIntegers take the fewest bytes and read back."""
    wire = names.number(value)
    assert names.read_number(wire, 0) == (value, len(wire))
    assert len(wire) == (1 if value < 253 else 3 if value < 1 << 16 else 5 if value < 1 << 32 else 9)
    digits = names.non_negative(value)
    assert int.from_bytes(digits, "big") == value
    assert len(digits) == (1 if value < 256 else 2 if value < 1 << 16 else 4 if value < 1 << 32 else 8)


@given(st.binary(min_size=1, max_size=9))
def test_cut_numbers_are_refused(wire: bytes) -> None:
    """A TLV number that ends too early raises ValueError, never IndexError."""
    for end in range(len(wire)):
        try:
            _, after = names.read_number(wire[:end], 0)
            assert after <= end
        except ValueError:
            pass


@given(st.lists(generic, max_size=6), st.lists(generic, max_size=6))
def test_prefix_is_startswith(first: list[bytes], second: list[bytes]) -> None:
    """One name is a prefix of another exactly when its bytes begin the other's."""
    assert b"".join(second).startswith(b"".join(first)) == (second[: len(first)] == first)


def test_last_number() -> None:
    """The number of a last component of the right type is read; another type or an odd length is None."""
    name = names.parse("/a/v=7/seg=300")
    assert names.last_number(name, names.SEGMENT) == 300
    assert names.last_number(name, names.VERSION) is None
    assert names.last_number(names.parse("/a"), names.SEGMENT) is None
    assert names.last_number(b"", names.SEGMENT) is None
    assert names.last_number(names.tlv(names.SEGMENT, b"\x01\x02\x03"), names.SEGMENT) is None
    assert names.last_number(names.tlv(names.SEGMENT, b""), names.SEGMENT) is None


def test_text_of_a_component() -> None:
    """Only a generic component of UTF-8 is text."""
    assert names.text(names.component("café")) == "café"
    for part in (names.component("x", names.KEYWORD), names.component(b"\xff"), names.segment(1)):
        with pytest.raises(ValueError):
            names.text(part)


def test_names_of_a_network() -> None:
    """Every kind of name has its place below the network's prefix, as in docs/protocol.md."""
    network = names.Network("/guifi/sants")
    sha256 = bytes(range(32))
    uris = {
        "/guifi/sants": network.anchor,
        "/guifi/sants/controller/head": network.head,
        "/guifi/sants/controller/enrol": network.enrol,
        "/guifi/sants/provider/upc": network.provider("upc"),
        "/guifi/sants/provider/upc/service/wiki/v=3": network.service("upc", "wiki", 3),
        "/guifi/sants/node/pisuerga-7": network.node("pisuerga-7"),
        "/guifi/sants/node/pisuerga-7/report": network.report("pisuerga-7"),
        f"/guifi/sants/blob/{sha256.hex()}": network.blob(sha256),
        f"/guifi/sants/controller/head/v={(2 << 32) + 5}": network.head_version(2, 5),
        "/localhop/picasso/hello": names.HELLO,
    }
    assert {uri: names.to_uri(name) for uri, name in uris.items()} == {uri: uri for uri in uris}
    assert network.blob(sha256).startswith(network.blobs)
