"""The state machine of every finding, one case per row of its table."""

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
from watchdog.domain.model import Finding, IncidentEvent, IncidentTransition, SuspectOrOpenAlertState
from watchdog.domain.rules import (
    INCIDENT_HEALTH_STATE_BY_RULE,
    AlertStates,
    advance_alert_state_in_place,
    derive_probe_health_state,
    fold_results_into_alert_states_in_place,
    missed_run,
    stale,
)
from watchdog.domain.rules.engine import derive_incident_id, fold_result_into_alert_states_in_place

KEY = ("availability", "")
OPENED_FOR = derive_incident_id(PROBE_DATABASE_ID, *KEY, SLOT_INTERVAL_MS)


def suspect(bad: int) -> SuspectOrOpenAlertState:
    return SuspectOrOpenAlertState(bad, 0, SLOT_INTERVAL_MS, None, "timeout.exceeded")


def opened(good: int = 0) -> SuspectOrOpenAlertState:
    return SuspectOrOpenAlertState(3, good, SLOT_INTERVAL_MS, OPENED_FOR, "timeout.exceeded")


def state_name(state: SuspectOrOpenAlertState | None) -> str:
    if state is None:
        return "clear"
    if state.incident is None:
        return "suspect"
    return "recovering" if state.good_count else "open"


class Row(NamedTuple):
    sentence: str
    before: SuspectOrOpenAlertState | None
    bad: bool
    becomes: str
    out: IncidentEvent | None = None
    failure_threshold: int = 3
    success_threshold: int = 3


