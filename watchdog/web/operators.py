"""What operators see, behind a key: probes, incidents, jobs and dead letters, with evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import HTMLResponse

from watchdog.store import views
from watchdog.store.views import STANDSTILL, Connection, Pulse
from watchdog.web import incident, incidents, jobs, probe, probes
from watchdog.web.access import Access
from watchdog.web.errors import NotHereError
from watchdog.web.pages import NO_STORE, Pages
from watchdog.web.public import PATIENCE, Read, T
from watchdog.web.results import Query, Which
from watchdog.words import ago


@dataclass(frozen=True, slots=True)
class Desk:
    """What every operators' route works with."""

    read: Read
    now: Callable[[], int]
    access: Access
    pages: Pages
    addresses: Mapping[str, str]
    """Destination -> whom it reaches, safe to show."""

    async def admit(self, request: Request) -> None:
        """Raises DeniedError."""
        key = self.access.admit(request)
        request.state.visitor = key.name if key else ""
        request.state.may_act = key is None or key.role == "operator"

    async def ask(self, query: Callable[[Connection], T]) -> T:
        async with asyncio.timeout(PATIENCE):
            return await self.read(query)

    async def show(
        self, request: Request, template: str, here: str, pulse: Pulse, now: int, **context: Any
    ) -> HTMLResponse:
        context |= {"here": here, "nav": pulse, "stopped": stopped(pulse, now), "visitor": request.state.visitor}
        html = await asyncio.to_thread(self.pages.render, template, now, **context)
        return HTMLResponse(html, headers=NO_STORE)


def operator_router(desk: Desk) -> APIRouter:
    router = APIRouter(dependencies=[Depends(desk.admit)])

    @router.get("/probes")
    async def show_probes(
        request: Request, q: str = "", state: str = "", kind: str = "", page: int = 1
    ) -> HTMLResponse:
        now, narrowed = desk.now(), probes.Filter(q[:200], state, kind)
        shown = await desk.ask(lambda c: probes.read(c, narrowed, page, now))
        return await desk.show(request, "probes.j2", "probes", shown.pulse, now, page=shown)

    @router.get("/probes/{key}")
    async def show_probe(request: Request, key: str) -> HTMLResponse:
        now, query = desk.now(), query_of(request)
        shown = await desk.ask(lambda c: probe.read(c, key, query, now))
        if shown is None:
            raise NotHereError(f"No probe has the key {key}. It may be gone from the configuration.")
        return await desk.show(request, "probe.j2", "probes", shown.pulse, now, page=shown)

    @router.get("/incidents")
    async def show_incidents(request: Request, state: str = "") -> HTMLResponse:
        now, which = desk.now(), state if state in ("open", "resolved") else ""
        shown = await desk.ask(lambda c: incidents.read(c, which, now))
        return await desk.show(request, "incidents.j2", "incidents", shown.pulse, now, page=shown)

    @router.get("/incidents/{id}")
    async def show_incident(request: Request, id: str) -> HTMLResponse:
        now = desk.now()
        shown = await desk.ask(lambda c: incident.read(c, id, desk.addresses, now))
        if shown is None:
            raise NotHereError(f"There is no incident {id}. Old ones go when their time is over.")
        return await desk.show(request, "incident.j2", "incidents", shown.pulse, now, page=shown)

    @router.get("/jobs")
    async def show_jobs(request: Request, q: str = "", verdict: str = "", page: int = 1) -> HTMLResponse:
        now, narrowed = desk.now(), jobs.Filter(q[:200], verdict)
        shown = await desk.ask(lambda c: jobs.read(c, narrowed, page, now))
        return await desk.show(request, "jobs.j2", "jobs", shown.pulse, now, page=shown)

    @router.get("/dead-letters")
    async def show_dead_letters(request: Request) -> HTMLResponse:
        now = desk.now()
        found, pulse = await desk.ask(lambda c: (views.dead_letters(c), views.pulse(c)))
        letters = [(incident.delivery(told, desk.addresses), told, case) for told, case in found]
        return await desk.show(request, "dead_letters.j2", "dead", pulse, now, letters=letters)

    return router


def stopped(pulse: Pulse, now: int) -> str:
    """That Watchdog itself stands still, in words; empty while it does not."""
    if pulse.watermark is None:
        return "Never ticked"
    return f"Last tick {ago(pulse.watermark, now)}" if now - pulse.watermark > STANDSTILL else ""


def query_of(request: Request) -> Query:
    """Of the address: `?all`, `?failed`, `?before=slot`, `?open=slot`. What cannot be read is ignored."""
    given = request.query_params

    def slot(name: str) -> int | None:
        value = given.get(name, "")
        return int(value) if value.isascii() and value.isdigit() and len(value) <= 15 else None

    which: Which = "failed" if "failed" in given else "all" if "all" in given else "changes"
    return Query(which, slot("before"), slot("open"))
