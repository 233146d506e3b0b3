"""Watchdog itself: its faults, readiness, processes and internal tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.examples import WATCHDOG_SERVICE_JSON_EXAMPLE
from watchdog.api.package_version import read_watchdog_version
from watchdog.api.service import WatchdogServiceJson, serialize_background_task_health, serialize_watchdog_service
from watchdog.service.background_tasks import BackgroundTask
from watchdog.store.read.members import load_live_watchdog_processes
from watchdog.web.readiness import ReadinessChecker
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_read_operation
from watchdog.web.routes.api_v1.parameters import NoQueryParameters
from watchdog.web.routes.api_v1.responses import respond_with_object
from watchdog.web.routes.operators import OperatorRouteContext


def add_watchdog_service_routes(
    router: ApiV1Router,
    context: OperatorRouteContext,
    readiness_check: ReadinessChecker,
    list_background_tasks: Callable[[], Iterable[BackgroundTask]],
) -> None:
    @declare_read_operation(
        router,
        "/service",
        summary="Show the state of Watchdog itself",
        shape=WatchdogServiceJson,
        example=WATCHDOG_SERVICE_JSON_EXAMPLE,
    )
    async def get_watchdog_service_state(request: Request, _: Annotated[NoQueryParameters, Query()]) -> Response:
        now = context.clock()
        not_ready_reason, findings = await readiness_check.find_not_ready_reason_and_own_findings()
        members = await context.run_query(lambda connection: load_live_watchdog_processes(connection, now))
        body = serialize_watchdog_service(
            version=read_watchdog_version(),
            not_ready_reason=not_ready_reason,
            findings=findings,
            notes=context.list_notes(request.state.is_operator),
            config_warnings=context.config_warnings,
            members=members,
            tasks=[serialize_background_task_health(task, now) for task in list_background_tasks()],
        )
        return await respond_with_object(request, lambda: body)
