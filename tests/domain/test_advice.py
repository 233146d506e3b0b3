"""What to do about an incident: the advice of its reason, or of a more exact one that its evidence shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.alert_contexts import NOW, OPENED_ALERT, PROBE, make_incident, result_with_evidence
from watchdog.domain.advice import find_advice, find_advice_on_alert
from watchdog.domain.model import Outcome
from watchdog.domain.reasons import get_reason_advice

CERT_DAYS = "cert_days >= 14"


@pytest.mark.parametrize(
    ("reason", "subject", "facts", "advises_on"),
    [
        ("http.503", "", {}, "http.503"),
        ("http.503", "", None, "http.503"),
        ("preference.failed", CERT_DAYS, {}, "tls.expired"),
        ("preference.failed", "elapsed_ms < 800", {}, "preference.failed"),
        ("expectation.failed", "", None, "expectation.failed"),
        ("expectation.failed", "", {}, "expectation.failed"),
        ("expectation.failed", "", {"expect": {CERT_DAYS: "13"}}, "tls.expired"),
        ("expectation.failed", "", {"expect": {CERT_DAYS: "true"}, "status": 200}, "expectation.failed"),
        ("expectation.failed", "", {"expect": {"body.ok": "false"}, "status": 503}, "http.503"),
        ("expectation.failed", "", {"expect": "hidden", "status": "503"}, "expectation.failed"),
        ("tls.hostname", CERT_DAYS, {"status": 503}, "tls.hostname"),
    ],
)
def test_the_most_exact_advice(reason: str, subject: str, facts: dict[str, Any] | None, advises_on: str) -> None:
    incident = make_incident("availability", "", reason=reason, subject=subject)
    result = None if facts is None else result_with_evidence(NOW, Outcome.FAIL, "", facts=facts)
    assert find_advice(incident, PROBE, result) == get_reason_advice(advises_on, probe_id="api", job_name=subject)


def test_the_advice_on_an_incident_that_is_over_is_that_on_its_first_bad_result() -> None:
    bad = result_with_evidence(NOW, Outcome.FAIL, "", facts={"expect": {"body.ok": "false"}, "status": 503})
    good = result_with_evidence(NOW, Outcome.PASS, "", facts={})
    incident = make_incident("availability", "", reason="expectation.failed")
    alert = replace(OPENED_ALERT, incident=incident, first_bad=bad, latest=bad)
    assert find_advice_on_alert(alert) == get_reason_advice("http.503")
    over = replace(alert, incident=replace(incident, resolved_at=NOW), latest=good)
    assert find_advice_on_alert(over) == get_reason_advice("http.503")
    assert find_advice_on_alert(replace(alert, first_bad=None, latest=good)) == get_reason_advice("expectation.failed")
