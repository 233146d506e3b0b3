"""A few seeds of the simulation, of fewer hours. `prove simulate` runs as many as an hour allows."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.simulation import simulate

SIMULATED_S = 7_200.0
SEED = 12
MUTANT_SEEDS = {"mark before send": (2, 12), "truncate the check-in log early": (13, 4)}
"""Mutant -> seeds that find it; the later ones are for versions of Watchdog in which the first one does not."""


def test_a_seed_breaks_no_promise_and_replays_exactly() -> None:
    report = simulate(SEED, simulated_s=SIMULATED_S)
    assert not report.violations
    assert report.restarts >= 2
    assert len(report.faults) >= 5 + 2  # and outages of targets and restarts
    assert report.trace == simulate(SEED, simulated_s=SIMULATED_S).trace


@pytest.mark.parametrize("name", MUTANT_SEEDS)
def test_a_mutant_is_found(name: str) -> None:
    seeds = MUTANT_SEEDS[name]
    assert any(simulate(seed, MUTANTS[name], simulated_s=SIMULATED_S).violations for seed in seeds)
