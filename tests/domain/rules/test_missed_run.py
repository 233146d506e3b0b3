"""missed_run: each run of a cron schedule takes place."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.builders import alert_policy
from watchdog.domain.model import Outcome, ProbeResult
from watchdog.domain.rules import missed_run


@pytest.mark.parametrize(
    ("sentence", "fields", "bad"),
    [
        ("it did not take place", {"outcome": Outcome.MISSED, "reason": missed_run.NOT_RUN_REASON}, [True]),
        ("nothing is known of it", {"outcome": Outcome.MISSED, "reason": missed_run.MAY_HAVE_RUN_REASON}, [True]),
        ("a slot of an interval", {"outcome": Outcome.MISSED, "reason": "missed.skipped"}, []),
        ("on time", {"outcome": Outcome.FAIL}, [False]),
        ("on time, without a verdict", {"outcome": Outcome.ERROR}, [False]),
        ("caught up", {"outcome": Outcome.PASS, "measurements": {missed_run.LATE_START_MEASUREMENT: 1}}, []),
    ],
)
def test_a_run_takes_place(sentence: str, fields: dict[str, Any], bad: list[bool]) -> None:
    result = ProbeResult(1, 60_000, "local", **fields)
    assert [finding.bad for finding in missed_run.evaluate_result(alert_policy(), result)] == bad, sentence


def test_a_run_is_named_by_its_time_in_the_zone_of_the_schedule() -> None:
    six = 1_795_842_000_000  # 28 November 2026, 05:00 UTC
    assert missed_run.describe_cron_run(six, six + 60_000, "Europe/Berlin") == "the 06:00 CET run"
