"""A few seeds of the simulation. `prove simulate` runs as many as an hour allows."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.simulation import simulate

SEEDS = (12, 28)
MUTANT_SEEDS = {"mark before send": 12, "truncate the check-in log early": 13}
"""Mutant -> a seed that finds it."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_breaks_no_promise(seed: int) -> None:
    report = simulate(seed)
    assert not report.violations
    assert report.restarts >= 2
    assert len(report.faults) >= 5 + 2  # and outages of targets and restarts


def test_a_seed_replays_exactly() -> None:
    assert simulate(SEEDS[0]).trace == simulate(SEEDS[0]).trace


@pytest.mark.parametrize("name", MUTANT_SEEDS)
def test_a_mutant_is_found(name: str) -> None:
    assert simulate(MUTANT_SEEDS[name], MUTANTS[name]).violations
