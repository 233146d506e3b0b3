"""Overdue jobs in a simulated year: no false alarm, and every skipped run is detected within a minute."""

from __future__ import annotations

from benchmarks.overdue import simulate_jobs


def test_a_year_of_jobs_without_false_alarms() -> None:
    """`./dev prove overdue` does the same with 500 jobs."""
    tally = simulate_jobs(range(15), full_year=False)
    assert tally.runs > 1_500
    assert tally.skipped_runs > 15
    assert (tally.false_alarms, tally.undetected_runs) == (0, 0)
