"""Which run that its source lists as in progress is lost, and what is known of the others, one case per row."""

from __future__ import annotations

from typing import Any

import pytest

from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.rules.lost_run import reclassify_overdue_running_job_run_as_lost

MIN, HOUR = 60_000, 3_600_000
NOON = 1_777_723_200_000
"""2 May 2026, 12:00 UTC."""
LIMITS = ScheduledJobLimits(max_runtime=10 * MIN)
LISTED = ScheduledJobFacts(
    "backup", running_since=NOON - HOUR, worker="w1", run_id="r1",
    last_start=NOON - 20 * MIN, last_end=NOON - 15 * MIN, last_ok=NOON - 15 * MIN, duration=5 * MIN,
)  # fmt: skip
"""A run started at 11:00; another ran from 11:40 to 11:45."""
LOST = {"running_since": None, "worker": "", "run_id": "", "lost_since": NOON - HOUR, "failures": 0}
NEWEST = {"newest_running_since": NOON - 5 * MIN, "newest_worker": "w2", "newest_run_id": "r2"}


@pytest.mark.parametrize(
    ("sentence", "fields", "becomes"),
    [
        ("a later run has ended", {}, LOST),
        ("no run is in progress", {"running_since": None}, {}),
        ("no run has ended", {"last_end": None}, {}),
        ("when the later run started is not known", {"duration": None}, {}),
        ("its worker is gone: it is stalled", {"stalled": True}, {}),
        ("the run that ended started at the same instant", {"running_since": NOON - 20 * MIN}, {}),
        ("its deadline has not passed", {"running_since": NOON - 10 * MIN + 1, "last_end": NOON, "duration": MIN}, {}),
        ("its deadline passes now",
         {"running_since": NOON - 10 * MIN, "last_end": NOON, "last_ok": NOON, "duration": MIN},
         {**LOST, "lost_since": NOON - 10 * MIN}),
        ("nothing has ever succeeded: it counts as a failure", {"last_ok": None}, {**LOST, "failures": 1}),
        ("the last success was before it", {"last_ok": NOON - 2 * HOUR}, {**LOST, "failures": 1}),
        ("the last success was when it started", {"last_ok": NOON - HOUR}, LOST),
        ("a newer run is in progress: it has a worker and an id of its own", NEWEST,
         {**LOST, "running_since": NOON - 5 * MIN, "worker": "w2", "run_id": "r2"}),
        ("the newest run has started, and is not listed as in progress yet",
         {"last_start": NOON - MIN, **NEWEST, "newest_running_since": None}, {**LOST, "running_since": NOON - MIN}),
        ("both that are listed are lost: the worker and the id are of neither",
         {**NEWEST, "newest_running_since": NOON - 30 * MIN}, {**LOST, "lost_since": NOON - 30 * MIN}),
    ],
)  # fmt: skip
def test_a_run_is_lost(sentence: str, fields: dict[str, Any], becomes: dict[str, Any]) -> None:
    facts = LISTED._replace(**fields)
    assert reclassify_overdue_running_job_run_as_lost(facts, LIMITS, NOON) == facts._replace(**becomes), sentence
