"""Which failures the network of Watchdog's own machine may explain, and what becomes of their results."""

from __future__ import annotations

import pytest

from tests.support.builders import make_result
from watchdog.domain.model import Outcome
from watchdog.domain.own_network import (
    OWN_NETWORK_REASON,
    NetworkFaultDecision,
    NetworkSymptom,
    apply_network_fault_decision,
    find_network_symptom,
    get_endpoint_host,
)

HELD = make_result("f", reason="connection.unreachable", message="no route to the host")._replace(held_until=5)


@pytest.mark.parametrize("decision", [NetworkFaultDecision.TARGET, NetworkFaultDecision.UNDECIDED])
def test_a_failure_of_the_target_counts_as_it_was_observed(decision: NetworkFaultDecision) -> None:
    assert apply_network_fault_decision(HELD, decision) == HELD._replace(held_until=None)


def test_a_failure_of_the_own_network_is_an_error_that_quotes_what_was_observed() -> None:
    decided = apply_network_fault_decision(HELD, NetworkFaultDecision.OWN)
    assert (decided.outcome, decided.reason, decided.held_until) == (Outcome.ERROR, OWN_NETWORK_REASON, None)
    assert decided.message == ("no verdict: the network of Watchdog's own machine has failed: no route to the host")
    assert decided._replace(outcome=HELD.outcome, reason=HELD.reason, message=HELD.message, held_until=5) == HELD


@pytest.mark.parametrize(
    ("reason", "symptom"),
    [
        ("connection.unreachable", NetworkSymptom.NO_ROUTE),
        ("dns.no_response", NetworkSymptom.NO_NAME_SERVER),
        ("dns.not_found", None),
        ("connection.refused", None),
        ("", None),
    ],
)
def test_which_reasons_leave_a_doubt(reason: str, symptom: NetworkSymptom | None) -> None:
    assert find_network_symptom(reason) is symptom


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("api.example:443", "api.example"),
        ("api.example", "api.example"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_the_host_of_an_endpoint(endpoint: str, host: str) -> None:
    assert get_endpoint_host(endpoint) == host
