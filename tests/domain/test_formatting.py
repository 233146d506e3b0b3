from __future__ import annotations

from datetime import datetime

import pytest

from tests.support.alert_contexts import MINUTE_MS, NOW, run_summaries
from watchdog.domain import formatting
from watchdog.domain.model import HealthState, Outcome, RunSummary
from watchdog.domain.remediation_attempts import RemediationAttempt, RemediationAttemptState

NB = "\N{NO-BREAK SPACE}"
SECOND, HOUR, DAY = 1_000, 60 * MINUTE_MS, 24 * 60 * MINUTE_MS


@pytest.mark.parametrize(
    ("ms", "expected", "rounded"),
    [
        (-5, "0 ms", "0 ms"),
        (0.4, "0 ms", "0 ms"),
        (181.6, "182 ms", "181 ms"),
        (999.4, "999 ms", "999 ms"),
        (999.6, "1 s", "999 ms"),
        (1_900, "1.9 s", "1 s"),
        (9_949, "9.9 s", "9 s"),
        (9_960, "10 s", "9 s"),
        (45_600, "45 s", "45 s"),
        (MINUTE_MS - 1, "59 s", "59 s"),
        (MINUTE_MS, "1 min", "1 min"),
        (92 * SECOND, "1 min 32 s", "1 min"),
        (10 * MINUTE_MS + SECOND, "10 min", "10 min"),
        (41 * MINUTE_MS, "41 min", "41 min"),
        (2 * HOUR, "2 h", "2 h"),
        (2 * HOUR + 19 * MINUTE_MS, "2 h 19 min", "2 h 19 min"),
        (26 * HOUR, "26 h", "26 h"),
        (3 * DAY, "3 days", "3 days"),
        (50 * HOUR, "2 days 2 h", "2 days"),
        (30 * DAY + HOUR, "30 days", "30 days"),
    ],
)
def test_a_duration_is_formatted_for_people(ms: float, expected: str, rounded: str) -> None:
    assert formatting.format_duration(ms).replace(formatting.NBSP, " ") == expected
    assert formatting.format_duration_rounded(ms).replace(formatting.NBSP, " ") == rounded


@pytest.mark.parametrize(
    ("ms", "limit", "expected"),
    [
        (41 * MINUTE_MS, 15 * MINUTE_MS, "41 min"),
        (15 * MINUTE_MS + 20 * SECOND, 15 * MINUTE_MS, "15 min 20 s"),
        (16 * MINUTE_MS + 20 * SECOND, 15 * MINUTE_MS, "16 min"),
        (2 * HOUR + 5 * SECOND, 2 * HOUR, "2 h 5 s"),
        (3 * DAY + 5 * MINUTE_MS, 3 * DAY, "72 h 5 min"),
        (15 * MINUTE_MS + 400, 15 * MINUTE_MS, "15 min 400 ms"),
        (9_930, 9_920, "9 s 930 ms"),
    ],
)
def test_a_value_above_a_limit_is_never_formatted_like_the_limit(ms: int, limit: int, expected: str) -> None:
    assert formatting.format_duration_distinct_from_limit(ms, limit).replace(formatting.NBSP, " ") == expected


def test_a_number_and_its_unit_are_never_separated() -> None:
    assert formatting.format_duration(2 * HOUR + 19 * MINUTE_MS) == "2\u00a0h 19\u00a0min"
    assert formatting.format_count_with_noun(2, "probe") == "2\u00a0probes"


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (NOW, "just now"),
        (NOW - 999, "just now"),
        (NOW - 20 * SECOND, "20 s ago"),
        (NOW - 2 * MINUTE_MS - 59 * SECOND, "2 min ago"),
        (NOW + HOUR, "just now"),
    ],
)
def test_ago(then: int, expected: str) -> None:
    assert formatting.format_time_ago(then, NOW).replace(formatting.NBSP, " ") == expected


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (NOW, "01:50"),
        (NOW - HOUR, "00:50"),
        (NOW - 2 * HOUR, "21 Nov 23:50"),
        (NOW - 365 * DAY, "22 Nov 2025 01:50"),
        (NOW + DAY, "23 Nov 01:50"),
    ],
)
def test_an_instant_on_another_day_includes_the_date(at: int, expected: str) -> None:
    assert formatting.format_utc_timestamp_without_zone(at, NOW).replace(formatting.NBSP, " ") == expected


def test_times_for_operators_have_seconds() -> None:
    assert formatting.format_time_of_day(NOW, seconds=True) == "01:50:07"
    assert formatting.format_utc_timestamp_without_zone(NOW, NOW, seconds=True) == "01:50:07"


