"""Which failures the network of Watchdog's own machine may explain, and what becomes of their results."""

from __future__ import annotations

import pytest

from tests.support.builders import make_result
from watchdog.domain.model import Outcome
from watchdog.domain.own_network import (
    MASS_FAILURE_WINDOW_MS,
    MIN_HOSTS_OF_MASS_FAILURE,
    WATCHDOG_NETWORK_FAULT_REASON,
    MassFailureDetector,
    NetworkFaultDecision,
    OwnNetworkFault,
    OwnNetworkFaultSymptomKind,
    apply_network_fault_decision_to_result,
    find_own_network_fault_symptom_of_reason,
    get_endpoint_host,
)

HELD = make_result("f", reason="connection.unreachable", message="no route to the host")._replace(held_until=5)


@pytest.mark.parametrize("decision", [NetworkFaultDecision.TARGET, NetworkFaultDecision.UNDECIDED])
def test_a_failure_of_the_target_counts_as_it_was_observed(decision: NetworkFaultDecision) -> None:
    assert apply_network_fault_decision_to_result(HELD, decision) == HELD._replace(held_until=None)


def test_a_failure_of_the_own_network_is_an_error_that_quotes_what_was_observed() -> None:
    decided = apply_network_fault_decision_to_result(HELD, NetworkFaultDecision.OWN)
    assert (decided.outcome, decided.reason, decided.held_until) == (Outcome.ERROR, WATCHDOG_NETWORK_FAULT_REASON, None)
    assert decided.message == ("no verdict: the network of Watchdog's own machine has failed: no route to the host")
    assert decided._replace(outcome=HELD.outcome, reason=HELD.reason, message=HELD.message, held_until=5) == HELD


@pytest.mark.parametrize(
    ("reason", "symptom"),
    [
        ("connection.unreachable", OwnNetworkFaultSymptomKind.NO_ROUTE),
        ("timeout.dns", OwnNetworkFaultSymptomKind.NO_NAME_SERVER),
        ("dns.no_response", OwnNetworkFaultSymptomKind.NO_NAME_SERVER),
        ("dns.not_found", None),
        ("connection.refused", None),
        ("", None),
    ],
)
def test_which_reasons_leave_a_doubt(reason: str, symptom: OwnNetworkFaultSymptomKind | None) -> None:
    assert find_own_network_fault_symptom_of_reason(reason) is symptom


@pytest.mark.parametrize(
    ("symptom", "by_name_lookup"),
    [
        (OwnNetworkFaultSymptomKind.NO_ROUTE, False),
        (OwnNetworkFaultSymptomKind.NO_NAME_SERVER, True),
        (OwnNetworkFaultSymptomKind.MASS_FAILURE, False),
    ],
)
def test_names_are_resolved_only_if_no_name_server_responded(
    symptom: OwnNetworkFaultSymptomKind, by_name_lookup: bool
) -> None:
    assert symptom.is_checked_by_name_lookup is by_name_lookup


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("api.example:443", "api.example"),
        ("api.example", "api.example"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::1", "::1"),
    ],
)
def test_the_host_of_an_endpoint(endpoint: str, host: str) -> None:
    assert get_endpoint_host(endpoint) == host


# --- mass failure


def detector_with(runs: dict[int, str], *, hosts: int = 100, at: int = 1_000) -> MassFailureDetector:
    """All of these probes passed, and then ran as given: probe -> the family of its failure, or empty."""
    detector = MassFailureDetector()
    for probe in runs:
        detector.add_run_to_mass_failure_window(probe, "", "", at - 1_000)
    for probe, family in runs.items():
        detector.add_run_to_mass_failure_window(probe, f"h{probe % hosts}", family, at)
    return detector


def runs_of(**counts: int) -> dict[int, str]:
    """{"timeout": 6, "ok": 4}: that many probes with that family; `ok` passed."""
    families = [("" if family == "ok" else family) for family, count in counts.items() for _ in range(count)]
    return dict(enumerate(families))


@pytest.mark.parametrize(
    ("runs", "hosts", "is_mass_failure"),
    [
        (runs_of(timeout=6, ok=5), 100, True),
        (runs_of(timeout=5, ok=5), 100, False),
        (runs_of(timeout=6, ok=4, http=2), 100, False),
        (runs_of(timeout=4), 100, False),
        (runs_of(timeout=5), 100, True),
        (runs_of(timeout=60), MIN_HOSTS_OF_MASS_FAILURE - 1, False),
        (runs_of(timeout=60), MIN_HOSTS_OF_MASS_FAILURE, True),
        (runs_of(ok=10), 100, False),
    ],
)
def test_a_mass_failure_is_of_more_than_half_for_one_family_on_several_hosts(
    runs: dict[int, str], hosts: int, is_mass_failure: bool
) -> None:
    assert detector_with(runs, hosts=hosts).is_mass_failure("timeout", 1_000) is is_mass_failure


