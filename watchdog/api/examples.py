"""The examples in the documentation of the API. The serializers make them from sample objects."""

from __future__ import annotations

from typing import Any

from watchdog.api.serializers.incidents import serialize_incident, serialize_incident_detail
from watchdog.api.serializers.jobs import serialize_job_summary
from watchdog.api.serializers.probes import serialize_probe_detail, serialize_probe_status
from watchdog.domain.formatting import MINUTE_MS
from watchdog.domain.model import (
    AlertMessageContext,
    DeliveryState,
    Evidence,
    HealthState,
    Incident,
    IncidentEvent,
    Json,
    Outcome,
    ProbeInfo,
    ResultWithEvidence,
    RunSummary,
    Severity,
)
from watchdog.store.read.jobs import JobSummary
from watchdog.store.read.status import DeliveryRecord, IncidentRecord, ProbeStatus, ResultRow

_OPENED_AT = 1_795_312_142_000  # 2026-11-22T01:49:02Z
_FIRST_BAD_SLOT = _OPENED_AT - 62_000
_PROBE = ProbeInfo(
    1, "api", "API", "http", "Core", ("prod",), Severity.CRITICAL,
    runbook="https://wiki.acme.example/api", target="https://api.acme.example/health", schedule_text="every 60 s",
)  # fmt: skip
_JOBS_PROBE = ProbeInfo(2, "reports", "Reports", "jobs", schedule_text="every 60 s")
_INCIDENT = Incident(
    id="4f2a90c1d3e85b7764a1b0c2", probe=1, rule="availability", subject="", severity=Severity.CRITICAL,
    since=_FIRST_BAD_SLOT, opened_at=_OPENED_AT, reason="http.503", message="HTTP 503, expected 200",
)  # fmt: skip
_CAUSE = (Outcome.FAIL, _INCIDENT.reason, _INCIDENT.message, 184)
_EVIDENCE = Evidence({"status": 503}, 'HTTP/1.1 503 Service Unavailable\n\n{"db": "pool exhausted"}')
_STATUS = ProbeStatus(
    probe=_PROBE,
    created_at=_OPENED_AT - 90 * 24 * 60 * MINUTE_MS,
    state=HealthState.DOWN,
    open_incidents=(_INCIDENT,),
    latest_result=ResultRow(_OPENED_AT - 2_000, "local", *_CAUSE, 1, _OPENED_AT),
    last_judged_slot=_OPENED_AT - 2_000,
    next_due=_OPENED_AT + 58_000,
)
_RECORD = IncidentRecord(
    incident=_INCIDENT, probe=_PROBE, opened_slot=_OPENED_AT - 2_000, threshold=2,
    routing_log=("route 1 matches: notifies oncall",), resolved_slot=None, generation=0,
)  # fmt: skip
_DELIVERY = DeliveryRecord(
    _INCIDENT.id, "oncall/slack", 0, IncidentEvent.OPENED, DeliveryState.SENT, _OPENED_AT, _OPENED_AT, 1, "",
    _OPENED_AT + 412,
)  # fmt: skip
_JOB = JobSummary(
    probe=_JOBS_PROBE, name="nightly-report", schedule_text="0 2 * * * UTC", last_start=_OPENED_AT - 85_742_000,
    last_end=_OPENED_AT - 85_700_000, last_ok=_OPENED_AT - 85_700_000, duration=42_000,
    next_expected_at=_OPENED_AT + 658_000, reason="", message="", read_at=_OPENED_AT, has_run=True,
)  # fmt: skip

_FIRST_BAD = ResultWithEvidence(_FIRST_BAD_SLOT, "local", *_CAUSE, _EVIDENCE)
_LAST_GOOD = RunSummary(_FIRST_BAD_SLOT - MINUTE_MS, Outcome.PASS, 182)
_CONTEXT = AlertMessageContext(
    IncidentEvent.OPENED, _INCIDENT, _PROBE, _OPENED_AT, bad_count=2, threshold=2, last_good=_LAST_GOOD,
    first_bad=_FIRST_BAD, latest=_FIRST_BAD,
)  # fmt: skip

PROBE_EXAMPLE = serialize_probe_status(_STATUS)
PROBE_DETAIL_EXAMPLE = serialize_probe_detail(_STATUS, "name: API\nhttp: https://api.acme.example/health\n")
INCIDENT_EXAMPLE = serialize_incident(_RECORD)
INCIDENT_DETAIL_EXAMPLE = serialize_incident_detail(_RECORD, _CONTEXT, [_DELIVERY])
JOB_EXAMPLE = serialize_job_summary(_JOB)


def build_list_example(path: str, item: Any) -> Json:
    """A page of a list, with a link to the next page."""
    return {"items": [item], "next": f"{path}?limit=1&cursor=WyJjMGZmZWUiLDFd"}
