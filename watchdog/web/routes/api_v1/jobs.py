"""Scheduled jobs, heartbeats and tasks of MCP servers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.examples import JOB_EXAMPLE, build_list_example
from watchdog.api.serializers.jobs import JobJson, serialize_job_summary
from watchdog.api.serializers.lists import ListPageJson
from watchdog.domain.model import HealthState
from watchdog.store.read.jobs import JobSummary, list_jobs
from watchdog.store.read.status import Connection
from watchdog.web.routes.api_v1.cursors import CursorPosition
from watchdog.web.routes.api_v1.operations import read_operation
from watchdog.web.routes.api_v1.parameters import FilterText, PageParameters
from watchdog.web.routes.api_v1.probes import load_probe_status
from watchdog.web.routes.api_v1.responses import ApiList, ListPage, cut_list_page
from watchdog.web.routes.operators import OperatorRouteContext


class JobListParameters(PageParameters):
    """Only the jobs that match every filter."""

    probe: FilterText = ""
    """The id of a probe."""
    state: HealthState | None = None


def get_job_position(job: JobSummary) -> CursorPosition:
    return job.probe.id, job.name, job.rule


JOB_LIST: ApiList[JobSummary] = ApiList("/api/v1/jobs", (str, str, str), get_job_position, serialize_job_summary)


def add_job_routes(router: APIRouter, context: OperatorRouteContext) -> None:
    @read_operation(
        router,
        "/jobs",
        summary="List jobs, by probe and name",
        shape=ListPageJson[JobJson],
        example=build_list_example(JOB_LIST.path, JOB_EXAMPLE),
    )
    async def get_jobs(request: Request, parameters: Annotated[JobListParameters, Query()]) -> Response:
        after = JOB_LIST.decode_position(parameters)
        page = await context.run_query(lambda c: load_job_list_page(c, parameters, after))
        return await JOB_LIST.respond(request, parameters, page)


def load_job_list_page(
    connection: Connection, parameters: JobListParameters, after: CursorPosition | None
) -> ListPage[JobSummary]:
    """Raises UnanswerableRequestError for an unknown probe."""
    probe = parameters.probe and load_probe_status(connection, parameters.probe).probe
    jobs = list_jobs(connection, probe.database_id if probe else None)
    rows = [
        job
        for job in sorted(jobs, key=get_job_position)
        if parameters.state in (None, job.state) and (after is None or get_job_position(job) > after)
    ]
    return cut_list_page(rows[: parameters.limit + 1], parameters.limit)
