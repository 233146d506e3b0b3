"""The findings of each rule for one result, one case per row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from tests.support.builders import (
    FAILED_TASK,
    OK_TASK,
    SLOT_INTERVAL_MS,
    alert_policy,
    describe_transitions,
    failed_job,
    findings_of_rule,
    make_result,
    make_results,
    never_run_task,
    overdue_job,
    stuck_job,
    task_aged,
)
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.model import Finding, IncidentTransition, ProbeResult, SuspectOrOpenAlertState
from watchdog.domain.observations import McpScheduledTaskFacts, ScheduledJobFacts
from watchdog.domain.reasons import REASON_CATALOGUE
from watchdog.domain.rules import (
    AlertStates,
    derive_findings_from_result,
    fold_results_into_alert_states_in_place,
    has_bad_finding,
    is_result_bad_by_rule_about_subject,
)
from watchdog.domain.rules.engine import (
    build_good_findings_of_vanished_subjects,
    find_listed_subjects,
    fold_result_into_alert_states_in_place,
)
from watchdog.domain.rules.task import McpScheduledTaskHealth, find_meaning_of_mcp_task_status_word
from watchdog.domain.rules.unreadable_schedule import find_unjudged_job_reason_and_message

MIN, HOUR = 60_000, 3_600_000
NB = "\N{NO-BREAK SPACE}"


class Row(NamedTuple):
    sentence: str
    result: ProbeResult
    findings: list[tuple[Any, ...]]
    """(subject, bad, reason, message), the last two left out when empty."""
    tasks: Mapping[str, int] = {}


def bad_task(outcome: str, reason: str, listing: Mapping[str, McpScheduledTaskFacts] | None) -> ProbeResult:
    return make_result(outcome, reason=reason, message="no reply", tasks=listing)


GOOD = [("", False)]
AVAILABILITY = [
    Row("a pass is good", make_result("p"), GOOD),
    Row("a failure is bad, with its reason", make_result("f"), [("", True, "http.503", "HTTP 503")]),
    Row("an error is no evidence", make_result("e"), []),
    Row("a missed slot is no evidence", make_result("m"), []),
    Row("a run fails for isError only if no task explains it: then it is the probe's failure as well",
        bad_task("f", "mcp.tool_error", {"a": OK_TASK, "b": FAILED_TASK}), [("", True, "mcp.tool_error", "no reply")]),
    Row("an expectation with a failed task is reported by the task only",
        bad_task("f", "expectation.failed", {"a": FAILED_TASK}), GOOD),
    Row("an expectation with a stale task is reported by the task only",
        bad_task("f", "expectation.failed", {"a": task_aged(2 * MIN)}), GOOD, tasks={"*": MIN}),
    Row("an expectation with healthy tasks is the probe's failure",
        bad_task("f", "expectation.failed", {"a": OK_TASK}), [("", True, "expectation.failed", "no reply")]),
    Row("isError with healthy tasks is the probe's failure",
        bad_task("f", "mcp.tool_error", {"a": OK_TASK}), [("", True, "mcp.tool_error", "no reply")]),
    Row("isError with an empty listing is the probe's failure",
        bad_task("f", "mcp.tool_error", {}), [("", True, "mcp.tool_error", "no reply")]),
    Row("isError without a listing is the probe's failure",
        bad_task("f", "mcp.tool_error", None), [("", True, "mcp.tool_error", "no reply")]),
    Row("a failure with incidents of jobs is reported by the jobs only",
        make_result("f", reason="job.overdue", jobs=[stuck_job("a", SLOT_INTERVAL_MS)]), GOOD),
    Row("a failure with healthy jobs is the probe's failure",
        make_result("f", reason="broker.unreachable", message="no reply", jobs=[]),
        [("", True, "broker.unreachable", "no reply")]),
    Row("a missing tool is the probe's failure despite a failed task",
        bad_task("f", "mcp.tool_missing", {"a": FAILED_TASK}), [("", True, "mcp.tool_missing", "no reply")]),
]  # fmt: skip

UNJUDGED = [
    Row(
        "an error is bad, with its reason", make_result("e"), [("", True, "watchdog.internal_error", "internal error")]
    ),
    Row("a pass is good", make_result("p"), GOOD),
    Row("a failure is good: the probe was evaluated", make_result("f"), GOOD),
    Row("a missed slot is no evidence", make_result("m"), []),
    Row("a run without a free place is no evidence", make_result("e")._replace(reason="watchdog.overloaded"), []),
    Row("a run without a network is no evidence", make_result("e")._replace(reason="watchdog.network"), []),
]


def listed(**tasks: McpScheduledTaskFacts) -> ProbeResult:
    return make_result("p", tasks=tasks)


TASK = [
    Row("no listing: no findings", make_result("p"), []),
    Row("an empty listing: no findings", listed(), []),
    Row("each task is a subject", listed(a=OK_TASK, b=OK_TASK), [("a", False), ("b", False)]),
    Row("a failed task is bad", listed(a=FAILED_TASK), [("a", True, "task.failed", "task a failed: no space left")]),
    Row(
        "a failed task without an error is bad",
        listed(a=McpScheduledTaskFacts(ok=False)),
        [("a", True, "task.failed", "task a failed")],
    ),
    Row(
        "failed comes before stale",
        listed(a=task_aged(9 * MIN, ok=False)),
        [("a", True, "task.failed", "task a failed")],
        tasks={"a": MIN},
    ),
    Row(
        "a server that finds a run too old does not overrule the limit",
        listed(a=task_aged(9 * MIN, ok=False)._replace(status="ok")),
        [("a", False)],
        tasks={"*": 10 * MIN},
    ),
    Row(
        "a server that finds a run too old is quoted where there is no limit",
        listed(a=task_aged(2 * HOUR, ok=False)._replace(status="Success")),
        [
            (
                "a",
                True,
                "task.stale",
                f"task a is stale: last run 31{NB}Dec 1969 22:01 UTC, and 2{NB}h later the server reports ok: false",
            )
        ],
        tasks={"b": MIN},
    ),
    Row(
        "a task that the server finds too old and that is past its limit is stale",
        listed(a=task_aged(2 * MIN, ok=False)._replace(status="stale")),
        [("a", True, "task.stale", f"task a is stale: last run 31{NB}Dec 1969 23:59:00 UTC, limit 1{NB}min")],
        tasks={"a": MIN},
    ),
    Row(
        "a task that never ran and is not ok is reported where there is no limit",
        listed(a=never_run_task(MIN)._replace(ok=False, status="never")),
        [
            (
                "a",
                True,
                "task.never_ran",
                "task a has never run: first listed 00:00:00 UTC, and the server reports ok: false",
            )
        ],
    ),
    Row(
        "a task that never ran and is not ok is good within its limit",
        listed(a=never_run_task(MIN)._replace(ok=False, status="pending")),
        [("a", False)],
        tasks={"a": MIN},
    ),
    Row(
        "an error beside a good status is a failure",
        listed(a=task_aged(MIN, ok=False)._replace(status="ok", error="disk full")),
        [("a", True, "task.failed", "task a failed: disk full")],
        tasks={"a": 10 * MIN},
    ),
    Row(
        "a failure without an error shows its status",
        listed(a=task_aged(MIN, ok=False)._replace(status="timed out")),
        [("a", True, "task.failed", "task a failed: timed out")],
        tasks={"a": 10 * MIN},
    ),
    Row(
        "a status that is unknown is no good one",
        listed(a=task_aged(MIN, ok=False)._replace(status="kaput")),
        [("a", True, "task.failed", "task a failed: kaput")],
        tasks={"a": 10 * MIN},
    ),
    Row("a task without a limit is never stale", listed(a=task_aged(10**12)), [("a", False)]),
    Row("a task without a limit need not run", listed(a=never_run_task(10**12)), [("a", False)]),
    Row(
        "a task at its limit is good",
        listed(a=task_aged(MIN)),
        [("a", False)],
        tasks={"a": MIN},
    ),
    Row(
        "a task past a limit of ten minutes: times without seconds",
        listed(a=task_aged(10 * MIN + 1)),
        [("a", True, "task.stale", f"task a is stale: last run 31{NB}Dec 1969 23:50 UTC, limit 10{NB}min")],
        tasks={"a": 10 * MIN},
    ),
    Row(
        "a task past its limit is stale",
        listed(a=task_aged(MIN + 1)),
        [("a", True, "task.stale", f"task a is stale: last run 31{NB}Dec 1969 23:59:59 UTC, limit 1{NB}min")],
        tasks={"a": MIN},
    ),
    Row(
        "the limit of a name takes precedence over `*`",
        listed(a=task_aged(2 * MIN)),
        [("a", False)],
        tasks={"*": MIN, "a": 3 * MIN},
    ),
    Row(
        "`*` is the limit of every other task",
        listed(b=task_aged(2 * MIN)),
        [("b", True, "task.stale", f"task b is stale: last run 31{NB}Dec 1969 23:59:00 UTC, limit 1{NB}min")],
        tasks={"*": MIN, "a": 3 * MIN},
    ),
    Row(
        "a task that never ran is good within its limit",
        listed(a=never_run_task(MIN)),
        [("a", False)],
        tasks={"a": MIN},
    ),
    Row(
        "a task that never ran is bad past its limit",
        listed(a=never_run_task(MIN + 1)),
        [
            (
                "a",
                True,
                "task.never_ran",
                f"task a has never run: first listed 31{NB}Dec 1969 23:59:59 UTC, limit 1{NB}min",
            )
        ],
        tasks={"a": MIN},
    ),
    Row(
        "a task that never ran and is listed for the first time is good",
        listed(a=McpScheduledTaskFacts(ok=True)),
        [("a", False)],
        tasks={"a": MIN},
    ),
    Row(
        "the listing of a failed result counts",
        make_result("f", tasks={"a": FAILED_TASK}),
        [("a", True, "task.failed", "task a failed: no space left")],
    ),
    Row(
        "a limit below ten minutes shows seconds, however old the run is",
        listed(a=task_aged(30 * MIN)),
        [("a", True, "task.stale", f"task a is stale: last run 31{NB}Dec 1969 23:31:00 UTC, limit 1{NB}min")],
        tasks={"a": MIN},
    ),
    Row("the listing of an internal error does not count", make_result("e", tasks={"a": FAILED_TASK}), []),
]

GONE = [ScheduledJobFacts(name, listed=False, gone_since=1) for name in "ab"]
SOURCE = [
    Row("no listing: no findings", make_result("p"), []),
    Row("most jobs are gone: the run names them", make_result("f", reason="job.most_gone", message="a, b", jobs=GONE),
        [("", True, "job.most_gone", "a, b")]),
    Row("most jobs are gone, and the run failed by something else",
        make_result("f", reason="broker.backlog", message="400 messages wait", jobs=GONE),
        [("", True, "job.most_gone", "")]),
    Row("one job is gone", make_result("f", jobs=GONE[:1]), GOOD),
    Row("the jobs that were gone are not missed", make_result("p", jobs=[GONE[0]._replace(removal="job.forgotten")]),
        [("", False, "job.forgotten")]),
]  # fmt: skip

SCHEDULE = [
    Row("no listing: no findings", make_result("p"), []),
    Row("a job that can be judged", make_result("p", jobs=[ScheduledJobFacts("a", cron="0 3 * * *")]), [("a", False)]),
    Row("a job whose schedule cannot be read",
        make_result("p", jobs=[ScheduledJobFacts("a", cron="0 3 * * *", timezone="Mars")]),
        [("a", True, "job.schedule_unreadable",
          "a is not evaluated, because its schedule cannot be read: unknown time zone 'Mars'")]),
    Row("a job that is not listed any more", make_result("f", jobs=GONE[:1]), []),
]  # fmt: skip

MISSING = [
    Row("no listing: no findings", make_result("p"), [], tasks={"a": MIN}),
    Row(
        "a named task that is listed is good, even if it failed",
        listed(a=FAILED_TASK),
        [("a", False)],
        tasks={"a": MIN},
    ),
    Row(
        "a named task that is not listed is bad",
        listed(b=OK_TASK),
        [("a", True, "task.missing", "task a is not in the server's list")],
        tasks={"a": MIN},
    ),
    Row("`*` requires no task", listed(), [], tasks={"*": MIN}),
    Row(
        "names after `*` count, in the order of the configuration",
        listed(c=OK_TASK),
        [("b", True, "task.missing", "task b is not in the server's list"), ("c", False)],
        tasks={"*": MIN, "b": MIN, "c": MIN},
    ),
    Row(
        "the listing of a failed result counts",
        make_result("f", tasks={}),
        [("a", True, "task.missing", "task a is not in the server's list")],
        tasks={"a": MIN},
    ),
    Row("the listing of an internal error does not count", make_result("e", tasks={}), [], tasks={"a": MIN}),
]

PREFERENCE = [
    Row("no expression evaluated: no findings", make_result("p"), []),
    Row("no expression configured: no findings", make_result("p", preferences={}), []),
    Row("each expression is a subject: good if true, bad with a message if false",
        make_result("p", preferences={"x < 1": "", "y < 1": "y < 1 is false: observed 2"}),
        [("x < 1", False), ("y < 1", True, "preference.failed", "y < 1 is false: observed 2")]),
    Row("the expressions of an internal error do not count", make_result("e", preferences={"x": "x is false"}), []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "row"),
    [
        pytest.param(rule, row, id=f"{rule}: {row.sentence}")
        for rule, rows in {
            "availability": AVAILABILITY,
            "no_verdict": UNJUDGED,
            "task": TASK,
            "source": SOURCE,
            "schedule": SCHEDULE,
            "missing": MISSING,
            "preference": PREFERENCE,
        }.items()
        for row in rows
    ],
)
def test_verdicts(rule: str, row: Row) -> None:
    assert findings_of_rule(rule, row.result, tasks=row.tasks) == [Finding(rule, *values) for values in row.findings]


@pytest.mark.parametrize("outcome", "pfem")
def test_only_bad_findings_have_a_reason(outcome: str) -> None:
    full = make_result(outcome, tasks={"a": OK_TASK, "b": FAILED_TASK}, preferences={"x": "", "y": "y is false"})
    for finding in derive_findings_from_result(alert_policy(tasks={"a": MIN, "c": MIN}), full):
        assert finding.bad or (finding.reason, finding.message) == ("", ""), finding
        assert not finding.bad or (finding.reason and finding.message), finding


@pytest.mark.parametrize("outcome", "pfem")
@pytest.mark.parametrize("tasks", [None, {}, {"a": OK_TASK}, {"b": FAILED_TASK}])
def test_whether_any_finding_is_bad(outcome: str, tasks: Mapping[str, McpScheduledTaskFacts] | None) -> None:
    policy = alert_policy(tasks={"a": MIN})
    for reason in [""] if outcome == "p" else REASON_CATALOGUE:
        result = make_result(outcome, reason=reason, message="no reply", tasks=tasks)
        findings = derive_findings_from_result(policy, result)
        assert has_bad_finding(policy, result) == any(finding.bad for finding in findings), reason


@pytest.mark.parametrize("outcome", "pfem")
@pytest.mark.parametrize("gone_count", range(4))
def test_a_finding_about_one_subject_is_the_same_alone(outcome: str, gone_count: int) -> None:
    """Also where other jobs decide that a listing is no evidence about the job."""
    policy = alert_policy(tasks={"a": MIN, "c": MIN})
    jobs = [
        *(ScheduledJobFacts(f"gone {i}", gone_since=1, listed=False) for i in range(gone_count)),
        *(failed_job("failed"), ScheduledJobFacts("undecided", gone_since=1, listed=False, undecided=True)),
        ScheduledJobFacts("unreadable", cron="* * *"),
    ]
    result = make_result(
        outcome, tasks={"a": OK_TASK, "b": FAILED_TASK}, preferences={"x": "", "y": "y is false"}, jobs=jobs
    )
    findings = derive_findings_from_result(policy, result)
    subjects = {(finding.rule, finding.subject) for finding in findings} | {
        (rule, facts.name) for rule in ("job", "schedule") for facts in jobs
    }
    bad = {(finding.rule, finding.subject) for finding in findings if finding.bad}
    assert {key for key in subjects if is_result_bad_by_rule_about_subject(policy, result, *key)} == bad


@pytest.mark.parametrize(("rule", "bad"), [("job", True), ("schedule", False)])
def test_for_a_finding_about_one_subject_no_other_is_evaluated(rule: str, bad: bool) -> None:
    """A source may list hundreds of jobs, and an alert looks at several results."""
    not_a_cron_expression: Any = object()
    jobs = [ScheduledJobFacts("another", cron=not_a_cron_expression), failed_job("failed")]
    result = make_result("p", jobs=jobs)
    assert is_result_bad_by_rule_about_subject(alert_policy(), result, rule, "failed") is bad
    with pytest.raises(AttributeError):
        is_result_bad_by_rule_about_subject(alert_policy(), result, rule, "another")


def test_a_failure_caused_by_a_task_is_one_incident() -> None:
    row = make_result("f", reason="expectation.failed", message="not ok", tasks={"a": FAILED_TASK, "b": OK_TASK})
    out: list[IncidentTransition] = []
    fold_result_into_alert_states_in_place(alert_policy(), {}, row, out)
    assert describe_transitions(out) == ["opened task[a] at 1: task.failed"]


def test_availability_recovers_when_a_task_turns_out_to_be_the_cause() -> None:
    refused, explained = (
        make_result("f", 1),
        make_result("f", 2, reason="expectation.failed", message="not ok", tasks={"a": FAILED_TASK}),
    )
    done = fold_results_into_alert_states_in_place(alert_policy(), {}, 0, [refused, explained], lambda _: True)
    assert describe_transitions(done.transitions) == [
        "opened availability at 1: http.503",
        "resolved availability at 2",
        "opened task[a] at 2: task.failed",
    ]


class UnlistedCase(NamedTuple):
    sentence: str
    after_it: list[ProbeResult]
    changes: list[str]
    tasks: Mapping[str, int] = {}


UNMET = {"x": "x is false"}
UNLISTED = [
    UnlistedCase(
        "an unlisted task is resolved as gone after `recover` slots",
        [make_result("p", 2, tasks={}), make_result("p", 3, tasks={})],
        ["resolved task[a] at 3: subject.no_longer_listed"],
    ),
    UnlistedCase(
        "a task that is unlisted once is not resolved",
        [make_result("p", 2, tasks={}), make_result("p", 3, tasks={"a": FAILED_TASK})],
        [],
    ),
    UnlistedCase(
        "a result without a listing is no evidence",
        [make_result("p", 2), make_result("p", 3), make_result("p", 4)],
        [],
    ),
    UnlistedCase(
        "a refused connection is no evidence",
        [make_result("f", 2), make_result("f", 3)],
        ["opened availability at 3: http.503"],
    ),
    UnlistedCase(
        "an internal error is no evidence",
        [make_result("e", 2, tasks={}), make_result("e", 3, tasks={})],
        ["opened no_verdict at 3: watchdog.internal_error"],
    ),
    UnlistedCase("a missed slot is no evidence", [make_result("m", 2, tasks={}), make_result("m", 3, tasks={})], []),
    UnlistedCase(
        "unlisted after good continues the count",
        [make_result("p", 2, tasks={"a": OK_TASK}), make_result("p", 3, tasks={})],
        ["resolved task[a] at 3: subject.no_longer_listed"],
    ),
    UnlistedCase(
        "good after unlisted continues the count",
        [make_result("p", 2, tasks={}), make_result("p", 3, tasks={"a": OK_TASK})],
        ["resolved task[a] at 3"],
    ),
    UnlistedCase(
        "a failed result that lists other tasks is evidence",
        [make_result("f", 2, tasks={"b": OK_TASK}), make_result("f", 3, tasks={"b": OK_TASK})],
        ["opened availability at 3: http.503", "resolved task[a] at 3: subject.no_longer_listed"],
    ),
    UnlistedCase(
        "a required task that is unlisted opens `missing`",
        [make_result("p", 2, tasks={}), make_result("p", 3, tasks={})],
        ["opened missing[a] at 3: task.missing", "resolved task[a] at 3: subject.no_longer_listed"],
        tasks={"a": MIN},
    ),
]


@pytest.mark.parametrize("row", UNLISTED, ids=lambda row: row.sentence)
def test_unlisted_subjects(row: UnlistedCase) -> None:
    alert_states: AlertStates = {}
    first = [make_result("p", slot, tasks={"a": FAILED_TASK}) for slot in (0, 1)]
    opening = fold_results_into_alert_states_in_place(
        alert_policy(2, 2, row.tasks), alert_states, -1, first, lambda _: True
    )
    assert describe_transitions(opening.transitions) == ["opened task[a] at 1: task.failed"]
    done = fold_results_into_alert_states_in_place(
        alert_policy(2, 2, row.tasks), alert_states, opening.evaluated_until, row.after_it, lambda _: True
    )
    assert describe_transitions(done.transitions) == row.changes


def test_an_unlisted_subject_gets_one_good_finding() -> None:
    suspect = SuspectOrOpenAlertState(1, 0, MIN, None)
    alert_states = {("task", "a"): suspect, ("task", "b"): suspect, ("preference", "a"): suspect}
    vanished = build_good_findings_of_vanished_subjects(
        alert_states, make_result("f", tasks={"b": OK_TASK}), [Finding("task", "b", False)]
    )
    assert vanished == [Finding("task", "a", False, "subject.no_longer_listed")]


def test_a_suspect_state_of_an_unlisted_subject_is_dropped() -> None:
    alert_states: AlertStates = {}
    rows = [make_result("p", 1, tasks={"a": FAILED_TASK}), make_result("p", 2, tasks={})]
    assert (
        fold_results_into_alert_states_in_place(alert_policy(2, 2), alert_states, 0, rows, lambda _: True).transitions
        == []
    )
    assert alert_states == {}


def test_a_preference_that_is_no_longer_configured_is_gone() -> None:
    rows = [make_result("p", 1, preferences=UNMET), make_result("f", 2), make_result("p", 3)]
    done = fold_results_into_alert_states_in_place(alert_policy(), {}, 0, rows, lambda _: True)
    assert describe_transitions(done.transitions) == [
        "opened preference[x] at 1: preference.failed",
        "opened availability at 2: http.503",
        "resolved availability at 3",
        "resolved preference[x] at 3: subject.no_longer_listed",
    ]


def test_a_preference_that_was_replaced_by_another_is_gone() -> None:
    rows = [make_result("p", 1, preferences=UNMET), make_result("p", 2, preferences={"y": ""})]
    done = fold_results_into_alert_states_in_place(alert_policy(), {}, 0, rows, lambda _: True)
    assert describe_transitions(done.transitions) == [
        "opened preference[x] at 1: preference.failed",
        "resolved preference[x] at 2: subject.no_longer_listed",
    ]


def test_a_task_that_is_no_longer_required_is_not_missing() -> None:
    alert_states: AlertStates = {}
    fold_results_into_alert_states_in_place(
        alert_policy(tasks={"a": MIN}), alert_states, 0, [make_result("p", 1, tasks={})], lambda _: True
    )
    done = fold_results_into_alert_states_in_place(
        alert_policy(), alert_states, MIN, [make_result("p", 2, tasks={})], lambda _: True
    )
    assert describe_transitions(done.transitions) == ["resolved missing[a] at 2: subject.no_longer_listed"]
    assert alert_states == {}


def test_a_finding_without_a_listing_is_never_gone() -> None:
    alert_states: AlertStates = {}
    done = fold_results_into_alert_states_in_place(
        alert_policy(),
        alert_states,
        0,
        [*make_results("f"), make_result("f", 2, tasks={}, preferences={})],
        lambda _: True,
    )
    assert describe_transitions(done.transitions) == ["opened availability at 1: http.503"]
    assert list(alert_states) == [("availability", "")]


LATE = [overdue_job("a", due_at=-HOUR)]
FAILED = [failed_job("b")]


def test_a_job_opens_and_resolves_at_once_regardless_of_after_and_recover() -> None:
    rows = [make_result("f", 1, jobs=LATE), make_result("f", 2, jobs=LATE), make_result("p", 3, jobs=[])]
    done = fold_results_into_alert_states_in_place(alert_policy(3, 3), {}, 0, rows, lambda _: True)
    assert describe_transitions(done.transitions) == [
        "opened job[a] at 1: job.overdue", "resolved job[a] at 3: subject.no_longer_listed"
    ]  # fmt: skip


def test_each_job_has_its_own_incident() -> None:
    both = [*LATE, *FAILED]
    rows = [make_result("f", 1, jobs=LATE), make_result("f", 2, jobs=both), make_result("f", 3, jobs=FAILED)]
    done = fold_results_into_alert_states_in_place(alert_policy(), {}, 0, rows, lambda _: True)
    assert describe_transitions(done.transitions) == [
        "opened job[a] at 1: job.overdue",
        "opened job[b] at 2: job.failed",
        "resolved job[a] at 3: subject.no_longer_listed",
    ]


def test_a_source_that_cannot_be_read_is_no_evidence_about_its_jobs() -> None:
    rows = [
        make_result("f", 1, jobs=LATE),
        make_result("f", 2, reason="broker.unreachable"),
        make_result("e", 3),
        make_result("m", 4),
    ]
    done = fold_results_into_alert_states_in_place(alert_policy(), {}, 0, rows, lambda _: True)
    assert describe_transitions(done.transitions) == [
        "opened job[a] at 1: job.overdue",
        "opened availability at 2: broker.unreachable",
        "opened no_verdict at 3: watchdog.internal_error",
    ]


def test_every_listed_job_is_a_subject_with_its_own_verdict() -> None:
    late, failed = findings_of_rule("job", make_result("f", jobs=[*LATE, failed_job("b", "disk full")]))
    assert (late.subject, late.bad, late.reason) == ("a", True, "job.overdue")
    assert failed == Finding("job", "b", True, "job.failed", "b failed: disk full")
    assert findings_of_rule("job", make_result("p", jobs=[ScheduledJobFacts("c", last_ok=1)])) == [
        Finding("job", "c", False)
    ]
    assert findings_of_rule("job", make_result("p", jobs=[])) == []


def test_a_job_that_the_configuration_no_longer_covers_is_not_judged() -> None:
    uncovered = alert_policy()
    uncovered = replace(uncovered, probe=replace(uncovered.probe, job_limits={"other": ScheduledJobLimits()}))
    assert [f for f in derive_findings_from_result(uncovered, make_result("p", jobs=LATE)) if f.rule == "job"] == []


def test_a_job_whose_schedule_and_status_can_be_read_has_no_problem() -> None:
    readable = ScheduledJobFacts("a", cron="0 3 * * *", timezone="Europe/Berlin")
    assert find_unjudged_job_reason_and_message(readable, ScheduledJobLimits()) == ("", "")


def test_a_job_whose_schedule_is_configured_under_its_name_needs_no_readable_one() -> None:
    limits = {"a": ScheduledJobLimits(interval=HOUR), "*": ScheduledJobLimits()}
    policy = alert_policy()
    policy = replace(policy, probe=replace(policy.probe, job_limits=limits))
    result = make_result("p", jobs=[ScheduledJobFacts(name, cron="@dawn") for name in "ab"])
    assert [(f.subject, f.bad) for f in derive_findings_from_result(policy, result) if f.rule == "schedule"] == [
        ("a", False), ("b", True)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        ("In Progress", McpScheduledTaskHealth.GOOD),
        ("never-run", McpScheduledTaskHealth.GOOD),
        ("Timed Out", McpScheduledTaskHealth.FAILED),
        ("TIMED-OUT", McpScheduledTaskHealth.FAILED),
        ("Overdue", McpScheduledTaskHealth.STALE),
        ("half done", None),
    ],
)
def test_status_words_are_read_in_any_spelling(status: str, meaning: McpScheduledTaskHealth | None) -> None:
    assert find_meaning_of_mcp_task_status_word(status) is meaning


def test_a_job_is_judged_at_the_instant_of_the_listing_not_of_the_slot() -> None:
    result = make_result("p", 1, jobs=[overdue_job("a", due_at=10 * MIN)])
    ahead = result._replace(listings={"job": result.listings["job"]._replace(observed_at=20 * MIN)})
    assert [f.bad for f in findings_of_rule("job", result)] == [False]
    assert [f.bad for f in findings_of_rule("job", ahead)] == [True]


def test_the_listed_expressions_are_those_that_the_run_computed() -> None:
    computed = {"body.ok": "", "elapsed_ms < 1": "elapsed_ms < 1 is false"}
    assert set(find_listed_subjects("preference", make_result("f", preferences=computed)) or ()) == computed.keys()
    assert find_listed_subjects("preference", make_result("f")) is None
    assert find_listed_subjects("preference", make_result("p")) == ()