def test_runs_leave_the_window() -> None:
    detector = detector_with(runs_of(timeout=6))
    assert detector.is_mass_failure("timeout", 1_000 + MASS_FAILURE_WINDOW_MS - 1)
    assert not detector.is_mass_failure("timeout", 1_000 + MASS_FAILURE_WINDOW_MS)


def test_a_probe_that_had_failed_before_does_not_count() -> None:
    detector = detector_with(runs_of(timeout=6))
    for probe in range(6):
        detector.add_run_to_mass_failure_window(probe, f"h{probe}", "timeout", 1_000 + MASS_FAILURE_WINDOW_MS)
    assert not detector.is_mass_failure("timeout", 1_000 + MASS_FAILURE_WINDOW_MS)


def test_after_a_fault_of_the_own_network_the_next_failure_counts() -> None:
    detector = detector_with(runs_of(timeout=6))
    for probe in range(6):
        detector.count_run_failed_by_own_fault_as_passed(probe)
        detector.add_run_to_mass_failure_window(probe, f"h{probe}", "timeout", 1_000 + MASS_FAILURE_WINDOW_MS)
    assert detector.is_mass_failure("timeout", 1_000 + MASS_FAILURE_WINDOW_MS)


def test_a_probe_counts_with_its_newest_run() -> None:
    """Every 10 s, and the other half recovers in between."""
    detector = detector_with(runs_of(timeout=6))
    for probe in range(6):
        detector.add_run_to_mass_failure_window(probe, f"h{probe}", "", 11_000)
        detector.add_run_to_mass_failure_window(probe, f"h{probe}", "http" if probe % 2 else "", 21_000)
    assert not detector.is_mass_failure("timeout", 21_000)
    assert not detector.is_mass_failure("http", 21_000)


def test_which_probes_fail_alike() -> None:
    detector = detector_with(runs_of(timeout=2, http=2, ok=2))
    assert detector.list_probes_failing_for_same_reasons([0]) == [0, 1]
    assert detector.list_probes_failing_for_same_reasons([0, 3, 4, 99]) == [0, 1, 2, 3]
    assert detector.list_probes_failing_for_same_reasons([5, 99]) == []


def test_a_host_counts_while_one_of_its_probes_fails() -> None:
    detector = detector_with(runs_of(timeout=2 * MIN_HOSTS_OF_MASS_FAILURE), hosts=MIN_HOSTS_OF_MASS_FAILURE)
    for at in (2_000, 3_000):
        detector.add_run_to_mass_failure_window(0, "h0", "", at)
    assert detector.is_mass_failure("timeout", 3_000)
    for at in (4_000, 5_000):
        detector.add_run_to_mass_failure_window(MIN_HOSTS_OF_MASS_FAILURE, "h0", "", at)
    assert not detector.is_mass_failure("timeout", 5_000)


@pytest.mark.parametrize(
    ("affects_runs_until", "now", "may_explain_failed_result"),
    [(None, 99, True), (None, 100, False), (50, 99, True), (49, 99, False), (50, 100, False)],
)
def test_a_fault_may_explain_what_began_before_the_recovery(
    affects_runs_until: int | None, now: int, may_explain_failed_result: bool
) -> None:
    fault = OwnNetworkFault(HELD.location, aftermath_ends_at=100, affects_runs_until=affects_runs_until)
    assert fault.may_explain_failed_result(HELD._replace(slot=50), now) is may_explain_failed_result


def test_only_a_lookup_outlasts_the_recovery_of_the_network() -> None:
    assert {symptom: symptom.max_symptom_duration_after_recovery_ms for symptom in OwnNetworkFaultSymptomKind} == {
        OwnNetworkFaultSymptomKind.NO_ROUTE: 0,
        OwnNetworkFaultSymptomKind.NO_NAME_SERVER: 10_000,
        OwnNetworkFaultSymptomKind.MASS_FAILURE: 0,
    }


def test_a_fault_explains_nothing_after_a_step_of_the_clock() -> None:
    """Its instants have not come yet, or are long ago."""
    fault = OwnNetworkFault(HELD.location, aftermath_ends_at=7_200_100, affects_runs_until=7_200_050)
    assert not fault.may_explain_failed_result(HELD._replace(slot=50, location=f"{HELD.location}#1"), 60)


def test_runs_from_before_the_clock_was_set_back_are_forgotten() -> None:
    """Otherwise they would be counted until their time comes again."""
    runs, first = runs_of(timeout=2 * MIN_HOSTS_OF_MASS_FAILURE), 7_200_000
    detector = detector_with(runs, at=first)
    assert detector.is_mass_failure("timeout", first)
    assert not detector.is_mass_failure("timeout", 1_000)
    assert detector.list_probes_failing_for_same_reasons([0]) == []