TABLE = [
    Row("clear stays clear when good", None, False, "clear"),
    Row("clear becomes suspect when bad", None, True, "suspect"),
    Row(
        "clear opens when bad if `failure_threshold` is 1",
        None,
        True,
        "open",
        IncidentEvent.OPENED,
        failure_threshold=1,
    ),
    Row("suspect becomes clear when good", suspect(2), False, "clear"),
    Row("suspect stays suspect when bad, fewer than `failure_threshold` times in a row", suspect(1), True, "suspect"),
    Row("suspect opens when bad `failure_threshold` times in a row", suspect(2), True, "open", IncidentEvent.OPENED),
    Row(
        "suspect opens when bad if `failure_threshold` was lowered below its count",
        suspect(5),
        True,
        "open",
        IncidentEvent.OPENED,
    ),
    Row("open stays open when bad, without a second event", opened(), True, "open"),
    Row("open becomes recovering when good, fewer than `success_threshold` times", opened(), False, "recovering"),
    Row(
        "open becomes clear when good if `success_threshold` is 1",
        opened(),
        False,
        "clear",
        IncidentEvent.RESOLVED,
        success_threshold=1,
    ),
    Row("recovering becomes open when bad", opened(2), True, "open"),
    Row("recovering stays recovering when good, fewer than `success_threshold` times", opened(1), False, "recovering"),
    Row(
        "recovering becomes clear when good `success_threshold` times in a row",
        opened(2),
        False,
        "clear",
        IncidentEvent.RESOLVED,
    ),
    Row(
        "recovering becomes clear when good if `success_threshold` was lowered below its count",
        opened(4),
        False,
        "clear",
        IncidentEvent.RESOLVED,
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.sentence)
def test_state_transitions(row: Row) -> None:
    alert_states: AlertStates = {} if row.before is None else {KEY: row.before}
    out: list[IncidentTransition] = []
    finding = Finding(*KEY, row.bad, "refused" if row.bad else "", "connection refused" if row.bad else "")
    advance_alert_state_in_place(
        alert_policy(row.failure_threshold, row.success_threshold), alert_states, 4 * SLOT_INTERVAL_MS, finding, out
    )
    assert state_name(alert_states.get(KEY)) == row.becomes
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


def test_a_suspect_state_counts_bad_findings_and_keeps_the_first_slot_and_the_newest_reason() -> None:
    alert_states: AlertStates = {}
    for slot, reason in ((1, "timeout.exceeded"), (2, "refused")):
        advance_alert_state_in_place(
            alert_policy(failure_threshold=3), alert_states, slot, Finding(*KEY, True, reason), []
        )
    assert alert_states == {KEY: SuspectOrOpenAlertState(2, 0, 1, None, "refused")}
    advance_alert_state_in_place(
        alert_policy(failure_threshold=3), alert_states, 3, Finding(*KEY, True, "dns.failed"), []
    )
    assert alert_states == {
        KEY: SuspectOrOpenAlertState(3, 0, 1, derive_incident_id(PROBE_DATABASE_ID, *KEY, 1), "dns.failed")
    }


def test_a_bad_finding_resets_the_good_count_of_an_open_state() -> None:
    alert_states = {KEY: opened(2)}
    advance_alert_state_in_place(
        alert_policy(), alert_states, 9 * SLOT_INTERVAL_MS, Finding(*KEY, True, "timeout.exceeded"), []
    )
    assert alert_states == {KEY: opened(0)}


def test_a_recovering_state_counts_good_findings() -> None:
    alert_states = {KEY: opened(1)}
    advance_alert_state_in_place(
        alert_policy(success_threshold=3), alert_states, 9 * SLOT_INTERVAL_MS, Finding(*KEY, False), []
    )
    assert alert_states == {KEY: opened(2)}


class Sequence(NamedTuple):
    sentence: str
    outcomes: str
    changes: list[str]
    failure_threshold: int = 2
    success_threshold: int = 2


SEQUENCES = [
    Sequence("only passes: no incident", "pppp", []),
    Sequence("single bad slots: no incident", "pfpfpf", []),
    Sequence("two bad slots in a row open an incident", "pff", ["opened availability at 3: http.503"]),
    Sequence("further bad slots have no effect", "ffffff", ["opened availability at 2: http.503"]),
    Sequence("one good slot does not resolve it", "ffpfpf", ["opened availability at 2: http.503"]),
    Sequence("a bad slot resets the count of good slots", "ffpfppf",
           ["opened availability at 2: http.503", "resolved availability at 6"]),
    Sequence("a new incident opens after the first is resolved", "ffppff",
           ["opened availability at 2: http.503", "resolved availability at 4",
            "opened availability at 6: http.503"]),
    Sequence("an error between two failures does not affect the count", "fef",
           ["opened availability at 3: http.503"]),
    Sequence("an error while open does not affect the count", "ffpep",
           ["opened availability at 2: http.503", "resolved availability at 5"]),
    Sequence("a missed slot between two failures does not affect the count", "fmf",
           ["opened availability at 3: http.503"]),
    Sequence("missed slots while open have no effect", "ffmmmm", ["opened availability at 2: http.503"]),
    Sequence("missed slots alone are no evidence", "mmmmmm", []),
    Sequence("errors in a row are no_verdict, never down", "eep", ["opened no_verdict at 2: watchdog.internal_error"]),
    Sequence("a failure is a verdict: it resolves no_verdict",
        "eefp", ["opened no_verdict at 2: watchdog.internal_error",
           "resolved no_verdict at 4"]),
    Sequence("availability stays open while no_verdict opens and resolves", "ffeepp",
           ["opened availability at 2: http.503", "opened no_verdict at 4: watchdog.internal_error",
            "resolved availability at 6", "resolved no_verdict at 6"]),
    Sequence("thresholds of 1: each slot opens or resolves", "fpf",
           ["opened availability at 1: http.503", "resolved availability at 2",
            "opened availability at 3: http.503"], failure_threshold=1, success_threshold=1),
]  # fmt: skip


@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda sequence: sequence.sentence)
def test_sequences_of_outcomes(sequence: Sequence) -> None:
    done = fold_results_into_alert_states_in_place(
        alert_policy(sequence.failure_threshold, sequence.success_threshold),
        {},
        0,
        make_results(sequence.outcomes),
        lambda _: True,
    )
    assert describe_transitions(done.transitions) == sequence.changes


