"""The page about Watchdog itself, and the act on it: a reload of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.package_version import read_watchdog_version
from watchdog.service.background_tasks import BackgroundTask
from watchdog.service.config_acts import reload_and_record
from watchdog.service.process_metrics import WatchdogActivityMetrics
from watchdog.store.read.query import STORE_READ_QUERY_ERRORS
from watchdog.web.errors import HttpErrorResponseError
from watchdog.web.pages.service import (
    StoredServiceFacts,
    WatchdogServicePage,
    build_task_rows,
    load_stored_service_facts,
)
from watchdog.web.readiness import ReadinessChecker
from watchdog.web.routes.act_forms import read_act_form, redirect_to_page
from watchdog.web.routes.operators import OperatorRouteContext, parse_number_parameter_or_none

RELOAD_UNAVAILABLE_TEXT = "This process does not reload its configuration. Restart it."


def create_service_page_router(
    context: OperatorRouteContext,
    readiness_check: ReadinessChecker,
    list_background_tasks: Callable[[], Iterable[BackgroundTask]],
    collect_process_metrics: Callable[[], WatchdogActivityMetrics],
) -> APIRouter:
    router = APIRouter(dependencies=[Depends(context.authenticate)])

    async def load_stored_facts_if_readable(request: Request, member_id: str, now: int) -> StoredServiceFacts | None:
        before_id, show_names = parse_number_parameter_or_none(request, "before"), request.state.is_operator
        try:
            return await context.run_query(
                lambda c: load_stored_service_facts(c, member_id, now, before_id, show_names=show_names)
            )
        except STORE_READ_QUERY_ERRORS:
            return None

    @router.get("/service")
    async def show_service(request: Request) -> Response:
        now, process = context.clock(), collect_process_metrics()
        not_ready_reason, _ = await readiness_check.find_not_ready_reason_and_own_findings()
        page = WatchdogServicePage(
            version=read_watchdog_version(),
            started_at=process.started_at,
            not_ready_reason=not_ready_reason,
            tasks=build_task_rows(list_background_tasks(), now),
            last_reload=process.reload_counts.last_reload,
            can_reload=context.config_actions is not None,
            stored=await load_stored_facts_if_readable(request, process.member_id, now),
            read_at=now,
        )
        return await context.render_page(request, "service.j2", "service", page, now)

    @router.post("/service/reload")
    async def reload(request: Request) -> Response:
        _, actor = await read_act_form(request, context)
        if context.config_actions is None:
            raise HttpErrorResponseError(409, RELOAD_UNAVAILABLE_TEXT)
        await reload_and_record(context.config_actions.reload, context.run_act, actor, "")
        return redirect_to_page("/service#configuration")

    return router
