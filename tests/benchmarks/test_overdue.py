"""Over a year nobody is called late who is not, and whoever is late is named in the minute after."""

from __future__ import annotations

from benchmarks.overdue import simulate_jobs


def test_a_year_of_jobs_without_one_false_word() -> None:
    """The same with 500 jobs is one of the proofs."""
    tally = simulate_jobs(range(15), full_year=False)
    assert tally.runs > 1_500
    assert tally.skipped_runs > 15
    assert (tally.false_alarms, tally.undetected_runs) == (0, 0)
