"""What views.py finds, as JSON: one shape for the command line and for programs. Times are ISO 8601 in UTC."""

from __future__ import annotations

from collections.abc import Iterable

from watchdog.domain.formatting import format_iso8601
from watchdog.domain.model import AlertContext, Json, RemediationAttempt, ResultWithEvidence
from watchdog.store.read.jobs import JobSummary
from watchdog.store.read.status import DeliveryStatus, IncidentRecord, ProbeStatus, ResultRow


def probe_json(status: ProbeStatus) -> Json:
    info, last, due = status.probe, status.latest_result, status.next_due
    return {
        "probe": info.id,
        "name": info.name,
        "kind": info.kind,
        "group": info.group,
        "tags": list(info.tags),
        "state": status.state.value,
        "incidents": [incident.id for incident in status.open_incidents],
        "latest": None if last is None else _result_row_json(last),
        "next_due": None if due is None else format_iso8601(due),
    }


def _result_row_json(row: ResultRow) -> Json:
    """A `duration` is in ms; `slot_count` is how many slots a missed one stands for."""
    return {**row._asdict(), "slot": format_iso8601(row.slot), "recorded_at": format_iso8601(row.recorded_at)}


def job_json(job: JobSummary) -> Json:
    """A `duration` is in ms; an empty `reason` says that nothing is wrong."""
    times = {
        "last_start": job.last_start,
        "last_end": job.last_end,
        "last_ok": job.last_ok,
        "next_expected_at": job.next_expected_at,
    }
    return {
        "probe": job.probe.id,
        "job": job.name,
        "reason": job.reason,
        "message": job.message,
        "schedule": job.schedule_text,
        "duration": job.duration,
        **{name: None if at is None else format_iso8601(at) for name, at in times.items()},
        "read_at": None if job.read_at is None else format_iso8601(job.read_at),
    }


def incident_json(record: IncidentRecord) -> Json:
    incident, resolved_at = record.incident, record.incident.resolved_at
    return {
        "id": incident.id,
        "probe": record.probe.id,
        "rule": incident.rule,
        "subject": incident.subject,
        "state": incident.state,
        "severity": incident.severity.value,
        "reason": incident.reason,
        "message": incident.message,
        "since": format_iso8601(incident.since),
        "opened_at": format_iso8601(incident.opened_at),
        "resolved_at": None if resolved_at is None else format_iso8601(resolved_at),
        "resolution": incident.resolution,
    }


def incident_detail_json(record: IncidentRecord, context: AlertContext, deliveries: Iterable[DeliveryStatus]) -> Json:
    """An incident with what a person needs to believe it. Texts of evidence are the target's own, untrusted."""
    good = context.last_good
    return incident_json(record) | {
        "bad_count": context.bad_count,
        "threshold": record.threshold,
        "last_good": None if good is None else format_iso8601(good.slot),
        "first_bad": _result_with_evidence_json(context.first_bad),
        "latest": _result_with_evidence_json(context.latest),
        "notifications": [_delivery_status_json(letter) for letter in deliveries],
        "remediations": [_remediation_attempt_json(one) for one in context.remediation_attempts],
        "routing_log": list(record.routing_log),
        "runbook": record.probe.runbook,
        "target": record.probe.target,
    }


def _result_with_evidence_json(result: ResultWithEvidence | None) -> Json:
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


def _remediation_attempt_json(attempt: RemediationAttempt) -> Json:
    ended_at = None if attempt.ended_at is None else format_iso8601(attempt.ended_at)
    return {**attempt._asdict(), "started_at": format_iso8601(attempt.started_at), "ended_at": ended_at}


def _delivery_status_json(delivery: DeliveryStatus) -> Json:
    return {
        "destination": delivery.destination,
        "event": delivery.event,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "detail": delivery.detail,
        "finished_at": None if delivery.finished_at is None else format_iso8601(delivery.finished_at),
    }
