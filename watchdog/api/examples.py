"""The examples in the documentation of the API. The serializers make them from sample objects."""

from __future__ import annotations

from typing import Any

from watchdog.api.serializers.deliveries import serialize_delivery
from watchdog.api.serializers.incidents import serialize_incident, serialize_incident_detail
from watchdog.api.serializers.jobs import serialize_job_summary
from watchdog.api.serializers.probes import serialize_probe_detail, serialize_probe_status
from watchdog.api.serializers.queues import QueueReading, serialize_queue
from watchdog.api.serializers.receivers import serialize_receiver
from watchdog.api.serializers.results import serialize_result_details
from watchdog.api.service import TaskHealthJson, serialize_service
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, format_iso8601
from watchdog.domain.measurements import QueueMeasurements
from watchdog.domain.membership import LiveWatchdogProcesses, WatchdogProcessRecord, WatchdogProcessStatus
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
from watchdog.domain.probe_state import QueueThreshold, QueueThresholdRecord
from watchdog.store.read.destinations import DestinationDeliveries
from watchdog.store.read.history import ResultDetails
from watchdog.store.read.jobs import JobSummary
from watchdog.store.read.queue_stats import QueueSample
from watchdog.store.read.status import DeliveryRecord, IncidentRecord, ProbeStatus, ResultRow

_OPENED_AT = 1_795_312_142_000  # 2026-11-22T01:49:02Z
_FIRST_BAD_SLOT = _OPENED_AT - 62_000
_PROBE = ProbeInfo(
    database_id=1, id="api", name="API", kind="http", group="Core", tags=("prod",), severity=Severity.CRITICAL,
    runbook="https://wiki.acme.example/api", target="https://api.acme.example/health", schedule_text="every 60 s",
)  # fmt: skip
_INCIDENT = Incident(
    id="4f2a90c1d3e85b7764a1b0c2", probe=1, rule="availability", subject="", severity=Severity.CRITICAL,
    since=_FIRST_BAD_SLOT, opened_at=_OPENED_AT, reason="http.503", message="HTTP 503, expected 200",
)  # fmt: skip
_EVIDENCE = Evidence({"status": 503}, 'HTTP/1.1 503 Service Unavailable\n\n{"db": "pool exhausted"}')
_FIRST_BAD = ResultWithEvidence(
    slot=_FIRST_BAD_SLOT, location="local", outcome=Outcome.FAIL, reason=_INCIDENT.reason, message=_INCIDENT.message,
    duration=184, evidence=_EVIDENCE,
)  # fmt: skip
_RESULT = ResultRow(
    slot=_FIRST_BAD_SLOT, location="local", outcome=Outcome.FAIL, reason=_INCIDENT.reason, message=_INCIDENT.message,
    duration=184, slot_count=1, recorded_at=_FIRST_BAD_SLOT + 1_000,
)  # fmt: skip
_STATUS = ProbeStatus(
    probe=_PROBE, created_at=_OPENED_AT - 90 * DAY_MS, state=HealthState.DOWN, open_incidents=(_INCIDENT,),
    latest_result=_RESULT, last_judged_slot=_RESULT.slot, next_due=_OPENED_AT + 58_000,
)  # fmt: skip
_RECORD = IncidentRecord(
    incident=_INCIDENT, probe=_PROBE, opened_slot=_OPENED_AT - 2_000, threshold=2,
    routing_log=("route 1 matches: notifies oncall",), resolved_slot=None, generation=0,
)  # fmt: skip
_DELIVERY = DeliveryRecord(
    incident=_INCIDENT.id, destination="oncall/slack", seq=0, event=IncidentEvent.OPENED, state=DeliveryState.SENT,
    created_at=_OPENED_AT, due_at=_OPENED_AT, attempts=1, detail="", finished_at=_OPENED_AT + 412,
)  # fmt: skip
_CONTEXT = AlertMessageContext(
    event=IncidentEvent.OPENED, incident=_INCIDENT, probe=_PROBE, now=_OPENED_AT, bad_count=2, threshold=2,
    last_good=RunSummary(_FIRST_BAD_SLOT - MINUTE_MS, Outcome.PASS, 182), first_bad=_FIRST_BAD, latest=_FIRST_BAD,
)  # fmt: skip
_DETAILS = ResultDetails(
    _RESULT, late=False, phases={"dns": 2.1, "connect": 4.0, "tls": 11.3, "first_byte": 166.2, "body": 0.4},
    measurements={}, evidence=_EVIDENCE,
)  # fmt: skip
_JOB = JobSummary(
    probe=ProbeInfo(2, "reports", "Reports", "jobs"), name="nightly-report", schedule_text="0 2 * * * UTC",
    last_start=_OPENED_AT - 85_742_000, last_end=_OPENED_AT - 85_700_000, last_ok=_OPENED_AT - 85_700_000,
    duration=42_000, next_expected_at=_OPENED_AT + 658_000, reason="", message="", read_at=_OPENED_AT, has_run=True,
)  # fmt: skip
_QUEUE = QueueReading(
    ProbeInfo(3, "mail-queue", "Mail queue", "queue"), HealthState.DOWN,
    QueueSample(_OPENED_AT, QueueMeasurements(waiting=1_204, active=4, failed=2, oldest=660_000, consumers=4)),
    {"waiting": QueueThresholdRecord(QueueThreshold("waiting", 1_000, 5 * MINUTE_MS), _OPENED_AT - 6 * MINUTE_MS)},
)  # fmt: skip
_MEMBER = WatchdogProcessRecord("watchdog-1-4242-9f3a1c", 7, _OPENED_AT - 10 * HOUR_MS, _OPENED_AT + 25_000)
_TASK: TaskHealthJson = {
    "name": "claim",
    "ok": True,
    "last_run_at": format_iso8601(_OPENED_AT - 400),
    "staleness_ms": 400,
    "last_run_status": "success",
    "last_run_error": None,
}

PROBE_EXAMPLE = serialize_probe_status(_STATUS)
PROBE_DETAIL_EXAMPLE = serialize_probe_detail(_STATUS, "name: API\nhttp: https://api.acme.example/health\n")
INCIDENT_EXAMPLE = serialize_incident(_RECORD)
INCIDENT_DETAIL_EXAMPLE = serialize_incident_detail(_RECORD, _CONTEXT, [_DELIVERY], ["chat/slack"])
RESULT_DETAIL_EXAMPLE = serialize_result_details(_DETAILS)
DELIVERY_EXAMPLE = serialize_delivery(_DELIVERY)
QUEUE_EXAMPLE = serialize_queue(_QUEUE)
RECEIVER_EXAMPLE = serialize_receiver("oncall/slack", "#oncall", DestinationDeliveries(_OPENED_AT + 412), None)
SERVICE_EXAMPLE = serialize_service(
    version="0.1.0",
    not_ready_reason="",
    findings=(),
    notes=(),
    config_warnings=(),
    members=LiveWatchdogProcesses((WatchdogProcessStatus(_MEMBER),)),
    tasks=[_TASK],
)
JOB_EXAMPLE = serialize_job_summary(_JOB)


def build_list_example(path: str, item: Any) -> Json:
    """A page of a list, with a link to the next page."""
    return {"items": [item], "next": f"{path}?limit=1&cursor=WyJjMGZmZWUiLDFd"}
