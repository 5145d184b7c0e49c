"""A month of churning, noisy links: a service stays where it is, and goes where it should when something changes."""

from __future__ import annotations

import numpy as np
import pytest

from controller import replan
from controller.replan import Rules
from tests.controller.churn import DAY, STEPS_AN_HOUR, Churn

MONTH = 30 * DAY
# Of some 400 outages of links and 1,440 looks; who follows each better placement moves some 200 times.
MOVES_A_MONTH = 8
# As long as a change must last after the most restless days.
FOLLOWED_HOURS = 16


def spoil(network: Churn) -> None:
    """The links of the heads lose four fifths of their rate, for good."""
    network.factor = np.where([bool(network.heads & set(pair)) for pair in network.pairs], 0.2, 1.0)


def hours_until_moved(network: Churn) -> float:
    before, start = network.heads, network.step
    while network.heads == before and network.step < start + 2 * DAY:
        network.run(1)
    return (network.step - start) / STEPS_AN_HOUR


def check_month(nodes: int, seed: int) -> None:
    network = Churn(nodes, seed, Rules())
    network.run(MONTH)
    assert len(network.moves) <= MOVES_A_MONTH
    spoil(network)
    assert Rules().lasting_s() / 3600 <= hours_until_moved(network) <= FOLLOWED_HOURS


def test_month_of_noise_moves_little_and_a_real_change_is_followed() -> None:
    """Twelve nodes: at most two moves a week, none of them by a lost head; what lasts is followed within 16 hours."""
    check_month(12, 0)


def test_rules_are_what_keeps_it_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them a week of the same network has more than ten times the moves that a month may have in a week."""
    monkeypatch.setattr(replan, "UNREST_MAX", 0.0)
    network = Churn(12, 0, Rules(gain=0.0, rounds=1, apart_s=0.0))
    network.run(7 * DAY)
    assert len(network.moves) > 10 * MOVES_A_MONTH * 7 / 30


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_other_months_are_as_quiet(seed: int) -> None:
    """Twenty nodes, other weather."""
    check_month(20, seed)
