"""The strategy of a name, and what strategies are called in the management protocol."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.forwarder.strategy_choice import StrategyChoice, UnknownStrategy, short_name, versioned_name
from gateway.protocol import names

NAMES = ["/", "/a", "/a/b", "/a/b/c", "/ab", "/d"]


def _name(uri: str) -> bytes:
    return names.parse(uri) if uri != "/" else b""


@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["best-route", "multicast", "adaptive"])))
def test_the_longest_prefix_decides(chosen: dict[str, str]) -> None:
    """A name has the strategy of its longest prefix that has one, the root's when none has."""
    table = StrategyChoice()
    for uri, strategy in chosen.items():
        table.set(_name(uri), strategy)
    for uri in [*NAMES, "/a/b/c/d", "/a/x", "/z"]:
        fitting = [p for p in chosen if p == "/" or uri == p or uri.startswith(p + "/")]
        expected = chosen[max(fitting, key=len)] if fitting else "best-route"
        assert table.find(_name(uri)) == expected


def test_unset_inherits_again_and_the_root_stays() -> None:
    """A prefix without a choice of its own takes the shorter one's; the root can be replaced only."""
    table = StrategyChoice("multicast")
    table.set(names.parse("/a"), "adaptive")
    assert table.unset(names.parse("/a")) and not table.unset(names.parse("/a"))
    assert table.find(names.parse("/a/b")) == "multicast" and list(table) == [(b"", "multicast")]
    before = table.version
    table.set(b"", "multicast")
    assert table.version > before
    with pytest.raises(ValueError, match="replaced"):
        table.unset(b"")


@pytest.mark.parametrize(
    ("uri", "strategy"),
    [
        ("/localhost/nfd/strategy/best-route/v=5", "best-route"),
        ("/localhost/nfd/strategy/best-route/v=4", "best-route"),
        ("/localhost/nfd/strategy/best-route", "best-route"),
        ("/localhost/nfd/strategy/multicast/v=4", "multicast"),
        ("/localhost/nfd/strategy/asf/v=5", "adaptive"),
        ("/localhost/nfd/strategy/adaptive", "adaptive"),
    ],
)
def test_names_of_the_management_protocol(uri: str, strategy: str) -> None:
    """A strategy is found by its name with the version here, an older one, or none; it is listed with its version."""
    assert short_name(names.parse(uri)) == strategy
    assert short_name(versioned_name(strategy)) == strategy
    assert names.to_uri(versioned_name("adaptive")) == "/localhost/nfd/strategy/asf/v=5"


@pytest.mark.parametrize(
    "uri",
    [
        "/",
        "/a/b",
        "/localhost/nfd/strategy",
        "/localhost/nfd/strategy/access",
        "/localhost/nfd/strategy/%FF%FE",
        "/localhost/nfd/strategy/seg=1",
        "/localhost/nfd/strategy/best-route/v=6",
        "/localhost/nfd/strategy/best-route/v=5/retx~1",
        "/localhost/nfd/strategy/best-route/fast",
    ],
)
def test_strategies_that_are_not_had(uri: str) -> None:
    """An unknown strategy, a newer version, and parameters are refused with a reason, by name and by short name."""
    with pytest.raises(UnknownStrategy):
        short_name(_name(uri))
    with pytest.raises(UnknownStrategy):
        StrategyChoice().set(b"", uri)
