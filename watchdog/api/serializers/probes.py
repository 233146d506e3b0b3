"""Probes as JSON."""

from __future__ import annotations

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.acts import PauseJson, SilenceJson, serialize_pause, serialize_silence
from watchdog.api.serializers.instants import format_optional_iso8601
from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG, ResultJson, serialize_result
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.model import PendingFinding
from watchdog.store.read.status import ProbeStatus


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class PendingFindingJson(TypedDict):
    """A finding that is bad, but not often enough in a row to open an incident."""

    rule: str
    subject: str
    """Empty: the probe as a whole."""
    reason: str
    bad_count: int
    """Bad results in a row."""
    failure_threshold: int
    """With this many, an incident opens."""
    since: str
    """The first of them."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ProbeJson(TypedDict):
    """A probe, and its present state."""

    probe: str
    """The id."""
    name: str
    kind: str
    """The method, such as http or heartbeat."""
    group: str
    """Empty: none."""
    tags: list[str]
    state: str
    """up, degraded, unknown, down or paused."""
    incidents: list[str]
    """The ids of the open incidents; those that decide the state come first."""
    pending_findings: list[PendingFindingJson]
    """What may open an incident soon, the highest count first."""
    latest: ResultJson | None
    """The newest result, of any outcome."""
    next_due: str | None
    """The slot of the next run; null while it is paused."""
    pause: PauseJson | None
    """null: it runs."""
    maintenance_until: str | None
    """Until when it is in maintenance: nothing opens. null: it is not in maintenance."""
    silences: list[SilenceJson]
    """Those in effect that hold back notifications about it, or about some of its subjects. Those that end first come
    first."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ProbeDetailJson(ProbeJson):
    """A probe with its configuration."""

    severity: str
    """Of its incidents: info, warning or critical."""
    target: str
    """A URL without credentials and query, or the first word of a command."""
    schedule: str
    """The schedule in words."""
    runbook: str
    """Empty: none."""
    created_at: str
    """When Watchdog first ran with this probe."""
    configuration: str
    """The configuration as it was loaded, in YAML, with the names of variables in place of their values."""


def serialize_probe_status(status: ProbeStatus) -> ProbeJson:
    probe, latest = status.probe, status.latest_result
    return {
        "probe": probe.id,
        "name": probe.name,
        "kind": probe.kind,
        "group": probe.group,
        "tags": list(probe.tags),
        "state": status.state.value,
        "incidents": [incident.id for incident in status.open_incidents],
        "pending_findings": list(map(_serialize_pending_finding, status.pending_findings)),
        "latest": None if latest is None else serialize_result(latest),
        "next_due": format_optional_iso8601(status.next_due),
        "pause": serialize_pause(status.pause),
        "maintenance_until": format_optional_iso8601(status.maintenance_ends_at),
        "silences": list(map(serialize_silence, status.silences)),
    }


def _serialize_pending_finding(finding: PendingFinding) -> PendingFindingJson:
    return {
        "rule": finding.rule,
        "subject": finding.subject,
        "reason": finding.reason,
        "bad_count": finding.bad_count,
        "failure_threshold": finding.failure_threshold,
        "since": format_iso8601(finding.since),
    }


def serialize_probe_detail(status: ProbeStatus, config_yaml_text: str) -> ProbeDetailJson:
    """`config_yaml_text`: the configuration as written, masked."""
    probe = status.probe
    return {
        **serialize_probe_status(status),
        "severity": probe.severity.value,
        "target": probe.target,
        "schedule": probe.schedule_text,
        "runbook": probe.runbook,
        "created_at": format_iso8601(status.created_at),
        "configuration": config_yaml_text,
    }
