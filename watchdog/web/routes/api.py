"""Probes, incidents and jobs as JSON, for programs with an API key. The command line prints the same objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from watchdog.api.serializers import serialize_incident, serialize_job_summary, serialize_probe_status
from watchdog.domain.model import Json
from watchdog.store.read import jobs, status
from watchdog.web.compression import compress_response_body_if_accepted
from watchdog.web.routes.operators import OperatorRouteContext
from watchdog.web.templating import NO_STORE_HEADERS

MAX_API_INCIDENTS = 1_000
ItemT = TypeVar("ItemT")


def create_api_router(context: OperatorRouteContext) -> APIRouter:
    router = APIRouter(prefix="/api", dependencies=[Depends(context.authenticate)])

    @router.get("/probes")
    async def list_probes(request: Request) -> Response:
        statuses = await context.run_query(status.list_probe_statuses)
        return await _build_json_list_response(request, statuses, serialize_probe_status)

    @router.get("/incidents")
    async def list_incidents(request: Request, state: str = "", limit: int = 200) -> Response:
        is_open, limit = {"open": True, "resolved": False}.get(state), min(max(limit, 1), MAX_API_INCIDENTS)
        records = await context.run_query(lambda c: status.list_incidents(c, is_open=is_open, limit=limit))
        return await _build_json_list_response(request, records, serialize_incident)

    @router.get("/jobs")
    async def list_jobs(request: Request) -> Response:
        summaries = await context.run_query(jobs.list_jobs)
        return await _build_json_list_response(request, summaries, serialize_job_summary)

    return router


async def _build_json_list_response(
    request: Request, items: Sequence[ItemT], serialize: Callable[[ItemT], Json]
) -> Response:
    """In a thread: thousands of jobs take a while."""

    def build() -> Response:
        content, encoding_headers = compress_response_body_if_accepted(
            request, bytes(JSONResponse([serialize(item) for item in items]).body)
        )
        return Response(content, media_type="application/json", headers=NO_STORE_HEADERS | encoding_headers)

    return await asyncio.to_thread(build)
