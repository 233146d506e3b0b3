"""Probes, incidents and jobs as JSON, for programs with an API key. The command line prints the same objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse

from watchdog.api.serializers import serialize_incident, serialize_job_summary, serialize_probe_status
from watchdog.domain.model import Json
from watchdog.store.read import jobs, status
from watchdog.web.routes.operators import OperatorContext
from watchdog.web.templating import NO_STORE_HEADERS

MAX_API_INCIDENTS = 1_000
ItemT = TypeVar("ItemT")


def create_api_router(context: OperatorContext) -> APIRouter:
    router = APIRouter(prefix="/api", dependencies=[Depends(context.authenticate)])

    @router.get("/probes")
    async def list_probes() -> JSONResponse:
        statuses = await context.run_query(status.list_probe_statuses)
        return await _build_json_list_response(statuses, serialize_probe_status)

    @router.get("/incidents")
    async def list_incidents(state: str = "", limit: int = 200) -> JSONResponse:
        is_open, limit = {"open": True, "resolved": False}.get(state), min(max(limit, 1), MAX_API_INCIDENTS)
        records = await context.run_query(lambda c: status.list_incidents(c, is_open=is_open, limit=limit))
        return await _build_json_list_response(records, serialize_incident)

    @router.get("/jobs")
    async def list_jobs() -> JSONResponse:
        summaries = await context.run_query(jobs.list_jobs)
        return await _build_json_list_response(summaries, serialize_job_summary)

    return router


async def _build_json_list_response(items: Sequence[ItemT], serialize: Callable[[ItemT], Json]) -> JSONResponse:
    """In a thread: thousands of jobs take a while."""
    return await asyncio.to_thread(lambda: JSONResponse([serialize(item) for item in items], headers=NO_STORE_HEADERS))
