"""Scheduled jobs, heartbeats and tasks of MCP servers as JSON."""

from __future__ import annotations

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.instants import format_optional_iso8601
from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG
from watchdog.domain.formatting import format_iso8601
from watchdog.store.read.jobs import JobSummary


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class JobJson(TypedDict):
    """A job as its source last reported it."""

    probe: str
    """The id of the probe that reads its source."""
    job: str
    state: str
    """up, degraded, down, or unknown: it waits for its first run."""
    reason: str
    """The code of its problem; empty if it has none."""
    message: str
    """The problem as a sentence."""
    schedule: str
    """Its schedule in words; empty if none is known."""
    duration_ms: int | None
    """Of its newest finished run."""
    last_start: str | None
    last_end: str | None
    last_ok: str | None
    """When its newest successful run ended."""
    next_expected_at: str | None
    """When the next run is due."""
    read_at: str
    """When the source was last read with this job."""


def serialize_job_summary(job: JobSummary) -> JobJson:
    return {
        "probe": job.probe.id,
        "job": job.name,
        "state": job.state.value,
        "reason": job.reason,
        "message": job.message,
        "schedule": job.schedule_text,
        "duration_ms": job.duration,
        "last_start": format_optional_iso8601(job.last_start),
        "last_end": format_optional_iso8601(job.last_end),
        "last_ok": format_optional_iso8601(job.last_ok),
        "next_expected_at": format_optional_iso8601(job.next_expected_at),
        "read_at": format_iso8601(job.read_at),
    }