def test_resolved_refers_to_the_incident_that_was_opened() -> None:
    opening, resolving = fold_results_into_alert_states_in_place(
        alert_policy(2, 2), {}, 0, make_results("pffpp"), lambda _: True
    ).transitions
    assert opening.event is IncidentEvent.OPENED
    assert resolving.event is IncidentEvent.RESOLVED
    assert opening.incident == resolving.incident == derive_incident_id(PROBE_DATABASE_ID, *KEY, 2 * SLOT_INTERVAL_MS)
    assert opening.first_bad_slot == resolving.first_bad_slot == 2 * SLOT_INTERVAL_MS
    assert (opening.slot, resolving.slot) == (3 * SLOT_INTERVAL_MS, 5 * SLOT_INTERVAL_MS)
    assert (opening.message, resolving.message) == ("HTTP 503", "")


def test_an_incident_id_is_the_same_across_restarts_and_versions() -> None:
    assert derive_incident_id(7, "task", "sync", 60_000) == "41563045e232fe75b8742b69"


@pytest.mark.parametrize(
    ("sentence", "other"),
    [
        ("another probe", (8, "task", "sync", 60_000)),
        ("another rule", (7, "missing", "sync", 60_000)),
        ("another subject", (7, "task", "sync2", 60_000)),
        ("another first slot", (7, "task", "sync", 60_001)),
        ("rule and subject with the same characters in total", (7, "tasksync", "", 60_000)),
    ],
)
def test_incident_ids_differ(sentence: str, other: tuple[int, str, str, int]) -> None:
    assert derive_incident_id(*other) != derive_incident_id(7, "task", "sync", 60_000), sentence


def test_staleness_opens_and_resolves_at_once_regardless_of_thresholds() -> None:
    alert_states: AlertStates = {}
    out: list[IncidentTransition] = []
    advance_alert_state_in_place(
        alert_policy(3, 3), alert_states, SLOT_INTERVAL_MS, stale.build_stale_finding(300_000), out
    )
    fold_result_into_alert_states_in_place(alert_policy(3, 3), alert_states, make_result("f", 9), out)
    assert describe_transitions(out) == ["opened stale at 1: no_data", "resolved stale at 9"]
    assert out[0].message == "no result for 5\N{NO-BREAK SPACE}min"
    assert stale.build_finding_that_probe_results_are_not_stale() == Finding(*stale.STALE_ALERT_STATE_KEY, False)


@pytest.mark.parametrize(
    ("sentence", "outcome", "ends"),
    [
        ("a pass resolves it", "p", True),
        ("a failure resolves it", "f", True),
        ("an error resolves it: the probe ran", "e", True),
        ("a missed slot does not", "m", False),
    ],
)
def test_outcomes_that_resolve_staleness(sentence: str, outcome: str, ends: bool) -> None:
    alert_states: AlertStates = {}
    advance_alert_state_in_place(alert_policy(), alert_states, SLOT_INTERVAL_MS, stale.build_stale_finding(300_000), [])
    fold_result_into_alert_states_in_place(alert_policy(), alert_states, make_result(outcome, 9), [])
    assert (stale.STALE_ALERT_STATE_KEY not in alert_states) is ends, sentence


def test_a_run_of_a_cron_schedule_that_did_not_take_place_does_not_resolve_staleness() -> None:
    alert_states: AlertStates = {}
    advance_alert_state_in_place(alert_policy(), alert_states, SLOT_INTERVAL_MS, stale.build_stale_finding(300_000), [])
    result = make_result("m", 9)._replace(reason=missed_run.NOT_RUN_REASON)
    fold_result_into_alert_states_in_place(alert_policy(), alert_states, result, [])
    assert alert_states.keys() == {stale.STALE_ALERT_STATE_KEY, (missed_run.ALERT_RULE_NAME, "")}


