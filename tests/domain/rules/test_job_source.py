"""A source of jobs over several runs: what vanishes, what returns, what an operator forgets, and a dead scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from tests.support.builders import PROBE_DATABASE_ID, SLOT_INTERVAL_MS
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.model import IncidentTransition, Json, ProbeInfo, ProbeResult
from watchdog.domain.observations import JobSourceSnapshot, ScheduledJobFacts, SchedulerLiveness
from watchdog.domain.probe_state import (
    JOB_SOURCE_OUTAGE_STATE_KEY,
    JOB_SOURCE_SCHEDULER_HEARTBEAT_STATE_KEY,
    WAITING_FOR_FIRST_RUN_STATE_KEY,
    JobSourceOutageRecord,
    JobSourceSchedulerHeartbeatRecord,
    SavedScheduledJobState,
    ScheduledJobStateRecord,
    build_forget_job_state_key,
    build_scheduled_job_state_key,
)
from watchdog.domain.rules import (
    AlertPolicy,
    AlertStates,
    derive_findings_from_result,
    fold_results_into_alert_states_in_place,
)
from watchdog.domain.rules.job_source import (
    EvaluatedJobSource,
    build_state_update_of_job_source_outage_start,
    evaluate_job_source,
)
from watchdog.domain.rules.unreadable_schedule import find_unjudged_job_reason_and_message
from watchdog.domain.schedule import CronSchedule
from watchdog.domain.uptime_clock import DowntimeGaps
from watchdog.net.errors import ProbeError
from watchdog.net.phases import PhaseTimer
from watchdog.probes.base import ProbeAttemptContext
from watchdog.probes.expectations import build_observation_from_error
from watchdog.probes.jobs import build_jobs_observation

MIN, HOUR, DAY = SLOT_INTERVAL_MS, 3_600_000, 86_400_000
NOON = 1_777_723_200_000
"""2 May 2026, 12:00 UTC."""
REST = {"*": ScheduledJobLimits()}
LOCATION = "redbeat::schedule does not exist"


class Poller:
    """Runs of one probe, a minute apart, whose results are folded as they come."""

    def __init__(self, limits: Mapping[str, ScheduledJobLimits] = REST, scheduler: SchedulerLiveness | None = None):
        self.limits, self.scheduler = limits, scheduler
        self.required = tuple(name for name in limits if name != "*")
        self.state: dict[str, Json] = {}
        self.alerts: AlertStates = {}
        self.results: list[ProbeResult] = []
        self.now = NOON
        self.gaps: DowntimeGaps = ()

    @property
    def policy(self) -> AlertPolicy:
        info = ProbeInfo(PROBE_DATABASE_ID, "jobs", "Jobs", "jobs", job_limits=self.limits)
        return AlertPolicy(info, lambda _: 3 * DAY, failure_threshold=1, success_threshold=1)

    def poll(self, *jobs: ScheduledJobFacts, after: int = MIN, **fields: Any) -> list[str]:
        """One run, and what the fold decides by it: "opened job[a]: job.gone"."""
        self.now += after
        snapshot = JobSourceSnapshot(self.now, jobs, self.scheduler, **{"location": LOCATION, **fields})
        source = evaluate_job_source(snapshot, self.limits, self.required, self.state, self.gaps)
        network: Any = None
        context = ProbeAttemptContext(self.now, self.now, 5.0, "", self.state, network)
        if source.is_readable:
            observation = build_jobs_observation(source, context, self.now)
        else:
            observation = build_observation_from_error(ProbeError(source.reason, source.message), PhaseTimer())
        for key, value in observation.state_updates.items():
            self.state[key] = value
            if value is None:
                del self.state[key]
        result = ProbeResult(
            PROBE_DATABASE_ID, self.now, "local", observation.outcome, observation.reason, observation.message,
            listings=observation.listings,
        )  # fmt: skip
        self.results.append(result)
        done = fold_results_into_alert_states_in_place(self.policy, self.alerts, self.now - 1, [result], lambda _: True)
        return describe(done.transitions)

    def lose_source(self) -> None:
        """A run to which the server that holds the jobs gives no answer."""
        self.now += MIN
        self.state |= build_state_update_of_job_source_outage_start(self.state, self.now)

    def replay(self) -> list[str]:
        return describe(
            fold_results_into_alert_states_in_place(self.policy, {}, 0, self.results, lambda _: True).transitions
        )

    def forget(self, name: str) -> None:
        self.state[build_forget_job_state_key(build_scheduled_job_state_key(name))] = {"name": name, "at": self.now}

    @property
    def message(self) -> str:
        return self.results[-1].message

    @property
    def open_incidents(self) -> list[tuple[str, str]]:
        return sorted(key for key, state in self.alerts.items() if state.incident is not None)


def describe(transitions: Iterable[IncidentTransition]) -> list[str]:
    return [
        f"{c.event} {c.rule}{f'[{c.subject}]' if c.subject else ''}{f': {c.reason}' if c.reason else ''}"
        for c in transitions
    ]


def jobs(names: str, **facts: Any) -> tuple[ScheduledJobFacts, ...]:
    """One for each letter, due at midnight every day, last run at noon."""
    return tuple(ScheduledJobFacts(name, **{"cron": "0 0 * * *", "last_start": NOON, **facts}) for name in names)


# --- a source that was away


def test_jobs_have_their_grace_again_when_their_server_returns() -> None:
    """None of them could run in the meantime."""
    poller = Poller({"*": ScheduledJobLimits(grace=2 * MIN)})
    often = jobs("ab", cron="* * * * *")
    assert poller.poll(*often) == []
    for _ in range(5):
        poller.lose_source()
    assert poller.poll(*often) == []
    ran = often[0]._replace(last_start=poller.now)
    assert poller.poll(ran, often[1]) == []
    assert poller.poll(ran, often[1]) == []
    ran = ran._replace(last_start=poller.now)
    assert poller.poll(ran, often[1]) == ["opened job[b]: job.overdue"]
    for _ in range(5):
        poller.lose_source()
    assert poller.poll(ran, often[1]) == [], "what was late before stays open"
    assert poller.open_incidents == [("job", "b")]


def test_a_server_that_is_away_again_and_again_delays_a_late_job_by_one_grace() -> None:
    poller = Poller({"*": ScheduledJobLimits(grace=2 * MIN)})
    late = jobs("ab", cron="* * * * *")
    assert poller.poll(*late) == []
    decided = []
    for _ in range(5):
        poller.lose_source()
        decided += poller.poll(*late)
    assert decided == ["opened job[a]: job.overdue", "opened job[b]: job.overdue"]
    assert poller.now - NOON == 11 * MIN
    assert poller.replay() == decided


def test_jobs_that_return_have_their_grace_again() -> None:
    poller = Poller({"*": ScheduledJobLimits(grace=2 * MIN)})
    often = jobs("abc", cron="* * * * *")
    poller.poll(*often)
    assert poller.poll() == ["opened source: job.most_gone"]
    assert poller.poll(*often, after=9 * MIN) == ["resolved source"]
    assert poller.poll(*often, after=3 * MIN) == [f"opened job[{name}]: job.overdue" for name in "abc"]


def test_a_source_that_reports_late_has_its_lag_beside_the_grace_when_its_jobs_return() -> None:
    poller = Poller({"*": ScheduledJobLimits(grace=2 * MIN)})
    often, lag = jobs("abc", cron="* * * * *"), {"reporting_lag": 3 * MIN}
    poller.poll(*often, **lag)
    assert poller.poll(**lag) == ["opened source: job.most_gone"]
    assert poller.poll(*often, after=20 * MIN, **lag) == ["resolved source"]
    assert poller.poll(*often, after=5 * MIN, **lag) == []
    assert poller.poll(*often, after=1, **lag) == [f"opened job[{name}]: job.overdue" for name in "abc"]


@pytest.mark.parametrize("timeout", [None, 2 * MIN])
def test_a_scheduler_may_be_silent_for_as_long_again_when_its_server_returns(timeout: int | None) -> None:
    poller = Poller({"*": ScheduledJobLimits(grace=2 * MIN)}, SchedulerLiveness("beat", timeout, timeout and NOON))
    often = jobs("ab", cron="* * * * *")
    assert poller.poll(*often) == []
    for _ in range(5):
        poller.lose_source()
    assert poller.poll(*often) == []
    assert poller.poll(*often, after=2 * MIN) == []
    assert poller.poll(*often) == ["opened availability: job.scheduler_dead"]


def test_a_dead_scheduler_hides_its_jobs_and_not_when_its_server_returned() -> None:
    away = build_state_update_of_job_source_outage_start({}, NOON - HOUR)
    returned = evaluate_heartbeat(NOON, away).state_updates
    assert returned[JOB_SOURCE_OUTAGE_STATE_KEY] == JobSourceOutageRecord(NOON - HOUR, NOON).to_json()
    scheduler = SchedulerLiveness("RQ scheduler", 2 * MIN, NOON)
    later = JobSourceSnapshot(NOON + DAY, jobs("ab"), scheduler)
    assert evaluate_job_source(later, REST, (), returned) == EvaluatedJobSource(
        (), "job.scheduler_dead", "no RQ scheduler is running: the last heartbeat was at 2\N{NO-BREAK SPACE}May "
        "12:00:00 UTC", is_readable=False,
        state_updates={JOB_SOURCE_OUTAGE_STATE_KEY: returned[JOB_SOURCE_OUTAGE_STATE_KEY]},
    )  # fmt: skip


# --- what the scheduler has taken


@pytest.mark.parametrize(
    ("sentence", "announced_before", "taken_before", "facts", "taken"),
    [
        ("the next run is announced", NOON - MIN, None, {"next_due": NOON + DAY}, NOON - MIN),
        ("the run that is due now was taken at once", NOON, None, {"next_due": NOON + DAY}, NOON),
        ("nothing new is announced", NOON + DAY, NOON - MIN, {"next_due": NOON + DAY}, NOON - MIN),
        ("a run before the announced one is announced", NOON + DAY, NOON - MIN, {"next_due": NOON + HOUR}, NOON - MIN),
        ("the run that was taken is announced again", NOON + DAY, NOON - MIN, {"next_due": NOON - MIN}, None),
        ("no run is announced any more", NOON - MIN, NOON - DAY, {}, NOON - DAY),
        ("the run waits for a worker", NOON - MIN, NOON - DAY, {"next_due": NOON + DAY, "sent": True}, NOON - DAY),
    ],
)
def test_the_newest_run_that_a_scheduler_has_taken(
    sentence: str, announced_before: int, taken_before: int | None, facts: dict[str, Any], taken: int | None
) -> None:
    saved = SavedScheduledJobState("", NOON - DAY, next_due=announced_before, advanced_at=taken_before)
    (job,) = evaluate_job_source(snapshot(ScheduledJobFacts("a", **facts)), REST, (), remember("a", saved)).jobs
    assert (job.facts.advanced_at, job.state.advanced_at) == (taken, taken), sentence


def remember(name: str, saved: SavedScheduledJobState) -> dict[str, Json]:
    return {build_scheduled_job_state_key(name): ScheduledJobStateRecord(name, saved).to_json()}


# --- vanished


@pytest.mark.parametrize(
    ("sentence", "before", "after", "expected"),
    [
        ("all of several", "abc", "", ["opened source: job.most_gone"]),
        ("most of several", "abcde", "ab", ["opened source: job.most_gone"]),
        ("exactly half", "abcd", "ab", ["opened job[c]: job.gone", "opened job[d]: job.gone"]),
        ("one of several", "abc", "ab", ["opened job[c]: job.gone"]),
        ("one of two", "ab", "a", ["opened job[b]: job.gone"]),
        ("the only one", "a", "", ["opened job[a]: job.gone"]),
        ("nothing", "abc", "abc", []),
    ],
)
def test_jobs_that_are_no_longer_listed(sentence: str, before: str, after: str, expected: list[str]) -> None:
    poller = Poller()
    assert poller.poll(*jobs(before)) == []
    assert poller.poll(*jobs(after)) == expected, sentence
    assert poller.poll(*jobs(after)) == [], "once"
    recovered = poller.poll(*jobs(before))
    assert [line.replace("resolved", "opened") for line in recovered] == [line.split(":")[0] for line in expected]
    assert poller.replay() == [*expected, *recovered]


def test_the_only_job_of_a_source_that_is_empty_now_is_gone_with_the_place() -> None:
    poller = Poller()
    poller.poll(*jobs("a"))
    poller.poll()
    assert message_of(poller, "a") == f"a is gone: its source has not listed it since 12:02 UTC: {LOCATION}"
    poller.poll(*jobs("b"))
    assert message_of(poller, "a") == "a is gone: its source has not listed it since 12:02 UTC", "it is not empty"


def message_of(poller: Poller, name: str) -> str:
    """What the newest result shows of a job."""
    result = poller.results[-1]
    return next(
        f.message for f in derive_findings_from_result(poller.policy, result) if (f.rule, f.subject) == ("job", name)
    )


def test_the_message_names_what_vanished_and_where() -> None:
    poller = Poller()
    poller.poll(*jobs("abcdefg"))
    poller.poll()
    assert poller.message == f"{LOCATION}; none of its 7 jobs is listed any more: a, b, c, d, e and 2 more"
    poller.poll(*jobs("a"))
    assert poller.message == "6 of 7 jobs are no longer listed: b, c, d, e, f and 1 more"
    poller.poll(*jobs("ab"))
    assert poller.message == "5 of 7 jobs are no longer listed: c, d, e, f, g"
    poller.poll(*jobs("abc"))
    assert poller.message == "4 of 7 jobs are no longer listed: d, e, f, g"


def test_nothing_recovers_because_jobs_vanish() -> None:
    poller = Poller()
    failed, late, unreadable = (
        ScheduledJobFacts("failed", last_start=NOON, last_end=NOON, failures=1),
        ScheduledJobFacts("late", every=HOUR, next_due=NOON - DAY),
        ScheduledJobFacts("unreadable", cron="0 * * * *", timezone="Mars"),
    )
    opened = poller.poll(failed, late, unreadable)
    assert opened == [
        "opened job[failed]: job.failed", "opened job[late]: job.overdue",
        "opened schedule[unreadable]: job.schedule_unreadable",
    ]  # fmt: skip
    assert poller.poll() == ["opened source: job.most_gone"]
    assert poller.poll() == []
    assert len(poller.open_incidents) == 4
    assert poller.poll(failed, late, unreadable) == ["resolved source"], "the others are as bad as before"
    fine = (
        ScheduledJobFacts("failed", last_start=NOON, last_end=NOON + 1, last_ok=NOON + 1),
        ScheduledJobFacts("late", every=HOUR, next_due=NOON + DAY),
    )
    assert poller.poll(*fine, ScheduledJobFacts("unreadable", cron="0 * * * *")) == [
        "resolved job[failed]", "resolved job[late]", "resolved schedule[unreadable]"
    ]  # fmt: skip


def test_a_dead_scheduler_does_not_recover_because_its_jobs_vanish() -> None:
    poller = Poller(scheduler=SchedulerLiveness("Celery beat"))
    late = jobs("ab", next_due=NOON - HOUR, last_start=NOON - DAY)
    assert poller.poll(*jobs("ab", next_due=NOON + DAY)) == []
    assert poller.poll(*late) == ["opened availability: job.scheduler_dead"]
    assert poller.poll() == ["opened source: job.most_gone"]
    assert poller.open_incidents == [("availability", ""), ("source", "")]
    assert sorted(poller.poll(*jobs("ab", next_due=NOON + DAY))) == ["resolved availability", "resolved source"]


def test_single_jobs_that_vanish_one_by_one_are_one_incident_once_they_are_most() -> None:
    poller = Poller()
    poller.poll(*jobs("abcd"))
    assert poller.poll(*jobs("abc")) == ["opened job[d]: job.gone"]
    assert poller.poll(*jobs("ab")) == ["opened job[c]: job.gone"]
    assert poller.poll(*jobs("a")) == ["opened source: job.most_gone"]
    assert poller.poll(*jobs("ab")) == ["resolved source"], "half are listed again"
    assert poller.open_incidents == [("job", "c"), ("job", "d")]


@pytest.mark.parametrize(
    ("sentence", "fields"),
    [
        ("a disabled job", {"enabled": False}),
        ("a job whose last run was announced and is due", {"final": True, "next_due": NOON + 2 * MIN}),
        ("a job that has no further run", {"final": True}),
    ],
)
def test_jobs_that_are_not_missed(sentence: str, fields: dict[str, Any]) -> None:
    poller = Poller()
    poller.poll(*jobs("a"), *jobs("b", **fields))
    assert poller.poll(*jobs("a")) == [], sentence
    assert build_scheduled_job_state_key("b") not in poller.state


def test_a_job_that_vanishes_before_its_last_run_is_due_is_missed() -> None:
    poller = Poller()
    poller.poll(*jobs("a"), *jobs("b", final=True, next_due=NOON + 2 * MIN + 1))
    assert poller.poll(*jobs("a")) == ["opened job[b]: job.gone"]


def test_a_job_that_may_run_once_is_not_missed_after_its_run_and_one_that_runs_again_is() -> None:
    poller = Poller()
    fields = {"drops_one_off_jobs": True}
    poller.poll(*jobs("ab", last_start=None, cron="", next_due=NOON + 2 * MIN), **fields)
    a_again = jobs("a", last_start=None, cron="", next_due=NOON + DAY)
    assert poller.poll(*a_again, *jobs("c"), **fields) == []
    assert poller.poll(*jobs("c"), **fields) == ["opened job[a]: job.gone"], "b has run, a was to run again"


VANISHED_AT = NOON + 2 * MIN


@pytest.mark.parametrize(
    ("sentence", "last_start", "kept_since", "is_missed"),
    [
        ("its last run was deleted", NOON - 8 * DAY, NOON - 7 * DAY, False),
        ("its last run is the oldest that may be deleted", NOON - 8 * DAY, NOON - 8 * DAY, False),
        ("its last run is kept", NOON - 8 * DAY, NOON - 8 * DAY - 1, True),
        ("a run that is a day old may be deleted", VANISHED_AT - DAY, VANISHED_AT, False),
        ("newer runs are not deleted by their age", VANISHED_AT - DAY + 1, VANISHED_AT, True),
        ("it has never run", None, NOON - 7 * DAY, True),
    ],
)
def test_a_job_whose_old_runs_the_source_has_deleted_is_not_missed(
    sentence: str, last_start: int | None, kept_since: int, is_missed: bool
) -> None:
    poller = Poller()
    poller.poll(*jobs("a"), *jobs("b", cron="0 0 1 * *", last_start=last_start), kept_since=kept_since)
    assert poller.poll(*jobs("a"), kept_since=kept_since) == ["opened job[b]: job.gone"] * is_missed, sentence


def test_a_job_that_is_missed_stays_so_when_its_old_runs_are_deleted() -> None:
    poller = Poller()
    poller.poll(*jobs("a"), *jobs("b", cron="0 0 1 * *", last_start=NOON - 8 * DAY))
    assert poller.poll(*jobs("a"), kept_since=NOON - 9 * DAY) == ["opened job[b]: job.gone"]
    assert poller.poll(*jobs("a"), kept_since=NOON - 7 * DAY) == []
    assert poller.open_incidents == [("job", "b")]


def test_what_was_known_of_a_gone_job_is_kept() -> None:
    """Pages show it beside the incident. Its record stays where it is, also if its name is masked by now."""
    remembered_facts: dict[str, Any] = {
        "last_start": NOON - 3 * HOUR, "last_end": NOON - 2 * HOUR, "last_ok": NOON - DAY, "duration": HOUR,
        "failures": 2, "expected_from": NOON - 9 * DAY, "advanced_at": NOON - 3 * HOUR,
    }  # fmt: skip
    key = build_scheduled_job_state_key("sync token=abc")
    saved = SavedScheduledJobState("0 9 * * * UTC", **remembered_facts)
    state = {key: ScheduledJobStateRecord("sync token=***", saved).to_json()}
    (_, gone) = evaluate_job_source(snapshot(ScheduledJobFacts("a")), REST, (), state).jobs
    assert gone.facts == ScheduledJobFacts("sync token=***", listed=False, gone_since=NOON, **remembered_facts)
    assert (gone.state_key, gone.state) == (key, saved._replace(gone_since=NOON))


def test_a_required_job_with_a_schedule_of_its_own_is_judged_by_it_alone() -> None:
    poller = Poller(REST | {"b": ScheduledJobLimits(schedule=CronSchedule("0 0 * * *"))})
    poller.poll(*jobs("ab"))
    assert poller.poll(*jobs("a")) == []
    assert poller.poll(*jobs("a", last_start=NOON + 13 * HOUR), after=13 * HOUR) == ["opened job[b]: job.overdue"]


# --- how it ends


def poller_after_vanishing(before: str, after: str, limits: Mapping[str, ScheduledJobLimits] = REST) -> Poller:
    poller = Poller(limits)
    poller.poll(*jobs(before, cron=""))
    poller.poll(*jobs(after, cron=""))
    return poller


@pytest.mark.parametrize(
    ("before", "after", "resolved"),
    [("abc", "ab", "job[c]"), ("abcde", "ab", "source")],
)
def test_a_stable_source_is_believed_after_a_day(before: str, after: str, resolved: str) -> None:
    poller = poller_after_vanishing(before, after)
    assert poller.poll(*jobs(after, cron=""), after=DAY - 1) == []
    assert poller.poll(*jobs(after, cron=""), after=1) == [f"resolved {resolved}: job.removal_accepted"]
    assert poller.poll(*jobs(after, cron="")) == []
    assert sorted(poller.results[-1].listings["job"].subjects) == list(after)
    assert poller.replay()[-1] == f"resolved {resolved}: job.removal_accepted"


def test_the_day_does_not_pass_while_watchdog_is_down() -> None:
    poller = poller_after_vanishing("abc", "ab")
    poller.gaps = ((poller.now + HOUR, poller.now + 3 * HOUR),)
    assert poller.poll(*jobs("ab", cron=""), after=DAY + 2 * HOUR - 1) == []
    assert poller.poll(*jobs("ab", cron=""), after=1) == ["resolved job[c]: job.removal_accepted"]


def test_each_removal_has_its_own_day_while_most_jobs_are_listed() -> None:
    poller = poller_after_vanishing("abcdefg", "abcdef")
    assert poller.poll(*jobs("abcde", cron=""), after=12 * HOUR) == ["opened job[f]: job.gone"]
    assert poller.poll(*jobs("abcde", cron=""), after=12 * HOUR) == ["resolved job[g]: job.removal_accepted"]
    assert poller.poll(*jobs("abcde", cron=""), after=12 * HOUR) == ["resolved job[f]: job.removal_accepted"]


def test_the_day_starts_again_when_a_vanished_job_returns() -> None:
    poller = poller_after_vanishing("abcdefg", "ab")
    assert poller.poll(*jobs("abc", cron=""), after=DAY - HOUR) == []
    assert poller.poll(*jobs("abc", cron=""), after=DAY - 1) == [], "4 of 7 are still missing, since an hour ago"
    assert poller.poll(*jobs("abc", cron=""), after=1) == ["resolved source: job.removal_accepted"]


def test_a_source_that_lists_nothing_is_never_believed() -> None:
    poller = poller_after_vanishing("abc", "")
    assert poller.poll(after=3 * DAY) == []
    assert poller.poll(after=30 * DAY) == []
    alone = poller_after_vanishing("a", "")
    assert alone.poll(after=30 * DAY) == []
    assert alone.open_incidents == [("job", "a")]


def test_a_job_that_the_configuration_names_is_missed_for_ever() -> None:
    poller = poller_after_vanishing("abcd", "ab", REST | {"c": ScheduledJobLimits()})
    assert poller.poll(*jobs("ab", cron=""), after=2 * DAY) == ["resolved job[d]: job.removal_accepted"]
    assert poller.open_incidents == [("job", "c")]


def test_an_operator_forgets_a_job() -> None:
    poller = poller_after_vanishing("abcd", "ab")
    poller.forget("c")
    assert poller.poll(*jobs("ab", cron="")) == ["resolved job[c]: job.forgotten"]
    assert poller.open_incidents == [("job", "d")]
    assert not any(key.startswith("forget:") for key in poller.state)
    assert poller.poll(*jobs("abc", cron="")) == [], "it is listed again"
    assert poller.poll(*jobs("ab", cron="")) == ["opened job[c]: job.gone"]
    assert poller.replay()[-1] == "opened job[c]: job.gone"


def test_an_operator_forgets_a_job_that_the_configuration_names() -> None:
    poller = poller_after_vanishing("ab", "a", REST | {"b": ScheduledJobLimits()})
    poller.forget("b")
    assert poller.poll(*jobs("a", cron="")) == ["resolved job[b]: job.forgotten"]
    assert poller.poll(*jobs("a", cron="")) == []
    poller.poll(*jobs("ab", cron=""))
    assert poller.poll(*jobs("a", cron="")) == ["opened job[b]: job.gone"]


def test_an_operator_forgets_all_jobs_of_an_empty_source() -> None:
    """The incident about the jobs ends. That the source is empty is another problem, as of a source that never listed
    anything."""
    poller = poller_after_vanishing("abc", "")
    for name in "abc":
        poller.forget(name)
    assert poller.poll() == ["opened availability: job.none_listed", "resolved source: job.forgotten"]
    assert poller.open_incidents == [("availability", "")]
    assert poller.message == f"no scheduled jobs are listed: {LOCATION}"
    assert poller.poll(*jobs("a")) == ["resolved availability"]


# --- a source that lists nothing, and schedules that cannot be read


def test_a_source_that_never_listed_a_job_is_a_problem() -> None:
    poller = Poller(REST | {"named": ScheduledJobLimits()})
    assert poller.poll() == ["opened availability: job.none_listed"]
    assert poller.message == f"no scheduled jobs are listed: {LOCATION}"
    assert poller.poll(*jobs("a")) == ["resolved availability", "opened job[named]: job.gone"]
    assert poller.open_incidents == [("job", "named")]


@pytest.mark.parametrize(
    ("facts", "limits", "message"),
    [
        ({"cron": "0 * * *"}, ScheduledJobLimits(),
         "a is not evaluated, because its schedule cannot be read: '0 * * *' is not a cron expression: expected 5 "
         "fields (minute, hour, day of the month, month, day of the week) or 6 (seconds first), found 4"),
        ({"cron": "0 * * * *", "timezone": "America/New_Yrok"}, ScheduledJobLimits(),
         "a is not evaluated, because its schedule cannot be read: unknown time zone 'America/New_Yrok': did you mean "
         "America/New_York?"),
        ({"cron": "solar sunset"}, ScheduledJobLimits(), None),
        ({"cron": "0 * * *", "enabled": False}, ScheduledJobLimits(), ""),
        ({"cron": "0 * * *", "next_due": NOON + DAY}, ScheduledJobLimits(), ""),
        ({"cron": "0 * * *"}, ScheduledJobLimits(interval=DAY), ""),
        ({"cron": ""}, ScheduledJobLimits(), ""),
    ],
)  # fmt: skip
def test_a_schedule_that_cannot_be_read(facts: dict[str, Any], limits: ScheduledJobLimits, message: str | None) -> None:
    poller = Poller({"*": limits})
    opened = poller.poll(ScheduledJobFacts("a", last_start=NOON, **facts))
    assert opened == ([] if message == "" else ["opened schedule[a]: job.schedule_unreadable"])
    (listed,) = poller.results[-1].listings["job"].subjects.values()
    assert message in (None, find_unjudged_job_reason_and_message(listed, limits)[1])
    resolved = [] if message == "" else ["resolved schedule[a]"]
    assert poller.poll(ScheduledJobFacts("a", cron="0 0 * * *", last_start=NOON)) == resolved


# --- waiting for the first run


def test_a_probe_waits_while_none_of_its_jobs_has_run() -> None:
    poller = Poller()
    poller.poll(*jobs("ab", last_start=None))
    assert poller.state[WAITING_FOR_FIRST_RUN_STATE_KEY] is True
    poller.poll(*jobs("a", last_start=None), *jobs("b"))
    assert WAITING_FOR_FIRST_RUN_STATE_KEY not in poller.state


def test_a_scheduler_that_announces_a_later_run_has_started_the_one_before() -> None:
    poller = Poller()
    poller.poll(ScheduledJobFacts("a", next_due=NOON + 2 * MIN))
    poller.poll(ScheduledJobFacts("a", next_due=NOON + 2 * MIN))
    assert poller.state[WAITING_FOR_FIRST_RUN_STATE_KEY] is True
    poller.poll(ScheduledJobFacts("a", next_due=NOON + DAY))
    assert WAITING_FOR_FIRST_RUN_STATE_KEY not in poller.state


def test_a_status_that_is_not_known() -> None:
    poller = Poller()
    facts = ScheduledJobFacts("a", cron="0 0 * * *", last_start=NOON, unknown_status="CRASHED" + "!" * 100)
    assert poller.poll(facts) == ["opened schedule[a]: job.status_unknown"]
    (listed,) = poller.results[-1].listings["job"].subjects.values()
    (_, message) = find_unjudged_job_reason_and_message(listed, ScheduledJobLimits())
    status = "CRASHED" + "!" * 52 + "…"
    assert message == f"a is not evaluated: its newest run has the status '{status}', which `statuses` does not list"
    assert poller.poll(facts._replace(unknown_status="")) == ["resolved schedule[a]"]


# --- identity and correction


@pytest.mark.parametrize(
    ("sentence", "first_facts", "corrected_facts", "reason"),
    [
        ("a success is dated back", {"last_start": NOON, "last_end": NOON, "last_ok": NOON},
         {"last_start": NOON - 3 * DAY, "last_end": NOON - 3 * DAY, "last_ok": NOON - 3 * DAY}, "job.overdue"),
        ("a start is dated back, where only starts are known", {"last_start": NOON},
         {"last_start": NOON - 3 * DAY}, "job.overdue"),
        ("the newest failure is deleted",
         {"last_start": NOON, "last_end": NOON, "last_ok": NOON - 2 * DAY, "failures": 2},
         {"last_start": NOON, "last_end": NOON - DAY, "last_ok": NOON - 2 * DAY, "failures": 1}, ""),
        ("the newest failed row becomes a success",
         {"last_start": NOON, "last_end": NOON, "failures": 2},
         {"last_start": NOON, "last_end": NOON, "last_ok": NOON}, ""),
        ("the newest success becomes a failure",
         {"last_start": NOON, "last_end": NOON, "last_ok": NOON},
         {"last_start": NOON, "last_end": NOON, "failures": 2}, "job.failed"),
        ("the newest success becomes a failure while the next run is in progress",
         {"last_start": NOON, "last_end": NOON, "last_ok": NOON},
         {"last_start": NOON, "last_end": NOON, "failures": 2, "running_since": NOON}, "job.failed"),
        ("the newest failure becomes a success while the next run is in progress",
         {"last_start": NOON, "last_end": NOON, "failures": 2},
         {"last_start": NOON, "last_end": NOON, "last_ok": NOON, "running_since": NOON}, ""),
        ("the schedule is corrected", {"cron": "* * * * *", "last_start": NOON - DAY},
         {"cron": "0 3 * * *", "last_start": NOON - DAY}, ""),
        ("the time zone is corrected", {"timezone": "Mars", "last_start": NOON - 3 * DAY},
         {"timezone": "Europe/Berlin", "last_start": NOON - 3 * DAY}, ""),
    ],
)  # fmt: skip
def test_what_is_remembered_gives_way_to_a_correction(
    sentence: str, first_facts: dict[str, Any], corrected_facts: dict[str, Any], reason: str
) -> None:
    limits = {"*": ScheduledJobLimits(max_failures=2)}
    poller = Poller(limits)
    poller.poll(ScheduledJobFacts("a", schedule_since=NOON - 9 * DAY, **{"cron": "0 0 * * *", **first_facts}))
    corrected = ScheduledJobFacts("a", **{"cron": "0 0 * * *", **corrected_facts})
    snapshot = JobSourceSnapshot(poller.now + MIN, (corrected,))
    (job,) = evaluate_job_source(snapshot, limits, (), poller.state).jobs
    assert job.verdict.reason == reason, sentence


def test_a_job_that_returns_is_judged_as_before() -> None:
    poller = Poller()
    daily = {"cron": "0 11 * * *", "last_start": NOON - 2 * HOUR, "schedule_since": NOON - DAY}
    assert poller.poll(*jobs("ab", **daily)) == ["opened job[a]: job.overdue", "opened job[b]: job.overdue"]
    poller.poll()
    assert poller.poll(*jobs("ab", **{**daily, "last_start": None, "schedule_since": None})) == ["resolved source"]
    assert poller.open_incidents == [("job", "a"), ("job", "b")]


# --- the scheduler

HEARTBEATS = {"timeout": 2 * MIN}


def evaluate_heartbeat(heartbeat_at: int | None, state: Mapping[str, Json] = {}, **facts: Any) -> EvaluatedJobSource:
    scheduler = SchedulerLiveness("RQ scheduler", 2 * MIN, heartbeat_at)
    facts = {"every": MIN, "next_due": NOON - 2 * MIN, **facts}
    return evaluate_job_source(JobSourceSnapshot(NOON, (ScheduledJobFacts("a", **facts),), scheduler), REST, (), state)


@pytest.mark.parametrize(
    ("sentence", "heartbeat_at", "facts", "reasons"),
    [
        ("it reports: the job is overdue", NOON, {}, ["job.overdue"]),
        ("it reported within the grace of the job, and may be dead", NOON - MIN - 1, {}, [""]),
        ("it reported when the grace had passed", NOON - MIN, {}, ["job.overdue"]),
        ("it has sent the run, which waits for a worker", NOON - 2 * MIN, {"sent": True}, ["job.overdue"]),
        ("it is silent, and the job has failed", NOON - 2 * MIN, {"next_due": NOON + MIN, "failures": 1},
         ["job.failed"]),
        ("it has been silent for as long as it may be", NOON - 2 * MIN, {}, [""]),
    ],
)  # fmt: skip
def test_a_job_is_late_only_by_the_word_of_a_living_scheduler(
    sentence: str, heartbeat_at: int, facts: dict[str, Any], reasons: list[str]
) -> None:
    source = evaluate_heartbeat(heartbeat_at, **facts)
    assert [job.verdict.reason for job in source.jobs] == reasons, sentence


@pytest.mark.parametrize(
    ("heartbeat_at", "remembered_at", "message"),
    [
        (NOON - 2 * MIN - 1, None, "no RQ scheduler is running: the last heartbeat was at 11:57:59 UTC"),
        (None, None, "no RQ scheduler is running: none has ever sent a heartbeat"),
        (None, NOON - 3 * MIN, "no RQ scheduler is running: the last heartbeat was at 11:57:00 UTC"),
        (NOON - 9 * HOUR, NOON - MIN, ""),
        (NOON + 9 * HOUR, None, ""),
    ],
)
def test_a_scheduler_that_is_silent_for_too_long_is_dead(
    heartbeat_at: int | None, remembered_at: int | None, message: str
) -> None:
    state = (
        {}
        if remembered_at is None
        else {JOB_SOURCE_SCHEDULER_HEARTBEAT_STATE_KEY: JobSourceSchedulerHeartbeatRecord(remembered_at).to_json()}
    )
    source = evaluate_heartbeat(heartbeat_at, state)
    assert (source.reason, source.message) == (("job.scheduler_dead", message) if message else ("", ""))
    assert source.is_readable is not bool(message)


@pytest.mark.parametrize(
    ("sentence", "heartbeat_at", "lists_jobs", "reason"),
    [
        ("it published jobs, which ended with it", NOON - 3 * MIN, True, "job.scheduler_dead"),
        ("it has never reported", None, True, "job.none_listed"),
        ("it does not publish jobs", NOON - 3 * MIN, False, "job.none_listed"),
    ],
)
def test_a_source_that_is_empty_because_its_scheduler_is_dead(
    sentence: str, heartbeat_at: int | None, lists_jobs: bool, reason: str
) -> None:
    scheduler = SchedulerLiveness("RQ scheduler", 2 * MIN, heartbeat_at, lists_jobs)
    assert evaluate_job_source(snapshot(scheduler=scheduler), REST, (), {}).reason == reason, sentence


def test_jobs_are_not_missed_while_their_scheduler_starts_again() -> None:
    scheduler = SchedulerLiveness("RQ scheduler", 2 * MIN, NOON + MIN, lists_jobs=True)
    poller = Poller(scheduler=scheduler)
    poller.poll(*jobs("ab"))
    poller.scheduler = scheduler._replace(heartbeat_at=None)
    assert poller.poll() == []
    assert poller.poll() == []
    assert poller.poll() == ["opened availability: job.scheduler_dead"]
    poller.scheduler = scheduler._replace(heartbeat_at=poller.now + DAY)
    assert poller.poll(*jobs("ab")) == ["resolved availability"]
    assert poller.poll(*jobs("a")) == []
    assert poller.poll(*jobs("a"), after=2 * MIN) == []
    assert poller.poll(*jobs("a"), after=1) == ["opened job[b]: job.gone"]


GRACES = {
    "quick": ScheduledJobLimits(grace=MIN),
    "slow": ScheduledJobLimits(grace=HOUR),
    "nightly": ScheduledJobLimits(),
}


@pytest.mark.parametrize(
    ("sentence", "facts", "message"),
    [
        ("nothing is due", {"quick": NOON + MIN, "slow": NOON + MIN, "nightly": NOON + DAY}, ""),
        ("two are due, the grace of one has passed",
         {"quick": NOON - MIN, "slow": NOON - 2 * MIN, "nightly": NOON + DAY},
         "no Celery beat is running: quick was due at 11:59:00 UTC, and none of the 3\N{NO-BREAK SPACE}jobs has been "
         "sent since"),
        ("the graces of two have passed: the one that was due first is named",
         {"nightly": NOON - MIN, "quick": NOON - 2 * MIN},
         "no Celery beat is running: quick was due at 11:58:00 UTC, and none of the 2\N{NO-BREAK SPACE}jobs has been "
         "sent since"),
        ("it was due when the other was sent", {"quick": NOON - DAY, "slow": NOON + MIN}, ""),
        ("they are due, within their grace", {"quick": NOON - 1, "slow": NOON - 1}, ""),
        ("it is the only job", {"quick": NOON - HOUR}, ""),
    ],
)  # fmt: skip
def test_a_scheduler_that_sends_nothing_is_one_problem_for_any_graces(
    sentence: str, facts: dict[str, int], message: str
) -> None:
    reported = tuple(
        ScheduledJobFacts(name, every=DAY, next_due=at, last_start=NOON - DAY) for name, at in facts.items()
    )
    snapshot = JobSourceSnapshot(NOON, reported, SchedulerLiveness("Celery beat"))
    source = evaluate_job_source(snapshot, GRACES, (), {})
    assert (source.reason, source.message) == (("job.scheduler_dead", message) if message else ("", "")), sentence


@pytest.mark.parametrize(
    "facts", [{"next_due": NOON}, {"every": HOUR, "last_start": NOON - HOUR, "schedule_since": NOON - DAY}]
)
def test_a_job_without_grace_is_not_sent_from_the_instant_on_at_which_it_is_due(facts: dict[str, Any]) -> None:
    quiet = ScheduledJobFacts("quiet", next_due=NOON + DAY)
    source = snapshot(ScheduledJobFacts("a", **facts), quiet, scheduler=SchedulerLiveness("Celery beat"))
    evaluated = evaluate_job_source(source, {"*": ScheduledJobLimits(grace=0)}, (), {})
    assert evaluated.message.startswith("no Celery beat is running: a was due at 12:00:00 UTC")


@pytest.mark.parametrize(
    ("last_start", "due"),
    [(NOON - 5 * MIN + 7_000, "11:56:07 UTC"), (None, "1\N{NO-BREAK SPACE}May 12:01:30 UTC")],
)
def test_an_interval_that_is_not_sent_counts_from_the_last_run_or_from_its_schedule(
    last_start: int | None, due: str
) -> None:
    late = ScheduledJobFacts("a", every=MIN, last_start=last_start, schedule_since=NOON - DAY + 30_001)
    quiet = ScheduledJobFacts("quiet", next_due=NOON + DAY)
    source = evaluate_job_source(snapshot(late, quiet, scheduler=SchedulerLiveness("Celery beat")), REST, (), {})
    assert source.message.startswith(f"no Celery beat is running: a was due at {due}, and none")


def test_a_job_that_alone_is_not_sent_is_overdue() -> None:
    late, fine = (
        ScheduledJobFacts("late", every=HOUR, next_due=NOON - HOUR),
        ScheduledJobFacts("fine", every=MIN, last_start=NOON - 1),
    )
    snapshot = JobSourceSnapshot(NOON, (late, fine), SchedulerLiveness("Celery beat"))
    source = evaluate_job_source(snapshot, REST, (), {})
    assert [job.verdict.reason for job in source.jobs] == ["job.overdue", ""]


@pytest.mark.parametrize(
    ("case", "facts", "is_dead"),
    [
        ("every minute, idle for five", {"every": MIN, "last_start": NOON - 5 * MIN, "schedule_since": 0}, True),
        ("every second, idle for an hour", {"every": 1000, "last_start": NOON - HOUR, "schedule_since": 0}, True),
        ("every hour, idle for five minutes", {"every": 60 * MIN, "last_start": NOON - 5 * MIN}, False),
        ("it never ran and was due at three", {"cron": "0 3 * * *", "schedule_since": NOON - 600 * MIN}, True),
        ("an unreadable expression", {"cron": "full moon", "last_start": NOON - 600 * MIN}, False),
        ("disabled", {"next_due": NOON - DAY, "enabled": False}, False),
    ],
)
def test_a_job_that_is_due_and_not_sent(case: str, facts: dict[str, Any], is_dead: bool) -> None:
    quiet = ScheduledJobFacts("quiet", next_due=NOON + DAY)
    snapshot = JobSourceSnapshot(NOON, (ScheduledJobFacts("a", **facts), quiet), SchedulerLiveness("Celery beat"))
    assert (evaluate_job_source(snapshot, REST, (), {}).reason == "job.scheduler_dead") is is_dead, case


# --- single snapshots


def snapshot(*listed: ScheduledJobFacts, **fields: Any) -> JobSourceSnapshot:
    return JobSourceSnapshot(NOON, listed, **fields)


def verdicts(
    source: JobSourceSnapshot, limits: Mapping[str, ScheduledJobLimits], state: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Name -> reason."""
    required = tuple(name for name in limits if name != "*")
    evaluated = evaluate_job_source(source, limits, required, state or {})
    return {job.facts.name: job.verdict.reason for job in evaluated.jobs}


