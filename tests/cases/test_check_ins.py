"""A run that started is not a run that was done, and a check-in that comes early is not a missing one."""

from __future__ import annotations

from tests.support.check_in_play import DAY, HOUR, MIN, instant, play, reasons

START = instant("2026-03-01T00:00")
NIGHTLY = {"schedule": "0 3 * * *", "grace": "30m"}
THREE = START + 3 * HOUR


def test_every_run_is_killed_without_max_runtime() -> None:
    """Reported at the second start at the latest."""
    check_ins = [(THREE + night * DAY, "start") for night in range(8)]
    verdicts = play(check_ins, range(START, START + 8 * DAY, 10 * MIN), **NIGHTLY)
    assert reasons(verdicts) == ["03-02 03:00 job.lost"]
    assert (
        verdicts[0].message
        == "job: the 1 Mar 03:00 UTC run never reported its end, and a later run started at 03:00 UTC"
    )


def test_one_run_is_killed_and_the_next_ends_well() -> None:
    """The lost run is reported once, as failed."""
    check_ins = [(THREE, "start"), (THREE + DAY, "start"), (THREE + DAY + MIN, "ok")]
    verdicts = play(check_ins, range(START, START + 2 * DAY, 10 * MIN), **NIGHTLY)
    assert reasons(verdicts) == ["03-02 03:00 job.lost", "03-02 03:10 ok"]


def test_the_clock_of_the_sender_is_two_minutes_fast() -> None:
    """On time; never 23 hours of overdue."""
    check_ins = [(THREE + night * DAY - 2 * MIN, "ok") for night in range(1, 4)]
    assert play(check_ins, range(START + 4 * HOUR, START + 4 * DAY, 5 * MIN), **NIGHTLY) == []
    strict = play(check_ins, range(START + 4 * HOUR, START + 2 * DAY, 5 * MIN), **NIGHTLY, early="1m")
    assert reasons(strict) == ["03-02 03:30 job.overdue"]


def test_the_host_of_a_job_with_a_schedule_of_berlin_has_utc() -> None:
    """Each run starts an hour late. The message names the last run, the zone of its times, and the delay."""
    check_ins = [(THREE + day * DAY, "ok") for day in range(-3, 3)]
    berlin = {**NIGHTLY, "timezone": "Europe/Berlin"}
    looks = [START - 3 * DAY, *range(START, START + 2 * DAY, 10 * MIN)]
    verdicts = play(check_ins, looks, **berlin)
    assert reasons(verdicts)[:2] == ["03-01 02:30 job.overdue", "03-01 03:00 ok"]
    explanation = "due 03:00 CET, last run 28 Feb 04:00 CET, the most recent runs all started 1 h late"
    assert verdicts[0].message == f"job is overdue: {explanation}"


# --- further members of the kind


def test_no_run_follows_the_one_that_was_killed() -> None:
    verdicts = play([(THREE, "start")], range(START, START + 2 * DAY, 10 * MIN), **NIGHTLY)
    assert reasons(verdicts) == ["03-02 03:30 job.overdue"]
    assert "still running since" in verdicts[0].message


def test_every_run_with_an_id_is_killed() -> None:
    check_ins = [(THREE + night * DAY, "start", f"run-{night}") for night in range(8)]
    verdicts = play(check_ins, range(START, START + 8 * DAY, 10 * MIN), **NIGHTLY)
    assert reasons(verdicts) == ["03-02 03:00 job.lost"]


def test_every_run_is_killed_and_all_have_the_same_id() -> None:
    check_ins = [(THREE + night * DAY, "start", "backup-host") for night in range(8)]
    verdicts = play(check_ins, range(START, START + 8 * DAY, 10 * MIN), **NIGHTLY)
    assert reasons(verdicts) == ["03-02 03:00 job.lost"]


