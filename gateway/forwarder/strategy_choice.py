"""Strategy choice: which forwarding strategy serves a name, by its longest prefix that has one.

A strategy has a short name here and a versioned NDN name in NFD's management protocol. The version counts changes of
its behaviour; who asks for an older one gets the newest, who asks for one that is not there is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.forwarder.packet import component_ends
from gateway.protocol import names
from gateway.protocol.names import Name

BEST_ROUTE, MULTICAST, ADAPTIVE = "best-route", "multicast", "adaptive"

STRATEGIES = names.parse("/localhost/nfd/strategy")
# `adaptive` is known to management clients by the name of NFD's strategy that does the same.
_PROTOCOL_NAMES = {BEST_ROUTE: ("best-route", 5), MULTICAST: ("multicast", 4), ADAPTIVE: ("asf", 5)}
_SHORT_NAMES = {short: short for short in _PROTOCOL_NAMES} | {
    wire: short for short, (wire, _) in _PROTOCOL_NAMES.items()
}


class UnknownStrategy(ValueError):
    """A strategy, a version of it, or parameters that are not had here."""


class StrategyChoice:
    """Prefix -> short strategy name; the root always has one.

    `version` grows with every change, for who remembers what was found.
    """

    def __init__(self, default: str = BEST_ROUTE) -> None:
        self._chosen: dict[Name, str] = {b"": _known(default)}
        self.version = 0

    def set(self, prefix: Name, strategy: str) -> None:
        """Chooses a strategy by its short name; raises UnknownStrategy."""
        self._chosen[prefix] = _known(strategy)
        self.version += 1

    def unset(self, prefix: Name) -> bool:
        """Lets the prefix inherit again; whether it had a choice of its own. The root's raises ValueError."""
        if not prefix:
            raise ValueError("the strategy of / can be replaced, not removed")
        self.version += 1
        return self._chosen.pop(prefix, None) is not None

    def find(self, name: Name) -> str:
        """The short name of the strategy that serves `name`."""
        chosen = self._chosen
        if len(chosen) > 1:
            for end in reversed(component_ends(name)):
                strategy = chosen.get(name[:end])
                if strategy is not None:
                    return strategy
        return chosen[b""]

    def __iter__(self) -> Iterator[tuple[Name, str]]:
        return iter(sorted(self._chosen.items()))

    def __len__(self) -> int:
        return len(self._chosen)


def versioned_name(strategy: str) -> Name:
    """The NDN name of a strategy with its version; raises UnknownStrategy."""
    text, version = _PROTOCOL_NAMES[_known(strategy)]
    return STRATEGIES + names.component(text) + names.version(version)


def short_name(name: Name) -> str:
    """The strategy of an NDN name, with or without a version; raises UnknownStrategy with the reason."""
    parts = names.components(name[len(STRATEGIES) :]) if name.startswith(STRATEGIES) else []
    if not parts:
        raise UnknownStrategy(f"{names.to_uri(name)} is no strategy: its name begins with {names.to_uri(STRATEGIES)}")
    strategy = _short(parts[0])
    version = names.last_number(b"".join(parts[:2]), names.VERSION) if len(parts) > 1 else None
    if len(parts) > 2 or (len(parts) == 2 and version is None):
        raise UnknownStrategy(f"{names.to_uri(name)}: {strategy} takes no parameters")
    newest = _PROTOCOL_NAMES[strategy][1]
    if version is not None and version > newest:
        raise UnknownStrategy(f"{names.to_uri(name)}: version {newest} of {strategy} is the newest here")
    return strategy


def _short(part: bytes) -> str:
    try:
        text = names.text(part)
    except ValueError as error:
        raise UnknownStrategy(f"no strategy is called 0x{part.hex()}") from error
    return _known(text)


def _known(strategy: str) -> str:
    short = _SHORT_NAMES.get(strategy)
    if short is None:
        raise UnknownStrategy(f"strategy {strategy!r} is not known; {', '.join(_PROTOCOL_NAMES)} are")
    return short