LATE = ScheduledJobFacts("late", every=HOUR, next_due=NOON - HOUR)


def test_every_job_of_a_source_is_judged_unless_it_is_not_watched() -> None:
    source = snapshot(ScheduledJobFacts("ignored", every=HOUR, next_due=NOON - HOUR), LATE, ScheduledJobFacts("well"))
    assert verdicts(source, {"late": ScheduledJobLimits(), "well": ScheduledJobLimits()}) == {
        "late": "job.overdue",
        "well": "",
    }


def test_invalid_values_of_a_source_are_discarded() -> None:
    nonsense = ScheduledJobFacts("late", every=-5, next_due=10**300, running_since=-1, duration=10**300)
    assert verdicts(snapshot(nonsense), REST) == {"late": ""}


def test_a_source_that_reports_late_adds_to_the_grace() -> None:
    assert verdicts(snapshot(LATE, reporting_lag=59 * MIN), REST) == {"late": "job.overdue"}
    assert verdicts(snapshot(LATE, reporting_lag=HOUR), REST) == {"late": ""}


def test_a_required_job_that_was_never_listed_is_gone() -> None:
    limits = REST | {"b": ScheduledJobLimits()}
    assert verdicts(snapshot(ScheduledJobFacts("a")), limits) == {"a": "", "b": "job.gone"}
    gone = evaluate_job_source(snapshot(ScheduledJobFacts("a")), limits, ("b",), {}).jobs[1]
    assert gone.verdict[:3] == ("job.gone", "b is gone: its source does not list it", None)
    assert gone.facts == ScheduledJobFacts("b", listed=False, expected_from=NOON)
    assert gone.state == SavedScheduledJobState("", NOON, was_listed=False)
    assert verdicts(snapshot(), limits) == {}, "that the source lists nothing is the problem"


