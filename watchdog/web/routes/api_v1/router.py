"""All operations of the API. A new resource is a module with a function that adds its routes here."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fastapi import Depends
from starlette.requests import Request

from watchdog.service.background_tasks import BackgroundTask
from watchdog.service.config_check import RunningConfigActions
from watchdog.web.auth.acts import SAFE_HTTP_METHODS, require_csrf_safe_act
from watchdog.web.errors import HttpErrorResponseError
from watchdog.web.readiness import ReadinessChecker
from watchdog.web.routes.api_v1.acts import add_act_routes
from watchdog.web.routes.api_v1.config import add_config_routes
from watchdog.web.routes.api_v1.contracts import add_contract_routes
from watchdog.web.routes.api_v1.deliveries import add_delivery_routes
from watchdog.web.routes.api_v1.incidents import add_incident_routes
from watchdog.web.routes.api_v1.jobs import add_job_routes
from watchdog.web.routes.api_v1.maintenance import add_maintenance_routes
from watchdog.web.routes.api_v1.managed_probes import add_managed_probe_routes
from watchdog.web.routes.api_v1.openapi import add_openapi_route
from watchdog.web.routes.api_v1.operations import ApiV1Router
from watchdog.web.routes.api_v1.pauses import add_pause_routes
from watchdog.web.routes.api_v1.probes import add_probe_routes
from watchdog.web.routes.api_v1.queues import add_queue_routes
from watchdog.web.routes.api_v1.receivers import add_receiver_list_and_test_routes
from watchdog.web.routes.api_v1.requested_runs import add_requested_run_routes
from watchdog.web.routes.api_v1.results import add_result_routes
from watchdog.web.routes.api_v1.service import add_watchdog_service_routes
from watchdog.web.routes.api_v1.silences import add_silence_routes
from watchdog.web.routes.api_v1.transitions import add_transition_routes
from watchdog.web.routes.operators import OperatorRouteContext

JSON_MEDIA_TYPE = "application/json"


def create_api_v1_router(
    context: OperatorRouteContext,
    readiness_check: ReadinessChecker,
    list_background_tasks: Callable[[], Iterable[BackgroundTask]],
    config_actions: RunningConfigActions | None,
) -> ApiV1Router:
    """Every route requires a key, and every act a body in JSON that no other site has sent."""

    async def check_csrf_safety_of_act(request: Request) -> None:
        require_csrf_safe_act(request, context.authenticator)

    checks = [
        Depends(context.authenticate),
        Depends(check_csrf_safety_of_act),
        Depends(require_json_media_type_if_body_present),
    ]
    router = ApiV1Router(prefix="/api/v1", dependencies=checks)
    for add_routes in (
        *(add_probe_routes, add_result_routes, add_incident_routes, add_delivery_routes),
        *(add_job_routes, add_queue_routes, add_receiver_list_and_test_routes, add_act_routes, add_silence_routes),
        add_contract_routes,
        *(add_pause_routes, add_requested_run_routes, add_maintenance_routes, add_transition_routes),
    ):
        add_routes(router, context)
    add_watchdog_service_routes(router, context, readiness_check, list_background_tasks)
    add_config_routes(router, context, config_actions)
    add_managed_probe_routes(router, context, config_actions)
    add_openapi_route(router)
    return router


async def require_json_media_type_if_body_present(request: Request) -> None:
    """Raises HttpErrorResponseError for an act with a body of another type."""
    if request.method in SAFE_HTTP_METHODS:
        return
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if has_body and media_type != JSON_MEDIA_TYPE:
        raise HttpErrorResponseError(415, f"The body is not JSON. Send it as `Content-Type: {JSON_MEDIA_TYPE}`.")
