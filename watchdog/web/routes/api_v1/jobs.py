"""Scheduled jobs, heartbeats and tasks of MCP servers."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.examples import FORGOTTEN_JOBS_EXAMPLE, JOB_JSON_EXAMPLE, build_list_page_json_example
from watchdog.api.serializers.acts import ForgottenJobsJson, serialize_forgotten_jobs
from watchdog.api.serializers.jobs import JobJson, serialize_job_summary
from watchdog.api.serializers.lists import ListPageJson
from watchdog.domain.acts import OperatorInterfaceKind
from watchdog.domain.model import HealthState
from watchdog.service.acts import forget_missing_jobs
from watchdog.store.read.jobs import JOB_OR_TASK_LISTING_PROBE_KINDS, JobSummary, list_jobs
from watchdog.store.read.status import Connection, list_probe_infos
from watchdog.web.auth.acts import get_actor
from watchdog.web.routes.api_v1.cursors import CursorPosition
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_act_operation, declare_read_operation
from watchdog.web.routes.api_v1.parameters import ActBody, FilterText, ListPageParameters, NoQueryParameters
from watchdog.web.routes.api_v1.probes import ProbeId, load_probe_status
from watchdog.web.routes.api_v1.responses import CursorPaginatedListEndpoint, ListPage, cut_list_page, split_into_chunks
from watchdog.web.routes.operators import OperatorRouteContext

MAX_JOB_NAME_CHARS = 1_000


class JobListParameters(ListPageParameters):
    """Only the jobs that match every filter."""

    probe: FilterText = ""
    """The id of a probe."""
    state: HealthState | None = None


class ForgetJobsBody(ActBody):
    """Which missing jobs were removed on purpose."""

    job: Annotated[str, Field(max_length=MAX_JOB_NAME_CHARS)] = ""
    """The name of a job; empty: every missing job of the probe."""


FORGET_EVERY_MISSING_JOB_BODY = ForgetJobsBody()


def get_job_list_position(job: JobSummary) -> CursorPosition:
    return job.probe.id, job.name, job.rule


JOB_LIST_ENDPOINT: CursorPaginatedListEndpoint[JobSummary] = CursorPaginatedListEndpoint(
    "/api/v1/jobs", (str, str, str), get_job_list_position, serialize_job_summary
)


def add_job_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_read_operation(
        router,
        "/jobs",
        summary="List jobs, by probe and name",
        shape=ListPageJson[JobJson],
        example=build_list_page_json_example(JOB_LIST_ENDPOINT.path, JOB_JSON_EXAMPLE),
    )
    async def get_jobs(request: Request, parameters: Annotated[JobListParameters, Query()]) -> Response:
        after = JOB_LIST_ENDPOINT.decode_cursor_position(parameters)
        page = await context.run_query(lambda c: load_job_list_page(c, parameters, after))
        return await JOB_LIST_ENDPOINT.respond_with_loaded_page(request, parameters, page)

    add_forget_jobs_route(router, context)


def add_forget_jobs_route(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_act_operation(
        router,
        "/probes/{probe_id}/forget-jobs",
        summary="Mark missing jobs as removed on purpose, with effect from the next run of the probe",
        shape=ForgottenJobsJson,
        example=FORGOTTEN_JOBS_EXAMPLE,
    )
    async def forget_jobs(
        request: Request,
        probe_id: ProbeId,
        _: Annotated[NoQueryParameters, Query()],
        body: Annotated[ForgetJobsBody, Body()] = FORGET_EVERY_MISSING_JOB_BODY,
    ) -> ForgottenJobsJson:
        actor = get_actor(request, OperatorInterfaceKind.API, body.on_behalf_of)
        await context.run_query(lambda c: load_probe_status(c, probe_id))
        forgotten = await context.run_act(
            lambda database, now: forget_missing_jobs(database, probe_id, body.job, actor, body.comment, now=now)
        )
        return serialize_forgotten_jobs(forgotten)


def load_job_list_page(
    connection: Connection, parameters: JobListParameters, after: CursorPosition | None
) -> ListPage[JobSummary]:
    """Loads the jobs of no more sources than it has to. Raises HttpErrorResponseError for an unknown probe."""
    if parameters.probe:
        sources = [load_probe_status(connection, parameters.probe).probe]
    else:
        infos = [probe for probe in list_probe_infos(connection) if probe.kind in JOB_OR_TASK_LISTING_PROBE_KINDS]
        sources = sorted((probe for probe in infos if after is None or probe.id >= str(after[0])), key=lambda p: p.id)
    rows: list[JobSummary] = []
    for chunk in split_into_chunks([probe.database_id for probe in sources], parameters.limit + 1):
        jobs = sorted(list_jobs(connection, chunk), key=get_job_list_position)
        rows += [
            job
            for job in jobs
            if parameters.state in (None, job.state) and (after is None or get_job_list_position(job) > after)
        ]
        if len(rows) > parameters.limit:
            break
    return cut_list_page(rows, parameters.limit)
