"""The web application: public pages, operators' pages, and the headers that every answer carries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watchdog.web import errors
from watchdog.web.auth.access import ApiKey, Authenticator
from watchdog.web.pages.status import StatusPageConfig
from watchdog.web.routes.api import create_api_router
from watchdog.web.routes.mcp import AsgiLifespanApp, create_mcp_router
from watchdog.web.routes.operators import OperatorContext, create_operator_router
from watchdog.web.routes.public import ReadQueryRunner, StatusPageCache, create_public_router
from watchdog.web.routes.sign_in import create_sign_in_router
from watchdog.web.templating import SECURITY_HEADERS, TemplateRenderer


def create_app(
    *,
    run_read_query: ReadQueryRunner,
    clock: Callable[[], int],
    not_ready_reason: Callable[[], str],
    status_page: StatusPageConfig,
    api_keys: Iterable[ApiKey] = (),
    destination_addresses: Mapping[str, str] = MappingProxyType({}),
    mcp_app: AsgiLifespanApp,
) -> FastAPI:
    """Every page of Watchdog.

    `read` runs a query on a reading connection. `now`: the clock, ms since the epoch. `ready`: what keeps us from being
    ready, in words; empty when nothing does. Without `keys` the operators' pages answer this machine only. `addresses`:
    destination ("oncall/slack") -> whom it reaches ("#oncall"). `agents`: answers at `/mcp`;
    it lives as long as the app.
    """
    pages = TemplateRenderer(status_page.title)
    desk = OperatorContext(run_read_query, clock, Authenticator(api_keys, clock), pages, destination_addresses)
    app = FastAPI(title="Watchdog", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lambda _: mcp_app)
    app.include_router(
        create_public_router(
            pages, StatusPageCache(run_read_query, clock, status_page, pages), run_read_query, not_ready_reason
        )
    )
    app.include_router(create_operator_router(desk))
    app.include_router(create_api_router(desk))
    app.include_router(create_mcp_router(desk, mcp_app))
    app.include_router(create_sign_in_router(clock, desk.authenticator, pages))
    errors.install_error_handlers(app, pages, clock)
    app.add_middleware(SecurityHeadersMiddleware)
    return app


class SecurityHeadersMiddleware:
    """Puts the headers on every answer that passes; what fails beyond it gets them in errors.py."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
