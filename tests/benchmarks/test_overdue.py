"""Overdue jobs in a simulated year: no false alarm, and every skipped run is detected within a minute."""

from __future__ import annotations

from benchmarks.overdue import simulate_jobs


def test_a_year_of_jobs_without_false_alarms() -> None:
    """`./dev prove overdue` does the same with 500 jobs."""
    counts = simulate_jobs(range(15), full_year=False)
    assert counts.runs > 1_500
    assert counts.skipped_runs > 15
    assert (counts.false_alarms, counts.undetected_runs) == (0, 0)
