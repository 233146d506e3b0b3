"""The web application: public pages, operator pages, the JSON API, and the MCP server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from fastapi import APIRouter, FastAPI
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watchdog.service.acts import ActRunner
from watchdog.service.background_tasks import BackgroundTask
from watchdog.service.check_in_addresses import CheckInAddress
from watchdog.service.config_check import RunningConfigActions
from watchdog.service.process_metrics import WatchdogActivityMetrics
from watchdog.service.receiver_tests import ReceiverTester
from watchdog.service.transition_feed import TransitionFeed
from watchdog.store.read.query import StoreReadRunner
from watchdog.web.auth.access import Authenticator
from watchdog.web.auth.session import ApiKey
from watchdog.web.pages.status_snapshot import StatusPageConfig
from watchdog.web.readiness import ReadinessChecker
from watchdog.web.routes.api_v1.config import CONFIG_ROUTES_PATH, MAX_POSTED_CONFIG_BODY_BYTES
from watchdog.web.routes.api_v1.router import create_api_v1_router
from watchdog.web.routes.errors import install_error_handlers
from watchdog.web.routes.event_streams import EventStreams
from watchdog.web.routes.mcp import McpAsgiApp, create_mcp_router
from watchdog.web.routes.metrics import create_metrics_router
from watchdog.web.routes.operators import OperatorRouteContext, create_operator_router
from watchdog.web.routes.page_acts import create_page_act_router
from watchdog.web.routes.probe_forms import create_probe_form_router
from watchdog.web.routes.public import StatusPageCache, create_public_router
from watchdog.web.routes.service import create_service_page_router
from watchdog.web.routes.sign_in import create_sign_in_router
from watchdog.web.routes.slack import (
    MAX_SLACK_REQUEST_BODY_BYTES,
    SLACK_INTERACTIVITY_PATH,
    SlackInteractivityRouteContext,
    create_slack_router,
)
from watchdog.web.templating import SECURITY_HEADERS, PageRenderer

MAX_REQUEST_BODY_BYTES = 131_072
"""Of every route but check-ins and the following. The sign-in form and the MCP server allow less."""
MAX_REQUEST_BODY_BYTES_BY_PATH_PREFIX = {
    CONFIG_ROUTES_PATH: MAX_POSTED_CONFIG_BODY_BYTES,
    SLACK_INTERACTIVITY_PATH: MAX_SLACK_REQUEST_BODY_BYTES,
}


def create_web_app(
    *,
    run_read_query: StoreReadRunner,
    run_act: ActRunner,
    get_site_notice: Callable[[], str] = str,
    config_actions: RunningConfigActions | None = None,
    clock: Callable[[], int],
    not_ready_reason: Callable[[], str],
    describe_probing_without_store: Callable[[], str] = lambda: "",
    list_notes: Callable[[bool], Sequence[str]] = lambda _: (),
    list_background_tasks: Callable[[], Iterable[BackgroundTask]] = tuple,
    status_page: StatusPageConfig,
    api_keys: Iterable[ApiKey] = (),
    destination_addresses: Mapping[str, str] = MappingProxyType({}),
    config_warnings: Sequence[str] = (),
    collect_process_metrics: Callable[[], WatchdogActivityMetrics],
    mcp_app: McpAsgiApp,
    transition_feed: TransitionFeed,
    slack: SlackInteractivityRouteContext | None = None,
    receiver_tester: ReceiverTester | None = None,
    check_in_addresses: Mapping[str, CheckInAddress] = MappingProxyType({}),
    has_run_effect: Callable[[str], bool] = lambda _: False,
) -> FastAPI:
    """The application with all routes but check-ins, which CheckInMiddleware puts in front of it.

    `clock`: epoch ms. `get_site_notice`: empty: none. `config_actions`, `slack`, `receiver_tester`: None if the process
    has none. `not_ready_reason`, `describe_probing_without_store`: empty if ready, and if the database is not away.
    `api_keys`: without any, pages are for this machine alone. `mcp_app`: lives as long as the application."""
    renderer = PageRenderer(status_page.title, get_site_notice)
    status_pages = StatusPageCache(run_read_query, clock, status_page, renderer)
    context = OperatorRouteContext(
        run_read_query=run_read_query, run_act=run_act, clock=clock, authenticator=Authenticator(api_keys, clock),
        renderer=renderer, destination_addresses=destination_addresses, check_in_addresses=check_in_addresses,
        config_warnings=config_warnings, config_actions=config_actions, has_run_effect=has_run_effect,
        streams=EventStreams(transition_feed, run_read_query), receiver_tester=receiver_tester, list_notes=list_notes,
    )  # fmt: skip
    readiness_check = ReadinessChecker(run_read_query, not_ready_reason, destination_addresses, clock)
    routers = (
        create_public_router(renderer, status_pages, readiness_check, list_notes, context.authenticator.is_operator),
        *(create_operator_router(context), create_page_act_router(context), create_probe_form_router(context)),
        create_service_page_router(context, readiness_check, list_background_tasks, collect_process_metrics),
        create_api_v1_router(context, readiness_check, list_background_tasks, config_actions),
        create_metrics_router(context, readiness_check, collect_process_metrics),
        create_mcp_router(context, mcp_app),
        create_sign_in_router(clock, context.authenticator, renderer, context.streams.end_session),
        create_slack_router(slack, run_read_query, run_act, clock),
    )
    app = build_app_of_routers(routers, mcp_app)
    install_error_handlers(app, renderer, clock, describe_probing_without_store)
    return app


def build_app_of_routers(routers: Iterable[APIRouter], mcp_app: McpAsgiApp) -> FastAPI:
    app = FastAPI(title="Watchdog", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lambda _: mcp_app)
    for router in routers:
        app.include_router(router)
    app.add_middleware(RequestBodyLimitMiddleware)
    app.add_middleware(SecurityHeadersMiddleware)
    return app


class RequestBodyLimitMiddleware:
    """Refuses a body that is longer than any form or message of a client, as soon as a route has read so much of it."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received_bytes, max_bytes = 0, MAX_REQUEST_BODY_BYTES
        for path_prefix, max_bytes_of_path in MAX_REQUEST_BODY_BYTES_BY_PATH_PREFIX.items():
            if scope["type"] == "http" and scope["path"].startswith(path_prefix):
                max_bytes = max_bytes_of_path

        async def receive_limited() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > max_bytes:
                raise HTTPException(413, "The body of the request is too long")
            return message

        await self.app(scope, receive_limited if scope["type"] == "http" else receive, send)


class SecurityHeadersMiddleware:
    """Adds SECURITY_HEADERS to every response but those to unexpected errors, which routes/errors.py gives them. A page
    with a script has a Content-Security-Policy of its own."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_security_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({name: value for name, value in SECURITY_HEADERS.items() if name not in headers})
            await send(message)

        await self.app(scope, receive, send_with_security_headers if scope["type"] == "http" else send)
