"""The web application: public pages, operators' pages, and the headers that every answer carries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watchdog.web import errors
from watchdog.web.access import Access, Key
from watchdog.web.agents import Face, agent_router
from watchdog.web.api import api_router
from watchdog.web.operators import Desk, operator_router
from watchdog.web.pages import HEADERS, Pages
from watchdog.web.public import Read, StatusPages, public_router
from watchdog.web.signin import sign_in_router
from watchdog.web.status import Site


def create_app(
    *,
    read: Read,
    now: Callable[[], int],
    ready: Callable[[], str],
    site: Site,
    keys: Iterable[Key] = (),
    addresses: Mapping[str, str] = MappingProxyType({}),
    agents: Face,
) -> FastAPI:
    """Every page of Watchdog.

    `read` runs a query on a reading connection. `now`: the clock, ms since the epoch. `ready`: what keeps us from being
    ready, in words; empty when nothing does. Without `keys` the operators' pages answer this machine only. `addresses`:
    destination ("oncall/slack") -> whom it reaches ("#oncall"). `agents`: answers at `/mcp`;
    it lives as long as the app.
    """
    pages = Pages(site.title)
    desk = Desk(read, now, Access(keys, now), pages, addresses)
    app = FastAPI(title="Watchdog", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lambda _: agents)
    app.include_router(public_router(pages, StatusPages(read, now, site, pages), read, ready))
    app.include_router(operator_router(desk))
    app.include_router(api_router(desk))
    app.include_router(agent_router(desk, agents))
    app.include_router(sign_in_router(now, desk.access, pages))
    errors.install(app, pages, now)
    app.add_middleware(Guarded)
    return app


class Guarded:
    """Puts the headers on every answer that passes; what fails beyond it gets them in errors.py."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
