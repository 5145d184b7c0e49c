"""The module strategy-choice: which strategy forwards Interests below a prefix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.forwarder.management import encoding
from gateway.forwarder.management.encoding import ControlParameters
from gateway.forwarder.management.module import Command, Dataset, Request, no_arguments, prefix_of
from gateway.forwarder.management.status_codes import BAD_PARAMETERS, NOT_FOUND, Refused
from gateway.forwarder.strategy_choice import StrategyChoice, UnknownStrategy, short_name, versioned_name
from gateway.protocol.names import Name, tlv

_ENTRY = 0x80


class StrategyChoiceModule:
    """set, unset, list."""

    def __init__(self, table: StrategyChoice) -> None:
        self._table = table
        self.commands: Mapping[str, Command] = {"set": self._set, "unset": self._unset}
        self.datasets: Mapping[str, Dataset] = {"list": self._list}

    def _set(self, request: Request) -> ControlParameters:
        prefix, asked = prefix_of(request.parameters), request.parameters.strategy
        if asked is None:
            raise Refused(BAD_PARAMETERS, "a Strategy is missing")
        try:
            strategy = short_name(asked)
        except UnknownStrategy as error:
            raise Refused(NOT_FOUND, str(error)) from error
        self._table.set(prefix, strategy)
        return ControlParameters(name=prefix, strategy=versioned_name(strategy))

    def _unset(self, request: Request) -> ControlParameters:
        prefix = prefix_of(request.parameters)
        try:
            self._table.unset(prefix)
        except ValueError as error:
            raise Refused(BAD_PARAMETERS, str(error)) from error
        return ControlParameters(name=prefix)

    def _list(self, argument: Name) -> Iterator[bytes]:
        no_arguments(argument)
        for prefix, strategy in self._table:
            name = tlv(encoding.NAME, versioned_name(strategy))
            yield tlv(_ENTRY, tlv(encoding.NAME, prefix) + tlv(encoding.STRATEGY, name))