@pytest.mark.parametrize(
    ("sentence", "rules", "judged", "state"),
    [
        ("no verdict yet is unknown", "", False, "unknown"),
        ("a verdict and no open finding is up", "", True, "up"),
        ("availability is down", "availability", True, "down"),
        ("a missing task is down", "missing", True, "down"),
        ("a bad task is degraded", "task", True, "degraded"),
        ("an unmet preference is degraded", "preference", True, "degraded"),
        ("a bad job is down", "job", True, "down"),
        ("stale is unknown", "stale", True, "unknown"),
        ("no verdict is unknown", "no_verdict", True, "unknown"),
        ("unknown is worse than degraded", "task stale preference", True, "unknown"),
        ("down is worse than unknown", "no_verdict availability stale", True, "down"),
        ("down is worse than degraded", "task missing", True, "down"),
        ("an open finding counts before the first verdict", "task", False, "degraded"),
    ],
)
def test_the_state_of_a_probe_is_the_worst_of_its_open_findings(
    sentence: str, rules: str, judged: bool, state: str
) -> None:
    assert derive_probe_health_state(rules.split(), has_verdict=judged) == state, sentence


def test_every_rule_is_registered() -> None:
    modules = [import_module(f"{rules.__name__}.{module.name}") for module in iter_modules(rules.__path__)]
    assert {module.ALERT_RULE_NAME for module in modules if hasattr(module, "ALERT_RULE_NAME")} == set(
        INCIDENT_HEALTH_STATE_BY_RULE
    )


# ------------------------------------------------------------------------------------------ the cause of an incident


class CauseRow(NamedTuple):
    sentence: str
    rule: str
    failure_threshold: int
    reasons: str
    """Of the bad slots in order; `-` is a good slot."""
    changes: str
    """"slot reason" of each change, slots counted from 1."""


CAUSES = [
    CauseRow("a cause that stays for the threshold is the new one", "availability", 2,
             "http.503 http.503 connection.refused connection.refused", "4 connection.refused"),
    CauseRow("one slot fewer changes nothing", "availability", 3,
             "http.503 http.503 http.503 timeout.connect timeout.connect http.503 timeout.connect timeout.connect", ""),
    CauseRow("a good slot between starts the count again", "availability", 2,
             "http.503 http.503 timeout.connect - timeout.connect", ""),
    CauseRow("two other causes in turn change nothing", "availability", 2,
             "http.503 http.503 timeout.connect dns.failed timeout.connect dns.failed", ""),
    CauseRow("another member of the same transport family is the same cause", "availability", 1,
             "timeout.connect timeout.first_byte timeout.body", ""),
    CauseRow("every transport family compares as a family", "availability", 1,
             "http.503 http.401 tls.expired tls.hostname dns.failed dns.timeout connection.refused connection.lost "
             "protocol.error protocol.http2_only body.too_large body.decoded_too_large json.invalid json.truncated",
             "3 tls.expired,5 dns.failed,7 connection.refused,9 protocol.error,11 body.too_large,13 json.invalid"),
    CauseRow("members of one family count together towards the threshold", "availability", 2,
             "dns.failed dns.failed timeout.connect timeout.body", "4 timeout.body"),
    CauseRow("back to the first cause is a change as well", "availability", 1,
             "http.503 timeout.connect http.503", "2 timeout.connect,3 http.503"),
    CauseRow("reasons of jobs compare whole, at once", "job", 3,
             "job.overdue job.failed job.stuck", "2 job.failed,3 job.stuck"),
    CauseRow("reasons of tasks compare whole", "task", 2,
             "task.stale task.stale task.failed task.failed", "4 task.failed"),
    CauseRow("reasons of canaries compare whole", "availability", 1,
             "canary.not_picked_up canary.lost", "2 canary.lost"),
    CauseRow("reasons of MCP compare whole", "availability", 1, "mcp.not_mcp mcp.tool_error", "2 mcp.tool_error"),
    CauseRow("a family's own name is no member of it", "availability", 1, "timeout.connect timeouts.x", "2 timeouts.x"),
]  # fmt: skip


