"""The operators' pages as JSON, for programs with a key. Its shapes are those of the command line."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse

from watchdog.store import views
from watchdog.store.jobs import jobs
from watchdog.store.shapes import incident_json, job_json, probe_json
from watchdog.web.operators import Desk
from watchdog.web.pages import NO_STORE


def api_router(desk: Desk) -> APIRouter:
    router = APIRouter(prefix="/api", dependencies=[Depends(desk.admit)])

    @router.get("/probes")
    async def list_probes() -> JSONResponse:
        found = await desk.ask(views.standings)
        return JSONResponse([probe_json(standing) for standing in found], headers=NO_STORE)

    @router.get("/incidents")
    async def list_incidents(state: str = "", limit: int = 200) -> JSONResponse:
        is_open, most = {"open": True, "resolved": False}.get(state), min(max(limit, 1), 1_000)
        found = await desk.ask(lambda c: views.cases(c, is_open=is_open, limit=most))
        return JSONResponse([incident_json(case) for case in found], headers=NO_STORE)

    @router.get("/jobs")
    async def list_jobs() -> JSONResponse:
        return JSONResponse([job_json(job) for job in await desk.ask(jobs)], headers=NO_STORE)

    return router
