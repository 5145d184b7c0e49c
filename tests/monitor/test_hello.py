"""Hellos as values: what fits, what is taken of a neighbour's, and where a node says that it may be dialled."""

from __future__ import annotations

import pytest

from gateway.monitor import hello as hellos
from gateway.monitor.linklayer import Address, Interface, LinkLayer
from gateway.protocol import codec, keys, names
from gateway.protocol.messages import Heard, Hello, Reach

LAYER = LinkLayer(
    (Interface(1, "lo", "up"), Interface(2, "mesh0", "up", mac="02:00:00:00:00:02"), Interface(3, "wan", "up")),
    (
        Address(1, "127.0.0.1/8", False),
        Address(2, "fe80::2/64", False),
        Address(2, "10.1.0.1/16", True),
        Address(2, "fd00::1/64", True),
        Address(3, "192.0.2.1/24", True),
    ),
)


def test_what_does_not_fit_is_left_out_from_the_far_end() -> None:
    """Far nodes go first, then blobs; whom it hears is what a neighbour needs most and stays longest."""
    reach = tuple(Reach(f"node-{i:03}", i, b"\0" * 40, f"tcp4://10.0.{i}.1:6363") for i in range(300))
    blobs = tuple(bytes([i]) * 8 for i in range(64))
    heard = tuple(Heard(f"neighbour-{i:03}", 16) for i in range(100))
    content = hellos.compose(Hello("a", "boot", 1, reach=reach, blobs=blobs, heard=heard))
    assert len(content) <= hellos.CONTENT_MAX_BYTES
    said = codec.decode(Hello, content)
    assert said.heard == heard and said.blobs == blobs
    assert 0 < len(said.reach) < 300 and said.reach == reach[: len(said.reach)]
    crowded = tuple(Heard(f"neighbour-{i:04}", 16) for i in range(1000))
    said = codec.decode(Hello, hellos.compose(Hello("a", "boot", 1, reach=reach, blobs=blobs, heard=crowded)))
    assert said.reach == () and said.blobs == () and 0 < len(said.heard) < 1000


def test_what_is_beyond_the_limits_is_not_taken() -> None:
    """Of an acceptable hello only so many rows count, no row about the teller itself, and no blob of another length."""
    reach = (Reach("b", 0), Reach("", 1), Reach("x" * 65, 1), Reach("y", -1), *(Reach(f"n{i}", 1) for i in range(60)))
    said = Hello("b", "boot", 1, blobs=(b"12345678", b"short"), faces=("tcp4://10.0.0.1:1",) * 40, reach=reach)
    wire = keys.sign_data(hellos.data_name("b", 5), codec.encode(said), None)
    taken = hellos.accept(wire, keys.parse, "a")
    assert taken.blobs == (b"12345678",)
    assert len(taken.faces) == hellos.FACES_MAX
    assert {row.node for row in taken.reach} == {f"n{i}" for i in range(hellos.REACH_MAX - 4)}


def test_hello_of_an_older_gateway() -> None:
    """A hello without any of the later keys is as good as ever."""
    wire = keys.sign_data(hellos.data_name("b", 5), codec.encode(Hello("b", "boot", 1)), None)
    taken = hellos.accept(wire, keys.parse, "a")
    assert (taken.blobs, taken.faces, taken.links, taken.reach) == ((), (), (), ())


def test_question_with_news() -> None:
    """A question says by its last component that asking back is worth while, and stays a question."""
    plain, news = hellos.ask_name(b"12345678"), hellos.ask_name(b"12345678", has_news=True)
    assert news == plain + hellos.NEWS and news.startswith(hellos.ASK)
    assert len(news) <= len(hellos.ASK) + 40
    assert names.to_uri(news).endswith("/32=news")


@pytest.mark.parametrize(
    ("listening", "only", "faces"),
    [
        (
            [("udp4", "0.0.0.0", 6363), ("tcp4", "0.0.0.0", 6363)],
            ["mesh0"],
            ("tcp4://10.1.0.1:6363", "udp4://10.1.0.1:6363"),
        ),
        ([("tcp4", "0.0.0.0", 6363)], [], ("tcp4://10.1.0.1:6363", "tcp4://192.0.2.1:6363")),
        ([("tcp6", "::", 6363)], [], ("tcp6://[fd00::1]:6363", "tcp6://[fe80::2]:6363")),
        ([("tcp4", "127.0.0.1", 6363)], [], ("tcp4://127.0.0.1:6363",)),
        ([("tcp4", "ours.example", 6363)], [], ()),
    ],
)
def test_where_it_may_be_dialled(
    listening: list[tuple[str, str, int]], only: list[str], faces: tuple[str, ...]
) -> None:
    """Each address of a socket bound to all of them, global ones before link-local ones, TCP before UDP."""
    assert LAYER.faces(listening, only) == faces


def test_addresses_below_ip_routes() -> None:
    """Link-local and hardware addresses, of interfaces that have any."""
    assert LAYER.link_addresses() == ("fe80::2", "02:00:00:00:00:02")
    assert LAYER.link_addresses(["wan"]) == ()


def test_on_link() -> None:
    """An address is on a link where an interface's network or the link-local range has it, and it is not our own."""
    assert LAYER.on_link("mesh0", "10.1.200.7") and LAYER.on_link("mesh0", "fe80::7")
    for host in ("10.2.0.1", "10.1.0.1", "192.0.2.7", "ff02::1", "0.0.0.0", "", "a.example"):
        assert not LAYER.on_link("mesh0", host)
    assert not LAYER.on_link("gone0", "10.1.200.7")
