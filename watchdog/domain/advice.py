"""What to do about an incident, from the catalogue of reasons. Pure."""

from __future__ import annotations

import re

from watchdog.domain import reasons
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.model import Incident, ProbeInfo, ResultWithEvidence


def find_advice(incident: Incident, probe: ProbeInfo, result: ResultWithEvidence | None) -> str:
    """In Markdown; empty if there is none."""
    reason = _find_reason_to_advise_on(incident, result)
    return reasons.get_reason_advice(reason, probe_id=probe.id, job_name=incident.subject)


def find_advice_on_alert(context: AlertMessageContext) -> str:
    """The same, by the newest result of an open incident; of one that is over, by its first bad one, because the newest
    is good."""
    is_over = context.incident.resolved_at is not None
    result = context.first_bad if is_over else context.latest or context.first_bad
    return find_advice(context.incident, context.probe, result)


def _find_reason_to_advise_on(incident: Incident, result: ResultWithEvidence | None) -> str:
    """That of the incident; of an expression about a certificate that expires or about an HTTP error, the reason of the
    expiry or of the status, whose advice is more exact."""
    if incident.reason == "preference.failed" and re.search(r"\bcert_days\b", incident.subject):
        return "tls.expired"
    facts = result.evidence.facts if result is not None and incident.reason == "expectation.failed" else {}
    broken = facts.get("expect")
    if isinstance(broken, dict) and any("cert_days" in text and broken[text] != "true" for text in broken):
        return "tls.expired"
    status = facts.get("status")
    return f"http.{status}" if isinstance(status, int) and status >= 400 else incident.reason
