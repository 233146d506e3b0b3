"""What the MCP server's tools answer, where it is more than one object of `serializers`."""

from __future__ import annotations

from collections.abc import Iterable

from watchdog.api.serializers.findings import serialize_watchdog_finding
from watchdog.api.serializers.incidents import serialize_incident
from watchdog.api.serializers.probes import serialize_probe_status
from watchdog.domain.model import Incident, Json
from watchdog.store.read.status import IncidentRecord, ProbeStatus


def serialize_probe_list(statuses: Iterable[ProbeStatus], total: int) -> Json:
    """`total`: how many probes match, also those that are left out."""
    return {"total": total, "probes": [serialize_probe_status(status) for status in statuses]}


def serialize_incident_list(records: Iterable[IncidentRecord]) -> Json:
    return {"incidents": [serialize_incident(record) for record in records]}


def serialize_watchdog_finding_list(findings: Iterable[Incident]) -> Json:
    return {"findings": [serialize_watchdog_finding(finding) for finding in findings]}


def serialize_mcp_tool_job_status(*, status: str, progress: float, result: Json, error: str) -> dict[str, Json]:
    """The content of a job's resource. `status`: running, completed or failed."""
    outcome = {"completed": {"result": result}, "failed": {"error": error}}.get(status, {})
    return {"status": status, "progress": progress, **outcome}


def serialize_mcp_tool_job_answer(job_id: str, status: dict[str, Json]) -> dict[str, Json]:
    """The answer of a tool whose work may take longer than the call. `status`: from `serialize_mcp_tool_job_status`."""
    return {"job_id": job_id, "poll_resource": f"job:{job_id}", **status}