@pytest.mark.parametrize("row", CAUSES, ids=lambda row: row.sentence)
def test_the_cause_of_an_incident(row: CauseRow) -> None:
    alert_states: AlertStates = {}
    out: list[IncidentTransition] = []
    policy = alert_policy(row.failure_threshold, 3)
    for slot, reason in enumerate(row.reasons.split(), 1):
        finding = Finding(row.rule, "", reason != "-", reason.strip("-"), f"sentence of {reason}")
        advance_alert_state_in_place(policy, alert_states, slot, finding, out)
    changes = [transition for transition in out if transition.event is IncidentEvent.CHANGED]
    assert ",".join(f"{change.slot} {change.reason}" for change in changes) == row.changes
    assert [change.message for change in changes] == [f"sentence of {change.reason}" for change in changes]
    assert len({transition.incident for transition in out}) == 1
    (state,) = alert_states.values()
    assert state.reason == (changes[-1].reason if changes else row.reasons.split()[0])


def test_after_a_change_no_other_cause_is_counted() -> None:
    alert_states: AlertStates = {}
    for slot, reason in enumerate(("http.503", "http.503", "dns.failed", "dns.failed")):
        advance_alert_state_in_place(alert_policy(2), alert_states, slot, Finding(*KEY, True, reason), [])
    assert (alert_states[KEY].reason, alert_states[KEY].other_count) == ("dns.failed", 0)


@pytest.mark.parametrize(
    ("threshold", "reasons", "changes"),
    [
        (1, "http.503 dns.failed", [(2, 2)]),
        (3, "http.503 http.503 http.503 dns.failed dns.failed dns.failed", [(4, 6)]),
        (2, "http.503 http.503 dns.failed tls.expired tls.expired", [(4, 5)]),
        (2, "http.503 http.503 dns.failed http.503 dns.failed dns.failed", [(5, 6)]),
        (2, "http.503 http.503 dns.failed - dns.failed dns.failed", [(5, 6)]),
        (2, "http.503 http.503 dns.failed dns.failed http.503 http.503", [(3, 4), (5, 6)]),
        (2, "timeout.connect timeout.connect dns.failed dns.no_response", [(3, 4)]),
    ],
)
def test_a_cause_is_new_since_the_first_slot_that_had_it(
    threshold: int, reasons: str, changes: list[tuple[int, int]]
) -> None:
    alert_states: AlertStates = {}
    transitions: list[IncidentTransition] = []
    for slot, reason in enumerate(reasons.split(), 1):
        finding = Finding(*KEY, reason != "-", reason.strip("-"))
        advance_alert_state_in_place(alert_policy(threshold, 3), alert_states, slot, finding, transitions)
    changed = [(each.cause_since, each.slot) for each in transitions if each.event is IncidentEvent.CHANGED]
    assert changed == changes
    assert {each.cause_since for each in transitions if each.event is not IncidentEvent.CHANGED} == {None}


def test_a_change_is_decided_alike_wherever_the_fold_is_interrupted() -> None:
    reasons = ["http.503", "http.503", "dns.failed", "dns.failed", "-", "http.401", "http.401", "dns.failed"]
    policy = alert_policy(2, 2)

    def fold(cut: int) -> list[IncidentTransition]:
        stored: AlertStates = {}
        out: list[IncidentTransition] = []
        for slot, reason in enumerate(reasons):
            if slot == cut:  # as if the states were written and read again
                stored = {key: SuspectOrOpenAlertState(*state) for key, state in stored.items()}
            advance_alert_state_in_place(policy, stored, slot, Finding(*KEY, reason != "-", reason, reason), out)
        return out

    assert all(fold(cut) == fold(-1) for cut in range(len(reasons)))
