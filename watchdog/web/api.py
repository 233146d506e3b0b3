"""The operators' pages as JSON, for programs with a key. Times are ms since the epoch."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse

from watchdog.model import Json
from watchdog.store import views
from watchdog.store.views import Case, Standing
from watchdog.web.operators import Desk
from watchdog.web.pages import NO_STORE


def api_router(desk: Desk) -> APIRouter:
    router = APIRouter(prefix="/api", dependencies=[Depends(desk.admit)])

    @router.get("/probes")
    async def list_probes() -> JSONResponse:
        found = await desk.ask(views.standings)
        return JSONResponse([standing_json(standing) for standing in found], headers=NO_STORE)

    @router.get("/incidents")
    async def list_incidents(state: str = "", limit: int = 200) -> JSONResponse:
        is_open, most = {"open": True, "resolved": False}.get(state), min(max(limit, 1), 1_000)
        found = await desk.ask(lambda c: views.cases(c, is_open=is_open, limit=most))
        return JSONResponse([case_json(case) for case in found], headers=NO_STORE)

    return router


def standing_json(standing: Standing) -> Json:
    info, last = standing.probe, standing.last
    return {
        "key": info.key,
        "name": info.name,
        "kind": info.kind,
        "group": info.group,
        "tags": list(info.tags),
        "state": standing.state,
        "incidents": [incident.id for incident in standing.incidents],
        "last": None if last is None else last._asdict(),
        "next_due": standing.next_due,
    }


def case_json(case: Case) -> Json:
    return {**asdict(case.incident), "probe": case.probe.key, "state": case.incident.state}
