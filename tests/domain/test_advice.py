"""What to do about an incident: the advice of its reason, or of a more exact one that its evidence shows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.alert_contexts import NOW, PROBE, make_incident, result_with_evidence
from watchdog.domain.advice import find_advice
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
