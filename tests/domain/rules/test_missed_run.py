"""missed_run: each run of a cron schedule takes place."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.builders import alert_policy
from watchdog.domain.model import Finding, Outcome, ProbeResult
from watchdog.domain.rules import missed_run

BAD = Finding("missed_run", "", True)
GOOD = Finding("missed_run", "", False)


@pytest.mark.parametrize(
    ("sentence", "fields", "findings"),
    [
        ("it did not take place", {"outcome": Outcome.MISSED, "reason": missed_run.NOT_RUN_REASON}, [BAD]),
        ("nothing is known of it", {"outcome": Outcome.MISSED, "reason": missed_run.MAY_HAVE_RUN_REASON}, [BAD]),
        ("a slot of an interval", {"outcome": Outcome.MISSED, "reason": "missed.skipped"}, []),
        ("on time", {"outcome": Outcome.FAIL}, [GOOD]),
        ("on time, without a verdict", {"outcome": Outcome.ERROR}, [GOOD]),
        ("caught up", {"outcome": Outcome.PASS, "measurements": {missed_run.LATE_START_MEASUREMENT_NAME: 1}}, []),
        ("requested", {"outcome": Outcome.PASS, "measurements": {missed_run.REQUESTED_RUN_MEASUREMENT_NAME: True}}, []),
    ],
)
def test_a_run_takes_place(sentence: str, fields: dict[str, Any], findings: list[Finding]) -> None:
    result = ProbeResult(1, 60_000, "local", message="the 06:00 CET run did not take place", **fields)
    expected = [f._replace(reason=result.reason, message=result.message) if f.bad else f for f in findings]
    assert list(missed_run.evaluate_result(alert_policy(), result)) == expected, sentence


def test_a_run_is_named_by_its_time_in_the_zone_of_the_schedule() -> None:
    six = 1_795_842_000_000  # 28 November 2026, 05:00 UTC
    assert missed_run.format_cron_run(six, six + 60_000, "Europe/Berlin") == "the 06:00 CET run"
