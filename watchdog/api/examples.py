"""The examples in the documentation of the API. The serializers make them from sample objects."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from watchdog.api.config_changes import serialize_config_changes
from watchdog.api.serializers.acts import (
    serialize_forgotten_jobs,
    serialize_incident_acknowledgement,
    serialize_incident_closure,
    serialize_probe_pause,
    serialize_recorded_act,
    serialize_resent_notifications,
    serialize_run_request,
    serialize_silence,
    serialize_started_silence,
)
from watchdog.api.serializers.config import serialize_config_check
from watchdog.api.serializers.deliveries import serialize_delivery
from watchdog.api.serializers.incidents import serialize_incident, serialize_incident_detail
from watchdog.api.serializers.jobs import serialize_job_summary
from watchdog.api.serializers.maintenance import serialize_maintenance_window, serialize_started_maintenance
from watchdog.api.serializers.managed_probes import (
    ManagedProbeChangeJson,
    TriedProbeJson,
    serialize_managed_probe,
    serialize_managed_probes,
)
from watchdog.api.serializers.probes import serialize_probe_detail, serialize_probe_status
from watchdog.api.serializers.queues import QueueStatus, serialize_queue
from watchdog.api.serializers.receivers import serialize_destination_summary, serialize_receiver_test
from watchdog.api.serializers.reload import serialize_config_reload
from watchdog.api.serializers.results import serialize_result_details
from watchdog.api.serializers.transitions import serialize_transition
from watchdog.api.service import BackgroundTaskHealthJson, serialize_watchdog_service
from watchdog.domain.acts import (
    Acknowledgement,
    Actor,
    Closure,
    OperatorActKind,
    OperatorAuditLogEntry,
    OperatorInterfaceKind,
)
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.config_changes import ConfigChanges, ConfigFieldChange, ProbeConfigFieldChanges, RoutingChange
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, format_iso8601
from watchdog.domain.maintenance_windows import MaintenanceWindow
from watchdog.domain.measurements import QueueMeasurements
from watchdog.domain.membership import (
    LiveProcessWithSupersededDefinitions,
    LiveWatchdogProcesses,
    WatchdogProcessRecord,
)
from watchdog.domain.model import (
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
from watchdog.domain.pausing import Pause
from watchdog.domain.probe_state import QueueThreshold, QueueThresholdStateRecord
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.selection import SelectedProbeCountAndWarnings
from watchdog.domain.silencing import Silence, SilenceMatcher
from watchdog.domain.transitions import RecordedTransition, TransitionKind
from watchdog.service.config_check import ConfigCheckOutcome
from watchdog.service.config_reload import ConfigReloadOutcome, ConfigReloadResultKind
from watchdog.service.managed_edits import ManagedProbe, ManagedProbes
from watchdog.service.receiver_tests import DestinationTestResult, SentTestAlertOutcome
from watchdog.store.read.destinations import DestinationDeliverySummary, DestinationSummary
from watchdog.store.read.history import ResultDetails
from watchdog.store.read.incident_details import IncidentDetails
from watchdog.store.read.jobs import JobSummary
from watchdog.store.read.queue_stats import QueueSample
from watchdog.store.read.status import DeliveryRecord, IncidentRecord, ProbeStatus, ResultRow
from watchdog.store.write.forgotten_jobs import ForgottenJobs

_EXAMPLE_INCIDENT_OPENED_AT_MS = 1_795_312_142_000  # 2026-11-22T01:49:02Z
_EXAMPLE_FIRST_BAD_SLOT_MS = _EXAMPLE_INCIDENT_OPENED_AT_MS - 62_000
_EXAMPLE_PROBE_INFO = ProbeInfo(
    database_id=1,
    id="api",
    name="API",
    kind="http",
    group="Core",
    tags=("prod",),
    severity=Severity.CRITICAL,
    runbook="https://wiki.acme.example/api",
    target="https://api.acme.example/health",
    schedule_text="every 60 s",
)
_EXAMPLE_INCIDENT = Incident(
    id="4f2a90c1d3e85b7764a1b0c2",
    probe=1,
    rule="availability",
    subject="",
    severity=Severity.CRITICAL,
    since=_EXAMPLE_FIRST_BAD_SLOT_MS,
    opened_at=_EXAMPLE_INCIDENT_OPENED_AT_MS,
    reason="http.503",
    message="HTTP 503, expected 200",
)
_EXAMPLE_EVIDENCE = Evidence({"status": 503}, 'HTTP/1.1 503 Service Unavailable\n\n{"db": "pool exhausted"}')
_EXAMPLE_FIRST_BAD_RESULT = ResultWithEvidence(
    slot=_EXAMPLE_FIRST_BAD_SLOT_MS,
    location="local",
    outcome=Outcome.FAIL,
    reason=_EXAMPLE_INCIDENT.reason,
    message=_EXAMPLE_INCIDENT.message,
    duration=184,
    evidence=_EXAMPLE_EVIDENCE,
)
_EXAMPLE_RESULT_ROW = ResultRow(
    slot=_EXAMPLE_FIRST_BAD_SLOT_MS,
    location="local",
    outcome=Outcome.FAIL,
    reason=_EXAMPLE_INCIDENT.reason,
    message=_EXAMPLE_INCIDENT.message,
    duration=184,
    slot_count=1,
    recorded_at=_EXAMPLE_FIRST_BAD_SLOT_MS + 1_000,
)
_EXAMPLE_PROBE_STATUS = ProbeStatus(
    probe=_EXAMPLE_PROBE_INFO,
    created_at=_EXAMPLE_INCIDENT_OPENED_AT_MS - 90 * DAY_MS,
    state=HealthState.DOWN,
    open_incidents=(_EXAMPLE_INCIDENT,),
    latest_result=_EXAMPLE_RESULT_ROW,
    last_judged_slot=_EXAMPLE_RESULT_ROW.slot,
    next_due=_EXAMPLE_INCIDENT_OPENED_AT_MS + 58_000,
)
_EXAMPLE_INCIDENT_RECORD = IncidentRecord(
    incident=_EXAMPLE_INCIDENT,
    probe=_EXAMPLE_PROBE_INFO,
    opened_slot=_EXAMPLE_INCIDENT_OPENED_AT_MS - 2_000,
    threshold=2,
    routing_log=("route 1 matches: notifies oncall",),
    resolved_slot=None,
    generation=0,
)
_EXAMPLE_DELIVERY_RECORD = DeliveryRecord(
    incident=_EXAMPLE_INCIDENT.id,
    destination="oncall/slack",
    seq=0,
    event=IncidentEvent.OPENED,
    state=DeliveryState.SENT,
    created_at=_EXAMPLE_INCIDENT_OPENED_AT_MS,
    due_at=_EXAMPLE_INCIDENT_OPENED_AT_MS,
    attempts=1,
    detail="",
    finished_at=_EXAMPLE_INCIDENT_OPENED_AT_MS + 412,
)
_EXAMPLE_ALERT_MESSAGE_CONTEXT = AlertMessageContext(
    event=IncidentEvent.OPENED,
    incident=_EXAMPLE_INCIDENT,
    probe=_EXAMPLE_PROBE_INFO,
    now=_EXAMPLE_INCIDENT_OPENED_AT_MS,
    bad_count=2,
    threshold=2,
    last_good=RunSummary(_EXAMPLE_FIRST_BAD_SLOT_MS - MINUTE_MS, Outcome.PASS, 182),
    first_bad=_EXAMPLE_FIRST_BAD_RESULT,
    latest=_EXAMPLE_FIRST_BAD_RESULT,
)
_EXAMPLE_RESULT_DETAILS = ResultDetails(
    _EXAMPLE_RESULT_ROW,
    late=False,
    phases={"dns": 2.1, "connect": 4.0, "tls": 11.3, "first_byte": 166.2, "body": 0.4},
    measurements={},
    evidence=_EXAMPLE_EVIDENCE,
)
_EXAMPLE_JOB_SUMMARY = JobSummary(
    probe=ProbeInfo(2, "reports", "Reports", "jobs"),
    name="nightly-report",
    schedule_text="0 2 * * * UTC",
    last_start=_EXAMPLE_INCIDENT_OPENED_AT_MS - 85_742_000,
    last_end=_EXAMPLE_INCIDENT_OPENED_AT_MS - 85_700_000,
    last_ok=_EXAMPLE_INCIDENT_OPENED_AT_MS - 85_700_000,
    duration=42_000,
    next_expected_at=_EXAMPLE_INCIDENT_OPENED_AT_MS + 658_000,
    reason="",
    message="",
    read_at=_EXAMPLE_INCIDENT_OPENED_AT_MS,
    has_run=True,
)
_EXAMPLE_QUEUE_STATUS = QueueStatus(
    ProbeInfo(3, "mail-queue", "Mail queue", "queue"),
    HealthState.DOWN,
    QueueSample(
        _EXAMPLE_INCIDENT_OPENED_AT_MS,
        QueueMeasurements(waiting=1_204, active=4, failed=2, oldest=660_000, consumers=4),
    ),
    {
        "waiting": QueueThresholdStateRecord(
            QueueThreshold("waiting", 1_000, 5 * MINUTE_MS), _EXAMPLE_INCIDENT_OPENED_AT_MS - 6 * MINUTE_MS
        )
    },
)
_EXAMPLE_WATCHDOG_PROCESS_RECORD = WatchdogProcessRecord(
    "watchdog-1-4242-9f3a1c", 7, _EXAMPLE_INCIDENT_OPENED_AT_MS - 10 * HOUR_MS, _EXAMPLE_INCIDENT_OPENED_AT_MS + 25_000
)
_EXAMPLE_ACTOR = Actor("ops for Ana", OperatorInterfaceKind.API)
_EXAMPLE_SILENCE = Silence(
    id="s-4f0c2a91be",
    matcher=SilenceMatcher(ProbeMatcher(group="Search")),
    started_at=_EXAMPLE_INCIDENT_OPENED_AT_MS,
    ends_at=_EXAMPLE_INCIDENT_OPENED_AT_MS + 2 * HOUR_MS,
    actor=_EXAMPLE_ACTOR,
    comment="upgrade",
)
_EXAMPLE_MAINTENANCE_WINDOW = MaintenanceWindow(
    id="m-4f0c2a91be",
    name="",
    matcher=ProbeMatcher(group="Core"),
    starts_at=_EXAMPLE_SILENCE.started_at,
    ends_at=_EXAMPLE_SILENCE.ends_at,
    actor=_EXAMPLE_ACTOR,
    comment="upgrade",
)
_EXAMPLE_PAUSE = Pause(_EXAMPLE_SILENCE.started_at, _EXAMPLE_SILENCE.ends_at, _EXAMPLE_ACTOR, "the server is moved")
_EXAMPLE_OPERATOR_AUDIT_LOG_ENTRY = OperatorAuditLogEntry(
    id=7,
    kind=OperatorActKind.ACKNOWLEDGE,
    occurred_at=_EXAMPLE_INCIDENT_OPENED_AT_MS + MINUTE_MS,
    actor=_EXAMPLE_ACTOR,
    incident=_EXAMPLE_INCIDENT.id,
    silence="",
    comment="restarting the database",
)
_MANAGED_PROBE_YAML = 'name: Warm the cache\nhttp: https://api.acme.example/warm\nschedule: "*/5 * * * *"'
_EXAMPLE_BACKGROUND_TASK_HEALTH_JSON: BackgroundTaskHealthJson = {
    "name": "claim",
    "ok": True,
    "last_run_at": format_iso8601(_EXAMPLE_INCIDENT_OPENED_AT_MS - 400),
    "staleness_ms": 400,
    "last_run_status": "success",
    "last_run_error": None,
}

_EXAMPLE_INCIDENT_SILENCE = replace(
    _EXAMPLE_SILENCE, matcher=SilenceMatcher.of_incident("api", ""), incident=_EXAMPLE_INCIDENT.id, comment="known"
)
_EXAMPLE_SILENCED_PROBE_STATUS = replace(_EXAMPLE_PROBE_STATUS, silences=(_EXAMPLE_INCIDENT_SILENCE,))
_EXAMPLE_SILENCED_INCIDENT_RECORD = replace(_EXAMPLE_INCIDENT_RECORD, silences=(_EXAMPLE_INCIDENT_SILENCE,))

PROBE_JSON_EXAMPLE = serialize_probe_status(_EXAMPLE_SILENCED_PROBE_STATUS)
PROBE_DETAIL_JSON_EXAMPLE = serialize_probe_detail(
    _EXAMPLE_SILENCED_PROBE_STATUS, "name: API\nhttp: https://api.acme.example/health\n"
)
INCIDENT_JSON_EXAMPLE = serialize_incident(_EXAMPLE_SILENCED_INCIDENT_RECORD)
INCIDENT_DETAIL_JSON_EXAMPLE = serialize_incident_detail(
    IncidentDetails(
        record=_EXAMPLE_SILENCED_INCIDENT_RECORD,
        context=_EXAMPLE_ALERT_MESSAGE_CONTEXT,
        deliveries=[_EXAMPLE_DELIVERY_RECORD],
        configured_destinations=["chat/slack"],
        acts=[_EXAMPLE_OPERATOR_AUDIT_LOG_ENTRY],
        silences=[_EXAMPLE_INCIDENT_SILENCE],
    )
)
RESULT_DETAIL_JSON_EXAMPLE = serialize_result_details(_EXAMPLE_RESULT_DETAILS)
DELIVERY_JSON_EXAMPLE = serialize_delivery(_EXAMPLE_DELIVERY_RECORD)
QUEUE_JSON_EXAMPLE = serialize_queue(_EXAMPLE_QUEUE_STATUS)
RECEIVER_JSON_EXAMPLE = serialize_destination_summary(
    DestinationSummary("oncall/slack", DestinationDeliverySummary(_EXAMPLE_INCIDENT_OPENED_AT_MS + 412), None),
    "#oncall",
)
RECEIVER_TEST_EXAMPLE = serialize_receiver_test(
    "oncall",
    [
        DestinationTestResult(
            "oncall/slack",
            "#oncall",
            (SentTestAlertOutcome(IncidentEvent.OPENED), SentTestAlertOutcome(IncidentEvent.RESOLVED)),
        )
    ],
)
WATCHDOG_SERVICE_JSON_EXAMPLE = serialize_watchdog_service(
    version="0.1.0",
    not_ready_reason="",
    findings=(),
    notes=(),
    config_warnings=(),
    members=LiveWatchdogProcesses((LiveProcessWithSupersededDefinitions(_EXAMPLE_WATCHDOG_PROCESS_RECORD),)),
    tasks=[_EXAMPLE_BACKGROUND_TASK_HEALTH_JSON],
)
JOB_JSON_EXAMPLE = serialize_job_summary(_EXAMPLE_JOB_SUMMARY)

INCIDENT_ACKNOWLEDGEMENT_EXAMPLE = serialize_incident_acknowledgement(
    _EXAMPLE_INCIDENT.id,
    Acknowledgement(
        _EXAMPLE_OPERATOR_AUDIT_LOG_ENTRY.occurred_at, _EXAMPLE_ACTOR, _EXAMPLE_OPERATOR_AUDIT_LOG_ENTRY.comment
    ),
)
INCIDENT_CLOSURE_EXAMPLE = serialize_incident_closure(
    _EXAMPLE_INCIDENT.id,
    Closure(_EXAMPLE_OPERATOR_AUDIT_LOG_ENTRY.occurred_at, _EXAMPLE_ACTOR, "the host was removed"),
    "the probe still fails: another incident opens after 3 more bad results in a row (within about 3 min)",
)
SILENCE_EXAMPLE = serialize_silence(_EXAMPLE_SILENCE)
STARTED_SILENCE_EXAMPLE = serialize_started_silence(_EXAMPLE_SILENCE, 2, SelectedProbeCountAndWarnings(3))
ENDED_SILENCE_EXAMPLE = serialize_silence(
    replace(_EXAMPLE_SILENCE, ended_at=_EXAMPLE_INCIDENT_OPENED_AT_MS + HOUR_MS, ended_by="Ben")
)
INCIDENT_SILENCE_EXAMPLE = serialize_silence(_EXAMPLE_INCIDENT_SILENCE)
MAINTENANCE_EXAMPLE = serialize_maintenance_window(_EXAMPLE_MAINTENANCE_WINDOW, _EXAMPLE_MAINTENANCE_WINDOW.starts_at)
STARTED_MAINTENANCE_EXAMPLE = serialize_started_maintenance(
    _EXAMPLE_MAINTENANCE_WINDOW, 4, _EXAMPLE_MAINTENANCE_WINDOW.starts_at
)
_EXAMPLE_MAINTENANCE_ENDED_AT_MS = _EXAMPLE_MAINTENANCE_WINDOW.starts_at + HOUR_MS
ENDED_MAINTENANCE_EXAMPLE = serialize_maintenance_window(
    replace(_EXAMPLE_MAINTENANCE_WINDOW, ended_at=_EXAMPLE_MAINTENANCE_ENDED_AT_MS, ended_by="Ben"),
    _EXAMPLE_MAINTENANCE_ENDED_AT_MS,
)
PROBE_PAUSE_EXAMPLE = serialize_probe_pause(_EXAMPLE_PROBE_INFO.id, _EXAMPLE_PAUSE)
RUN_REQUEST_EXAMPLE = serialize_run_request(_EXAMPLE_PROBE_INFO.id, _EXAMPLE_INCIDENT_OPENED_AT_MS + 1)
_EXAMPLE_FORGOTTEN_JOBS = ForgottenJobs("report-schedules", "Report schedules", ("nightly-report",))
FORGOTTEN_JOBS_EXAMPLE = serialize_forgotten_jobs(_EXAMPLE_FORGOTTEN_JOBS)
RECORDED_ACT_EXAMPLE = serialize_recorded_act(_EXAMPLE_OPERATOR_AUDIT_LOG_ENTRY)

RESENT_NOTIFICATIONS_EXAMPLE = serialize_resent_notifications(
    INCIDENT_ACKNOWLEDGEMENT_EXAMPLE["incident"], ["oncall/slack"]
)

RELOAD_EXAMPLE = serialize_config_reload(
    ConfigReloadOutcome(ConfigReloadResultKind.APPLIED, (), (("added", 1),), _EXAMPLE_INCIDENT_OPENED_AT_MS)
)

CONFIG_CHECK_EXAMPLE = serialize_config_check(
    ConfigCheckOutcome(None, ("watchdog.yaml:4:5: probes.0.evry: unknown field 'evry'; did you mean 'every'?",))
)

MANAGED_PROBE_EXAMPLE = serialize_managed_probe(
    ManagedProbe("warm-the-cache", "Warm the cache", 2, _MANAGED_PROBE_YAML)
)
MANAGED_PROBES_EXAMPLE = serialize_managed_probes(
    ManagedProbes("conf.d/managed.yaml", "3f6c2d0a9be14875a1c0f5de90b7a412", (ManagedProbe(**MANAGED_PROBE_EXAMPLE),))
)
MANAGED_PROBE_CHANGE_EXAMPLE: ManagedProbeChangeJson = {
    "id": "warm-the-cache",
    "is_stored": True,
    "diff": "--- managed.yaml\n+++ managed.yaml\n@@ -0,0 +1,3 @@\n"
    + "\n".join(f"+{line}" for line in _MANAGED_PROBE_YAML.split("\n")),
    "warnings": [],
    "version": "3f6c2d0a9be14875a1c0f5de90b7a412",
    "reload": RELOAD_EXAMPLE,
}
TRIED_PROBE_EXAMPLE: TriedProbeJson = {
    "probe": "warm-the-cache",
    "kind": "http",
    "outcome": "fail",
    "reason": "http.503",
    "message": "HTTP 503, expected 2xx",
    "duration_ms": 184,
    "phases_ms": {"dns": 2.1, "connect": 4.0},
    "measurements": {"status": 503},
    "listings": {},
    "findings": [],
    "evidence": {"facts": {"status": 503}, "excerpt": "no healthy upstream"},
}

CONFIG_CHANGES_EXAMPLE = serialize_config_changes(
    ConfigChanges(
        added=("checkout",),
        changed=(ProbeConfigFieldChanges("api", (ConfigFieldChange("every", "30s", "1m"),)),),
        rerouted=(RoutingChange("api", "", ("oncall/slack",), ("oncall/email", "oncall/slack")),),
    ),
    str,
)


def build_list_page_json_example(path: str, item: Any) -> Json:
    """A page of a list, with a link to the next page."""
    return {"items": [item], "next": f"{path}?limit=1&cursor=WyJjMGZmZWUiLDFd"}


TRANSITION_EXAMPLE = serialize_transition(
    RecordedTransition(
        *(
            1_042,
            TransitionKind.ACKNOWLEDGED,
            _EXAMPLE_OPERATOR_AUDIT_LOG_ENTRY.occurred_at,
            _EXAMPLE_OPERATOR_AUDIT_LOG_ENTRY.incident,
        ),
        probe_id="api",
        probe_name="API",
        actor=_EXAMPLE_OPERATOR_AUDIT_LOG_ENTRY.actor,
        comment=_EXAMPLE_OPERATOR_AUDIT_LOG_ENTRY.comment,
    )
)
TRANSITION_EVENT_EXAMPLE = {"id": str(TRANSITION_EXAMPLE["id"]), "data": json.dumps(TRANSITION_EXAMPLE)}
