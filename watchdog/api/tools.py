"""What the MCP server's tools answer, where it is more than one object of `serializers`."""

from __future__ import annotations

from collections.abc import Iterable

from watchdog.api.serializers import incident_json, probe_json
from watchdog.domain.model import Json
from watchdog.store.read.status import IncidentRecord, ProbeStatus


def probe_list_json(statuses: Iterable[ProbeStatus], total: int) -> Json:
    """`total`: how many probes match, also those that are left out."""
    return {"total": total, "probes": [probe_json(status) for status in statuses]}


def incident_list_json(records: Iterable[IncidentRecord]) -> Json:
    return {"incidents": [incident_json(record) for record in records]}


def tool_job_status_json(*, status: str, progress: float, result: Json, error: str) -> dict[str, Json]:
    """The content of a job's resource. `status`: running, completed or failed."""
    outcome = {"completed": {"result": result}, "failed": {"error": error}}.get(status, {})
    return {"status": status, "progress": progress, **outcome}


def tool_job_json(job_id: str, status: dict[str, Json]) -> dict[str, Json]:
    """The answer of a tool whose work may take longer than the call. `status`: from `tool_job_status_json`."""
    return {"job_id": job_id, "poll_resource": f"job:{job_id}", **status}
