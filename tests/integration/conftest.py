"""Gateways that every test leaves stopped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gateways import GatewayProcess, Network


@pytest.fixture
def make_gateway(tmp_path: Path) -> Iterator[Callable[..., GatewayProcess]]:
    """Makes gateways by node name; all are stopped at the end."""
    made: list[GatewayProcess] = []

    def make(node: str, text: str = "", network: str = "/test/net") -> GatewayProcess:
        made.append(GatewayProcess(tmp_path / node, node, text, network))
        return made[-1]

    yield make
    for gateway in made:
        gateway.stop()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """A network with a running controller."""
    made = Network(tmp_path / "controller").start()
    yield made
    made.stop()
