"""What is wrong with Watchdog itself, as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.probes import ProbeJson, serialize_probe_status
from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.model import Incident
from watchdog.store.read.status import ProbeStatus


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class WatchdogFindingJson(TypedDict):
    """Something that is wrong with Watchdog itself."""

    reason: str
    severity: str
    since: str
    subject: NotRequired[str]
    """What it is about, such as a receiver or a process."""
    message: NotRequired[str]
    incident: NotRequired[str]
    """The id of the incident."""


class WatchdogSelfProbeJson(ProbeJson):
    """The built-in probe, with what is wrong with Watchdog itself, and what to know about the processes."""

    findings: list[WatchdogFindingJson]
    notes: list[str]


def serialize_watchdog_self_probe(
    status: ProbeStatus, findings: Iterable[Incident], notes: Iterable[str]
) -> WatchdogSelfProbeJson:
    return {
        **serialize_probe_status(status),
        "findings": [serialize_watchdog_finding(finding) for finding in findings],
        "notes": list(notes),
    }


def serialize_watchdog_finding(finding: Incident, *, show_names: bool = True) -> WatchdogFindingJson:
    """One entry of `list_service_findings`. `show_names`: with what it is about, and its message."""
    entry: WatchdogFindingJson = {
        "reason": finding.reason,
        "severity": finding.severity.value,
        "since": format_iso8601(finding.since),
    }
    if show_names:
        entry |= {"subject": finding.subject, "message": finding.message, "incident": finding.id}
    return entry