def test_one_killed_run_with_an_id_is_stuck_until_the_next_has_ended() -> None:
    check_ins = [(THREE, "start", "a")]
    for night in range(1, 4):
        at = THREE + night * DAY
        check_ins += [(at, "start", f"b{night}"), (at + 20 * MIN, "0", f"b{night}")]
    verdicts = play(check_ins, range(START, START + 4 * DAY, 10 * MIN), **NIGHTLY, max_runtime="2h")
    assert reasons(verdicts) == ["03-01 05:10 job.stuck", "03-02 03:20 job.lost", "03-02 03:30 ok"]


def test_one_killed_run_with_an_id_is_reported_once_without_max_runtime() -> None:
    check_ins = [(THREE, "start", "a")]
    for night in range(1, 4):
        at = THREE + night * DAY
        check_ins += [(at, "start", f"b{night}"), (at + 20 * MIN, "0", f"b{night}")]
    verdicts = play(check_ins, range(START, START + 4 * DAY, 10 * MIN), **NIGHTLY)
    assert reasons(verdicts) == ["03-02 03:00 job.lost", "03-02 03:20 ok"]


def test_a_lost_run_counts_as_one_failure() -> None:
    killed = [(THREE + night * DAY, "start") for night in range(5)]
    verdicts = play(killed, range(START, START + 5 * DAY, 10 * MIN), **NIGHTLY, failures=3)
    assert reasons(verdicts) == ["03-04 03:00 job.lost"]
    assert verdicts[0].message.endswith(
        "run never reported its end, and a later run started at 03:00 UTC; 3 runs in a row have failed or been lost"
    )
    failed_between = [*killed[:2], (THREE + DAY + MIN, "3"), *killed[2:4]]
    verdicts = play(failed_between, range(START, START + 4 * DAY, 10 * MIN), **NIGHTLY, failures=3)
    assert reasons(verdicts) == ["03-04 03:00 job.lost"]
    one_good = [*killed[:2], (THREE + DAY + MIN, "ok"), *killed[2:5]]
    assert play(one_good, range(START, START + 4 * DAY, 10 * MIN), **NIGHTLY, failures=3) == []


def test_a_later_end_takes_back_a_lost_run() -> None:
    """Two runs overlap: the second end is that of the first run."""
    overlapping = [(THREE, "start"), (THREE + DAY, "start"), (THREE + DAY + 5 * MIN, "ok"), (THREE + DAY + HOUR, "ok")]
    verdicts = play(overlapping, range(START, START + 3 * DAY, MIN), **NIGHTLY)
    assert reasons(verdicts) == ["03-02 03:00 job.lost", "03-02 03:05 ok", "03-03 03:30 job.overdue"]


def test_a_run_of_thirty_hours_takes_itself_back() -> None:
    check_ins = [(THREE, "start", "a"), (THREE + DAY, "start", "b"), (THREE + 30 * HOUR, "ok", "a")]
    check_ins += [(THREE + DAY + 30 * HOUR, "ok", "b"), (THREE + 2 * DAY, "start", "c")]
    check_ins += [(THREE + 3 * DAY, "start", "d"), (THREE + 2 * DAY + 30 * HOUR, "ok", "c")]
    verdicts = play(check_ins, range(START, START + 4 * DAY, 10 * MIN), **NIGHTLY)
    assert reasons(verdicts) == ["03-02 03:00 job.lost", "03-02 09:00 ok"]  # only while no run has ever ended


def test_verdicts_about_an_ended_run_hold_until_another_run_has_ended() -> None:
    for ended_after, what, settings, reason in (
        (3 * HOUR, "ok", {"max_runtime": "2h"}, "job.max_runtime"),
        (1_000, "ok", {"min_runtime": "1m"}, "job.min_runtime"),
        (10 * MIN, "3", {}, "job.failed"),
    ):
        check_ins = [(THREE, "start"), (THREE + ended_after, what)]
        check_ins += [(THREE + DAY, "start"), (THREE + DAY + 90 * MIN, "ok")]
        verdicts = play(check_ins, range(START, START + 2 * DAY, 10 * MIN), **NIGHTLY, **settings)
        assert [v.reason for v in verdicts if v.reason not in ("job.stuck",)] == [reason, ""], reason
        assert verdicts[-1].time == "03-02 04:30"
