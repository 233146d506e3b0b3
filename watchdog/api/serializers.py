"""Probes, jobs and incidents as JSON. Instants are ISO 8601 in UTC, durations are in ms."""

from __future__ import annotations

from collections.abc import Iterable

from watchdog.api.acts import serialize_acknowledgement
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.model import AlertMessageContext, Incident, Json, RemediationAttempt, ResultWithEvidence
from watchdog.store.read.jobs import JobSummary
from watchdog.store.read.status import DeliveryRecord, IncidentRecord, ProbeStatus, ResultRow


def serialize_probe_status(status: ProbeStatus) -> Json:
    probe, latest = status.probe, status.latest_result
    return {
        "probe": probe.id,
        "name": probe.name,
        "kind": probe.kind,
        "group": probe.group,
        "tags": list(probe.tags),
        "state": status.state.value,
        "incidents": [incident.id for incident in status.open_incidents],
        "latest": None if latest is None else _serialize_result(latest),
        "next_due": _format_optional_iso8601(status.next_due),
    }


def serialize_watchdog_self_probe(status: ProbeStatus, findings: Iterable[Incident], notes: Iterable[str]) -> Json:
    """The built-in probe, with what is wrong with Watchdog itself, and what to know about the processes."""
    lists = {"findings": [serialize_watchdog_finding(finding) for finding in findings], "notes": list(notes)}
    return serialize_probe_status(status) | lists


def serialize_watchdog_finding(finding: Incident, *, show_names: bool = True) -> Json:
    """One entry of `list_service_findings`. `show_names`: with what it is about, and its message."""
    entry: Json = {
        "reason": finding.reason,
        "severity": finding.severity.value,
        "since": format_iso8601(finding.since),
    }
    if not show_names:
        return entry
    return entry | {"subject": finding.subject, "message": finding.message, "incident": finding.id}


def _serialize_result(row: ResultRow) -> Json:
    """`slot_count`: how many slots a missed result stands for."""
    return {**row._asdict(), "slot": format_iso8601(row.slot), "recorded_at": format_iso8601(row.recorded_at)}


def serialize_job_summary(job: JobSummary) -> Json:
    """An empty `reason`: the job has no problem."""
    return {
        "probe": job.probe.id,
        "job": job.name,
        "reason": job.reason,
        "message": job.message,
        "schedule": job.schedule_text,
        "duration": job.duration,
        "last_start": _format_optional_iso8601(job.last_start),
        "last_end": _format_optional_iso8601(job.last_end),
        "last_ok": _format_optional_iso8601(job.last_ok),
        "next_expected_at": _format_optional_iso8601(job.next_expected_at),
        "read_at": format_iso8601(job.read_at),
    }


def serialize_incident(record: IncidentRecord) -> Json:
    incident = record.incident
    return {
        "id": incident.id,
        "probe": record.probe.id,
        "rule": incident.rule,
        "subject": incident.subject,
        "state": incident.state,
        "severity": incident.severity.value,
        "reason": incident.reason,
        "message": incident.message,
        "first_reason": incident.first_reason or incident.reason,
        "first_message": incident.opening_cause_message,
        "since": format_iso8601(incident.since),
        "opened_at": format_iso8601(incident.opened_at),
        "resolved_at": _format_optional_iso8601(incident.resolved_at),
        "resolution": incident.resolution,
        "acknowledgement": serialize_acknowledgement(incident.acknowledgement),
    }


def serialize_incident_detail(
    record: IncidentRecord, context: AlertMessageContext, deliveries: Iterable[DeliveryRecord]
) -> Json:
    """An incident with its evidence, notifications and remediations. Evidence is text from the target, untrusted."""
    return serialize_incident(record) | {
        "bad_count": context.bad_count,
        "cause_changes": [
            {**change._asdict(), "changed_at": format_iso8601(change.changed_at)} for change in context.cause_changes
        ],
        "threshold": record.threshold,
        "last_good": None if context.last_good is None else format_iso8601(context.last_good.slot),
        "first_bad": _serialize_result_with_evidence(context.first_bad),
        "latest": _serialize_result_with_evidence(context.latest),
        "notifications": [_serialize_delivery(delivery) for delivery in deliveries],
        "remediations": [_serialize_remediation_attempt(attempt) for attempt in context.remediation_attempts],
        "routing_log": list(record.routing_log),
        "runbook": record.probe.runbook,
        "target": record.probe.target,
    }


def _serialize_result_with_evidence(result: ResultWithEvidence | None) -> Json:
    if result is None:
        return None
    return {
        "slot": format_iso8601(result.slot),
        "outcome": result.outcome.value,
        "reason": result.reason,
        "message": result.message,
        "duration": result.duration,
        "evidence": {"facts": dict(result.evidence.facts), "excerpt": result.evidence.excerpt},
    }


def _serialize_remediation_attempt(attempt: RemediationAttempt) -> Json:
    instants = {
        "started_at": format_iso8601(attempt.started_at),
        "ended_at": _format_optional_iso8601(attempt.ended_at),
    }
    return {**attempt._asdict(), **instants}


def _serialize_delivery(delivery: DeliveryRecord) -> Json:
    return {
        "destination": delivery.destination,
        "event": delivery.event,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "detail": delivery.detail,
        "finished_at": _format_optional_iso8601(delivery.finished_at),
    }


def _format_optional_iso8601(at: int | None) -> str | None:
    return None if at is None else format_iso8601(at)
