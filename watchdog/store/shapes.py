"""What views.py finds, as JSON: one shape for the command line and for programs. Times are ISO 8601 in UTC."""

from __future__ import annotations

from collections.abc import Iterable

from watchdog.model import Json, Sample, Story, Tried
from watchdog.store.jobs import Job
from watchdog.store.views import Case, Seen, Standing, Told
from watchdog.words import iso


def probe_json(standing: Standing) -> Json:
    info, last, due = standing.probe, standing.last, standing.next_due
    return {
        "probe": info.key,
        "name": info.name,
        "kind": info.kind,
        "group": info.group,
        "tags": list(info.tags),
        "state": standing.state.value,
        "incidents": [incident.id for incident in standing.incidents],
        "last": None if last is None else _seen_json(last),
        "next_due": None if due is None else iso(due),
    }


def _seen_json(seen: Seen) -> Json:
    """A `duration` is in ms; `n` is how many slots a missed one stands for."""
    return {**seen._asdict(), "slot": iso(seen.slot), "recorded_at": iso(seen.recorded_at)}


def job_json(job: Job) -> Json:
    """A `duration` is in ms; an empty `reason` says that nothing is wrong."""
    times = {"last_start": job.last_start, "last_end": job.last_end, "last_ok": job.last_ok, "expected": job.expected}
    return {
        "probe": job.probe.key,
        "job": job.name,
        "reason": job.reason,
        "message": job.message,
        "schedule": job.plan,
        "duration": job.duration,
        **{name: None if at is None else iso(at) for name, at in times.items()},
        "read_at": None if job.at is None else iso(job.at),
    }


def incident_json(case: Case) -> Json:
    incident, resolved_at = case.incident, case.incident.resolved_at
    return {
        "id": incident.id,
        "probe": case.probe.key,
        "rule": incident.rule,
        "subject": incident.subject,
        "state": incident.state,
        "severity": incident.severity.value,
        "reason": incident.reason,
        "message": incident.message,
        "since": iso(incident.since),
        "opened_at": iso(incident.opened_at),
        "resolved_at": None if resolved_at is None else iso(resolved_at),
        "resolution": incident.resolution,
    }


def detailed_json(case: Case, told_of: Story, told: Iterable[Told]) -> Json:
    """An incident with what a person needs to believe it. Texts of evidence are the target's own, untrusted."""
    good = told_of.last_good
    return incident_json(case) | {
        "streak": told_of.streak,
        "needed": case.needed,
        "last_good": None if good is None else iso(good.slot),
        "first_bad": _sample_json(told_of.first_bad),
        "latest": _sample_json(told_of.latest),
        "notifications": [_told_json(letter) for letter in told],
        "remedies": [_tried_json(one) for one in told_of.tried],
        "route": list(case.route),
        "runbook": case.probe.runbook,
        "target": case.probe.target,
    }


def _sample_json(sample: Sample | None) -> Json:
    if sample is None:
        return None
    return {
        "slot": iso(sample.slot),
        "outcome": sample.outcome.value,
        "reason": sample.reason,
        "message": sample.message,
        "duration": sample.duration,
        "evidence": {"facts": dict(sample.evidence.facts), "excerpt": sample.evidence.excerpt},
    }


def _tried_json(tried: Tried) -> Json:
    ended_at = None if tried.ended_at is None else iso(tried.ended_at)
    return {**tried._asdict(), "at": iso(tried.at), "ended_at": ended_at}


def _told_json(told: Told) -> Json:
    return {
        "destination": told.destination,
        "event": told.event,
        "state": told.state,
        "tries": told.attempts,
        "detail": told.detail,
        "done_at": None if told.done_at is None else iso(told.done_at),
    }
