"""What operators see, behind a key: probes, incidents, jobs and dead letters, with evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import HTMLResponse

from watchdog.domain.formatting import format_time_ago
from watchdog.store.read import status
from watchdog.store.read.status import MAX_WATERMARK_LAG_MS, Connection, ServiceStatus
from watchdog.web.auth.access import Authenticator
from watchdog.web.errors import PageNotFoundError
from watchdog.web.pages import incident, incidents, jobs, probe, probes
from watchdog.web.pages.results import ResultFilter, ResultsQuery
from watchdog.web.routes.public import DATABASE_TIMEOUT_S, QueryResultT, ReadQueryRunner
from watchdog.web.templating import NO_STORE_HEADERS, TemplateRenderer


@dataclass(frozen=True, slots=True)
class OperatorContext:
    """What every operators' route works with."""

    run_read_query: ReadQueryRunner
    clock: Callable[[], int]
    authenticator: Authenticator
    renderer: TemplateRenderer
    destination_addresses: Mapping[str, str]
    """Destination -> whom it reaches, safe to show."""

    async def authenticate(self, request: Request) -> None:
        """Raises DeniedError."""
        key = self.authenticator.authenticate(request)
        request.state.visitor = key.name if key else ""
        request.state.may_act = key is None or key.role == "operator"

    async def run_query(self, query: Callable[[Connection], QueryResultT]) -> QueryResultT:
        async with asyncio.timeout(DATABASE_TIMEOUT_S):
            return await self.run_read_query(query)

    async def render_page(
        self,
        request: Request,
        template: str,
        active_section: str,
        service_status: ServiceStatus,
        now: int,
        **context: Any,
    ) -> HTMLResponse:
        context |= {
            "here": active_section,
            "nav": service_status,
            "stopped": describe_standstill(service_status, now),
            "visitor": request.state.visitor,
        }
        html = await asyncio.to_thread(self.renderer.render, template, now, **context)
        return HTMLResponse(html, headers=NO_STORE_HEADERS)


def create_operator_router(context: OperatorContext) -> APIRouter:
    router = APIRouter(dependencies=[Depends(context.authenticate)])

    @router.get("/probes")
    async def show_probes(
        request: Request, q: str = "", state: str = "", kind: str = "", page: int = 1
    ) -> HTMLResponse:
        now, narrowed = context.clock(), probes.ProbeFilter(q[:200], state, kind)
        shown = await context.run_query(lambda c: probes.load_probes_page(c, narrowed, page, now))
        return await context.render_page(request, "probes.j2", "probes", shown.service_status, now, page=shown)

    @router.get("/probes/{key}")
    async def show_probe(request: Request, key: str) -> HTMLResponse:
        now, query = context.clock(), parse_results_query(request)
        shown = await context.run_query(lambda c: probe.load_probe_page(c, key, query, now))
        if shown is None:
            raise PageNotFoundError(f"No probe has the key {key}. It may be gone from the configuration.")
        return await context.render_page(request, "probe.j2", "probes", shown.service_status, now, page=shown)

    @router.get("/incidents")
    async def show_incidents(request: Request, state: str = "") -> HTMLResponse:
        now, which = context.clock(), state if state in ("open", "resolved") else ""
        shown = await context.run_query(lambda c: incidents.load_incidents_page(c, which, now))
        return await context.render_page(request, "incidents.j2", "incidents", shown.service_status, now, page=shown)

    @router.get("/incidents/{id}")
    async def show_incident(request: Request, id: str) -> HTMLResponse:
        now = context.clock()
        shown = await context.run_query(
            lambda c: incident.load_incident_page(c, id, context.destination_addresses, now)
        )
        if shown is None:
            raise PageNotFoundError(f"There is no incident {id}. Old ones go when their time is over.")
        return await context.render_page(request, "incident.j2", "incidents", shown.service_status, now, page=shown)

    @router.get("/jobs")
    async def show_jobs(request: Request, q: str = "", verdict: str = "", page: int = 1) -> HTMLResponse:
        now, narrowed = context.clock(), jobs.JobFilter(q[:200], verdict)
        shown = await context.run_query(lambda c: jobs.load_jobs_page(c, narrowed, page, now))
        return await context.render_page(request, "jobs.j2", "jobs", shown.service_status, now, page=shown)

    @router.get("/dead-letters")
    async def show_dead_letters(request: Request) -> HTMLResponse:
        now = context.clock()
        found, pulse = await context.run_query(lambda c: (status.list_dead_letters(c), status.load_service_status(c)))
        letters = [
            (incident.build_delivery_row(told, context.destination_addresses), told, case) for told, case in found
        ]
        return await context.render_page(request, "dead_letters.j2", "dead", pulse, now, letters=letters)

    return router


def describe_standstill(service_status: ServiceStatus, now: int) -> str:
    """That Watchdog itself stands still, in words; empty while it does not."""
    if service_status.watermark is None:
        return "Never ticked"
    return (
        f"Last tick {format_time_ago(service_status.watermark, now)}"
        if now - service_status.watermark > MAX_WATERMARK_LAG_MS
        else ""
    )


def parse_results_query(request: Request) -> ResultsQuery:
    """Of the address: `?all`, `?failed`, `?before=slot`, `?open=slot`. What cannot be read is ignored."""
    given = request.query_params

    def slot(name: str) -> int | None:
        value = given.get(name, "")
        return int(value) if value.isascii() and value.isdigit() and len(value) <= 15 else None

    which: ResultFilter = "failed" if "failed" in given else "all" if "all" in given else "changes"
    return ResultsQuery(which, slot("before"), slot("open"))
