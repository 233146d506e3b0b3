"""Watchdog itself: its faults, readiness, processes and internal tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.examples import SERVICE_EXAMPLE
from watchdog.api.service import ServiceJson, serialize_background_task_health, serialize_service
from watchdog.domain.rules import service
from watchdog.service.background_tasks import BackgroundTask
from watchdog.store.read.destinations import load_failing_destinations
from watchdog.store.read.members import load_watchdog_process_status
from watchdog.store.read.status import Connection, list_service_findings
from watchdog.web.routes.api_v1.openapi import read_package_version
from watchdog.web.routes.api_v1.operations import read_operation
from watchdog.web.routes.api_v1.parameters import NoParameters
from watchdog.web.routes.api_v1.responses import respond_with_object
from watchdog.web.routes.operators import OperatorRouteContext


def add_service_routes(
    router: APIRouter,
    context: OperatorRouteContext,
    not_ready_reason: Callable[[], str],
    list_background_tasks: Callable[[], Iterable[BackgroundTask]],
) -> None:
    @read_operation(
        router, "/service", summary="Show the state of Watchdog itself", shape=ServiceJson, example=SERVICE_EXAMPLE
    )
    async def get_service(request: Request, _: Annotated[NoParameters, Query()]) -> Response:
        now, reason = context.clock(), not_ready_reason()

        def load(connection: Connection) -> ServiceJson:
            failing = load_failing_destinations(connection)
            all_fail = service.have_all_destinations_failed_too_long(failing, context.destination_addresses, now)
            return serialize_service(
                version=read_package_version(),
                not_ready_reason=reason or ("no receiver confirms notifications" if all_fail else ""),
                findings=list_service_findings(connection),
                notes=context.list_notes(request.state.is_operator),
                config_warnings=context.config_warnings,
                members=load_watchdog_process_status(connection, now),
                tasks=[serialize_background_task_health(task, now) for task in list_background_tasks()],
            )

        body = await context.run_query(load)
        return await respond_with_object(request, lambda: body)