def test_times_for_programs() -> None:
    assert formatting.format_iso8601(1_795_312_087_120) == "2026-11-22T01:48:07.120Z"


def test_counts() -> None:
    counts = [formatting.format_count_with_noun(n, "result").replace(formatting.NBSP, " ") for n in (0, 1, 2, 12_345)]
    assert counts == ["0 results", "1 result", "2 results", "12\u202f345 results"]


def test_every_state_has_its_own_word_and_shape() -> None:
    for texts in (formatting.HEALTH_STATE_LABELS, formatting.HEALTH_STATE_SYMBOLS):
        assert texts.keys() == set(HealthState)
        assert len(set(texts.values())) == len(HealthState)


@pytest.mark.parametrize(
    ("durations", "line"),
    [
        ([], ""),
        ([0], "▁"),
        ([None], "▁"),
        ([180, 182, 178, 185], "▁▁▁▁"),
        ([180, 180, 180, 720], "▁▁▁▄"),
        ([180, 180, 180, 1_440], "▁▁▁█"),
        ([180, 180, 180, 90_000], "▁▁▁█"),
    ],
    ids=str,
)
def test_a_sparkline_shows_outliers_and_keeps_noise_flat(durations: list[int | None], line: str) -> None:
    assert (
        formatting.format_runs_as_text_sparkline([RunSummary(i, Outcome.PASS, ms) for i, ms in enumerate(durations)])
        == line
    )


def test_a_sparkline_distinguishes_outcomes() -> None:
    runs = [*run_summaries("00x?"), RunSummary(NOW, Outcome.MISSED, None)]
    assert formatting.format_runs_as_text_sparkline(runs) == "▁▁✕?·"


@pytest.mark.parametrize(
    ("at", "timezone", "text"),
    [
        ("2026-03-28T02:30", "UTC", "02:30 UTC"),
        ("2026-03-28T02:30", "Europe/Berlin", "03:30 CET"),
        ("2026-03-29T02:30", "Europe/Berlin", f"29{NB}Mar 04:30 CEST"),
        ("2026-03-27T23:30", "Europe/Berlin", "00:30 CET"),  # the same day there
        ("2026-03-28T02:30", "America/New_York", f"27{NB}Mar 22:30 EDT"),
        ("2026-03-28T02:30", "Asia/Kathmandu", "08:15 +0545"),
    ],
)
def test_a_time_in_a_zone(at: str, timezone: str, text: str) -> None:
    instant, now = (
        round(datetime.fromisoformat(f"{part}+00:00").timestamp() * 1000) for part in (at, "2026-03-28T12:00")
    )
    assert formatting.format_time_in_zone(instant, now, timezone) == text


@pytest.mark.parametrize(
    ("reason", "has_run", "has_schedule", "label"),
    [
        ("job.overdue", True, True, "Overdue"),
        ("task.missing", False, False, "Missing"),
        ("job.of_another_version", True, True, "Job of another version"),
        ("", True, True, "On time"),
        ("", True, False, "Ok"),
        ("", False, True, "Waiting for the first run"),
    ],
)
def test_the_label_of_a_job(reason: str, has_run: bool, has_schedule: bool, label: str) -> None:
    assert formatting.format_job_status_label(reason, has_run=has_run, has_schedule=has_schedule) == label


@pytest.mark.parametrize(
    ("state", "age", "detail", "label", "text"),
    [
        (RemediationAttemptState.SUCCEEDED, 0, "changed 1 row", "succeeded", "UPDATE jobs · changed 1 row"),
        (RemediationAttemptState.FAILED, 0, "", "failed", "UPDATE jobs"),
        (RemediationAttemptState.DRY_RUN, 0, "would change 1 row", "dry run", "UPDATE jobs · would change 1 row"),
        (
            RemediationAttemptState.RATE_LIMITED,
            0,
            "3 runs within 1 h",
            "rate-limited",
            "UPDATE jobs · 3 runs within 1 h",
        ),
        (RemediationAttemptState.STARTED, MINUTE_MS - 1, "", "started", "UPDATE jobs"),
        (RemediationAttemptState.STARTED, MINUTE_MS, "", "started", "UPDATE jobs · outcome unknown"),
    ],
)
def test_a_remediation_in_words(state: RemediationAttemptState, age: int, detail: str, label: str, text: str) -> None:
    attempt = RemediationAttempt("UPDATE jobs", "job.stuck", "", state, NOW - age, None, detail)
    assert formatting.format_remediation_state_and_result(attempt, NOW) == (label, text)
