"""The one machine for every finding, a sentence per row of its table."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import NamedTuple

import pytest

from tests.support.builders import (
    PROBE_DATABASE_ID,
    SLOT_INTERVAL_MS,
    alert_policy,
    describe_transitions,
    make_result,
    make_results,
)
from watchdog.domain import rules
from watchdog.domain.model import AlertState, Finding, IncidentEvent, IncidentTransition
from watchdog.domain.rules import (
    HEALTH_STATE_BY_RULE,
    AlertStates,
    apply_finding,
    derive_health_state,
    fold_results,
    stale,
)
from watchdog.domain.rules.engine import apply_result, derive_incident_id

KEY = ("availability", "")
OPENED_FOR = derive_incident_id(PROBE_DATABASE_ID, *KEY, SLOT_INTERVAL_MS)


def suspect(bad: int) -> AlertState:
    return AlertState(bad, 0, SLOT_INTERVAL_MS, None, "timeout.exceeded")


def opened(good: int = 0) -> AlertState:
    return AlertState(3, good, SLOT_INTERVAL_MS, OPENED_FOR, "timeout.exceeded")


def name(machine: AlertState | None) -> str:
    if machine is None:
        return "clear"
    if machine.incident is None:
        return "suspect"
    return "recovering" if machine.good_count else "open"


class Row(NamedTuple):
    sentence: str
    before: AlertState | None
    bad: bool
    becomes: str
    out: IncidentEvent | None = None
    after: int = 3
    recover: int = 3


TABLE = [
    Row("clear stays clear when good", None, False, "clear"),
    Row("clear becomes suspect when bad", None, True, "suspect"),
    Row("clear opens when bad, where one is enough", None, True, "open", IncidentEvent.OPENED, after=1),
    Row("suspect is clear when good", suspect(2), False, "clear"),
    Row("suspect stays suspect when bad, fewer than `after` in a row", suspect(1), True, "suspect"),
    Row("suspect opens when bad, the `after`th", suspect(2), True, "open", IncidentEvent.OPENED),
    Row(
        "suspect opens when bad, with more behind it than `after` asks by now",
        suspect(5),
        True,
        "open",
        IncidentEvent.OPENED,
    ),
    Row("open stays open when bad, and tells nothing twice", opened(), True, "open"),
    Row("open recovers when good, fewer than `recover`", opened(), False, "recovering"),
    Row("open is clear when good, where one is enough", opened(), False, "clear", IncidentEvent.RESOLVED, recover=1),
    Row("recovering is open again when bad", opened(2), True, "open"),
    Row("recovering goes on when good, fewer than `recover`", opened(1), False, "recovering"),
    Row("recovering is clear when good, the `recover`th", opened(2), False, "clear", IncidentEvent.RESOLVED),
    Row(
        "recovering is clear when good, with more behind it than `recover` asks by now",
        opened(4),
        False,
        "clear",
        IncidentEvent.RESOLVED,
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.sentence)
def test_table(row: Row) -> None:
    machines: AlertStates = {} if row.before is None else {KEY: row.before}
    out: list[IncidentTransition] = []
    finding = Finding(*KEY, row.bad, "refused" if row.bad else "", "connection refused" if row.bad else "")
    apply_finding(alert_policy(row.after, row.recover), machines, 4 * SLOT_INTERVAL_MS, finding, out)
    assert name(machines.get(KEY)) == row.becomes
    since = SLOT_INTERVAL_MS if row.before else 4 * SLOT_INTERVAL_MS
    change = row.out and IncidentTransition(
        row.out,
        PROBE_DATABASE_ID,
        *KEY,
        derive_incident_id(PROBE_DATABASE_ID, *KEY, since),
        since,
        4 * SLOT_INTERVAL_MS,
        finding.reason,
        finding.message,
    )
    assert out == ([change] if change else [])


def test_the_machine_counts_the_bad_ones_and_keeps_the_first_slot_and_the_newest_reason() -> None:
    machines: AlertStates = {}
    for slot, reason in ((1, "timeout.exceeded"), (2, "refused")):
        apply_finding(alert_policy(failure_threshold=3), machines, slot, Finding(*KEY, True, reason), [])
    assert machines == {KEY: AlertState(2, 0, 1, None, "refused")}
    apply_finding(alert_policy(failure_threshold=3), machines, 3, Finding(*KEY, True, "dns.failed"), [])
    assert machines == {KEY: AlertState(3, 0, 1, derive_incident_id(PROBE_DATABASE_ID, *KEY, 1), "dns.failed")}


def test_an_open_machine_keeps_what_it_opened_with_and_forgets_the_good_when_bad() -> None:
    machines = {KEY: opened(2)}
    apply_finding(alert_policy(), machines, 9 * SLOT_INTERVAL_MS, Finding(*KEY, True, "dns.failed"), [])
    assert machines == {KEY: opened(0)}


def test_a_recovering_machine_counts_the_good_ones() -> None:
    machines = {KEY: opened(1)}
    apply_finding(alert_policy(success_threshold=3), machines, 9 * SLOT_INTERVAL_MS, Finding(*KEY, False), [])
    assert machines == {KEY: opened(2)}


class Course(NamedTuple):
    sentence: str
    outcomes: str
    changes: list[str]
    after: int = 2
    recover: int = 2


COURSES = [
    Course("good all along tells nothing", "pppp", []),
    Course("one bad slot is no incident", "pfpfpf", []),
    Course("two in a row are", "pff", ["opened availability at 3: http.status"]),
    Course("going on bad tells nothing more", "ffffff", ["opened availability at 2: http.status"]),
    Course("one good slot does not end it", "ffpfpf", ["opened availability at 2: http.status"]),
    Course("a bad slot between sets the good ones back to none", "ffpfppf",
           ["opened availability at 2: http.status", "resolved availability at 6"]),
    Course("and it opens anew", "ffppff",
           ["opened availability at 2: http.status", "resolved availability at 4",
            "opened availability at 6: http.status"]),
    Course("an error between two failures neither adds nor forgives", "fef",
           ["opened availability at 3: http.status"]),
    Course("an error while open neither heals nor sets back", "ffpep",
           ["opened availability at 2: http.status", "resolved availability at 5"]),
    Course("a missed slot between two failures neither adds nor forgives", "fmf",
           ["opened availability at 3: http.status"]),
    Course("missed slots while open change nothing", "ffmmmm", ["opened availability at 2: http.status"]),
    Course("missed slots alone are no evidence", "mmmmmm", []),
    Course("errors in a row are no_verdict, never down", "eep", ["opened no_verdict at 2: watchdog.internal_error"]),
    Course("a failure is a judgement: it ends no_verdict", "eefp", ["opened no_verdict at 2: watchdog.internal_error",
           "resolved no_verdict at 4"]),
    Course("down goes on while no_verdict comes and goes", "ffeepp",
           ["opened availability at 2: http.status", "opened no_verdict at 4: watchdog.internal_error",
            "resolved availability at 6", "resolved no_verdict at 6"]),
    Course("one is enough where one is asked for", "fpf",
           ["opened availability at 1: http.status", "resolved availability at 2",
            "opened availability at 3: http.status"], after=1, recover=1),
]  # fmt: skip


@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.sentence)
def test_courses(course: Course) -> None:
    done = fold_results(
        alert_policy(course.after, course.recover), {}, 0, make_results(course.outcomes), lambda _: True
    )
    assert describe_transitions(done.transitions) == course.changes


def test_resolving_names_the_incident_that_was_opened() -> None:
    opening, resolving = fold_results(alert_policy(2, 2), {}, 0, make_results("pffpp"), lambda _: True).transitions
    assert opening.event is IncidentEvent.OPENED
    assert resolving.event is IncidentEvent.RESOLVED
    assert opening.incident == resolving.incident == derive_incident_id(PROBE_DATABASE_ID, *KEY, 2 * SLOT_INTERVAL_MS)
    assert opening.first_bad_slot == resolving.first_bad_slot == 2 * SLOT_INTERVAL_MS
    assert (opening.slot, resolving.slot) == (3 * SLOT_INTERVAL_MS, 5 * SLOT_INTERVAL_MS)
    assert (opening.message, resolving.message) == ("HTTP 503", "")


def test_an_incident_is_the_same_over_restarts_and_versions() -> None:
    assert derive_incident_id(7, "task", "sync", 60_000) == "41563045e232fe75b8742b69"


@pytest.mark.parametrize(
    ("sentence", "other"),
    [
        ("another probe", (8, "task", "sync", 60_000)),
        ("another rule", (7, "missing", "sync", 60_000)),
        ("another subject", (7, "task", "sync2", 60_000)),
        ("another beginning", (7, "task", "sync", 60_001)),
        ("the same letters split otherwise", (7, "tasksync", "", 60_000)),
    ],
)
def test_it_is_another_incident(sentence: str, other: tuple[int, str, str, int]) -> None:
    assert derive_incident_id(*other) != derive_incident_id(7, "task", "sync", 60_000), sentence


def test_staleness_opens_and_ends_at_once_whatever_the_policy_asks() -> None:
    machines: AlertStates = {}
    out: list[IncidentTransition] = []
    apply_finding(alert_policy(3, 3), machines, SLOT_INTERVAL_MS, stale.stale_finding(300_000), out)
    apply_result(alert_policy(3, 3), machines, make_result("f", 9), out)
    assert describe_transitions(out) == ["opened stale at 1: no_data", "resolved stale at 9"]
    assert out[0].message == "no result for 5\N{NO-BREAK SPACE}min"
    assert stale.fresh_finding() == Finding(*stale.ALERT_STATE_KEY, False)


@pytest.mark.parametrize(
    ("sentence", "outcome", "ends"),
    [
        ("a pass is heard", "p", True),
        ("a failure is heard", "f", True),
        ("an error is heard: somebody ran", "e", True),
        ("a missed slot is not", "m", False),
    ],
)
def test_what_ends_staleness(sentence: str, outcome: str, ends: bool) -> None:
    machines: AlertStates = {}
    apply_finding(alert_policy(), machines, SLOT_INTERVAL_MS, stale.stale_finding(300_000), [])
    apply_result(alert_policy(), machines, make_result(outcome, 9), [])
    assert (stale.ALERT_STATE_KEY not in machines) is ends, sentence


@pytest.mark.parametrize(
    ("sentence", "rules", "judged", "state"),
    [
        ("nothing judged yet is unknown", "", False, "unknown"),
        ("judged and nothing open is up", "", True, "up"),
        ("availability is down", "availability", True, "down"),
        ("a missing task is down", "missing", True, "down"),
        ("a bad task is degraded", "task", True, "degraded"),
        ("an unmet preference is degraded", "preference", True, "degraded"),
        ("a job that is not right is down", "job", True, "down"),
        ("stale is unknown", "stale", True, "unknown"),
        ("no verdict is unknown", "no_verdict", True, "unknown"),
        ("unknown is worse than degraded", "task stale preference", True, "unknown"),
        ("down is worse than unknown", "no_verdict availability stale", True, "down"),
        ("down is worse than degraded", "task missing", True, "down"),
        ("an open finding counts before anything was judged", "task", False, "degraded"),
    ],
)
def test_the_state_of_a_probe_is_the_worst_of_its_open_findings(
    sentence: str, rules: str, judged: bool, state: str
) -> None:
    assert derive_health_state(rules.split(), has_verdict=judged) == state, sentence


def test_every_rule_is_registered() -> None:
    modules = [import_module(f"{rules.__name__}.{module.name}") for module in iter_modules(rules.__path__)]
    assert {module.RULE_NAME for module in modules if hasattr(module, "RULE_NAME")} == set(HEALTH_STATE_BY_RULE)