def test_an_unlisted_required_job_with_a_configured_schedule_is_judged_by_its_stored_state() -> None:
    limits = {"b": ScheduledJobLimits(interval=HOUR)}
    record = ScheduledJobStateRecord(
        "b", SavedScheduledJobState("every 60 min", NOON - 30 * DAY, last_start=NOON - 30 * MIN, was_listed=False)
    )
    state = {build_scheduled_job_state_key("b"): record.to_json()}
    assert verdicts(snapshot(), limits, state) == {"b": ""}
    assert verdicts(snapshot(), limits) == {"b": ""}, "first seen now"
    state = {
        build_scheduled_job_state_key("b"): record._replace(
            state=record.state._replace(last_start=NOON - 30 * DAY)
        ).to_json()
    }
    assert verdicts(snapshot(), limits, state) == {"b": "job.overdue"}


def test_the_stored_record_of_a_job() -> None:
    (job,) = evaluate_job_source(snapshot(LATE), {"*": ScheduledJobLimits()}, (), {}).jobs
    assert job.record == ScheduledJobStateRecord("late", job.state)
    assert job.state.schedule_text == "every 60 min"


def test_an_empty_source_with_a_scheduler_is_empty_first_of_all() -> None:
    source = evaluate_job_source(snapshot(scheduler=SchedulerLiveness("Celery beat")), REST, (), {})
    assert source.reason == "job.none_listed"


@pytest.mark.parametrize("next_due", [None, NOON + 12 * HOUR])
def test_a_job_that_is_late_by_the_configured_schedule_alone_does_not_make_the_scheduler_dead(
    next_due: int | None,
) -> None:
    weekly = ScheduledJobFacts(
        "weekly", cron="0 0 * * 0", last_start=NOON - 2 * DAY, schedule_since=NOON - 9 * DAY, next_due=next_due
    )
    limits = REST | {"weekly": ScheduledJobLimits(schedule=CronSchedule("0 0 * * *"))}
    source = snapshot(
        weekly, ScheduledJobFacts("quiet", next_due=NOON + DAY), scheduler=SchedulerLiveness("Celery beat")
    )
    assert verdicts(source, limits) == {"weekly": "job.overdue", "quiet": ""}
