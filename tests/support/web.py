"""The web application over a database of a test's own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from threading import Thread
from typing import Any

import httpx
import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import find_html_problems, visible_text
from watchdog.domain.formatting import NBSP
from watchdog.net import NetworkAccess, SecretMask
from watchdog.notifiers.log import LogNotifier
from watchdog.service.acts import ActResultT, ActRunner
from watchdog.service.process_metrics import WatchdogActivityMetrics
from watchdog.service.receiver_tests import ConfiguredReceiverTestDependencies, ReceiverTester
from watchdog.service.transition_feed import TransitionFeed, TransitionSubscription
from watchdog.store.database import Database
from watchdog.store.read.query import QueryResultT, StoreReadRunner
from watchdog.store.tables import metadata
from watchdog.store.write.transitions import number_transitions
from watchdog.web import StatusPageConfig, create_web_app


@contextmanager
def filled_database(url: str, rows: FixtureRows) -> Iterator[Database]:
    """A database that holds the rows."""
    database = Database(url)
    try:
        metadata.create_all(database.writer)
        with database.open_write_transaction() as connection:
            rows.insert_into(connection)
        yield database
    finally:
        database.close()


def make_read_query_runner(database: Database) -> StoreReadRunner:
    async def run_read_query(query: Callable[[sa.Connection], QueryResultT]) -> QueryResultT:
        def run() -> QueryResultT:
            with database.open_read_transaction() as connection:
                return query(connection)

        return await asyncio.to_thread(run)

    return run_read_query


def make_act_runner(database: Database) -> ActRunner:
    """Acts take place at the instant of the fixtures."""

    async def run_act(act: Callable[[Database, int], ActResultT]) -> ActResultT:
        return await asyncio.to_thread(act, database, NOW)

    return run_act


class DatabaseTransitionFeed(TransitionFeed):
    """Reads often."""

    def __init__(self, database: Database):
        number = partial(asyncio.to_thread, number_transitions, database)
        super().__init__(make_read_query_runner(database), number, poll_interval_s=0.02)


class EndedTransitionFeed(DatabaseTransitionFeed):
    """Each stream of it ends at once, so that requests for every address have an end."""

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[TransitionSubscription]:
        async with super().subscribe() as subscription:
            subscription.end()
            yield subscription


class FakeMcpApp:
    """Answers requests to /mcp with whether the client is an operator."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_operator = Request(scope).state.is_operator
        await JSONResponse({"is_operator": is_operator}, headers={"Cache-Control": "no-store"})(scope, receive, send)


STATUS_PAGE_ORDER = (
    *("website", "api", "sign-in", "payments", "search-mcp", "document-fetch", "suggestions"),
    *("scheduled-reports", "exports", "thumbnails", "webhooks-out"),
)
DESTINATION_ADDRESSES = {"oncall/slack": "#oncall", "oncall/email": "oncall@acme.example", "chat/slack": "#chat",
             "pager/webhook": "events.acme.example"}  # fmt: skip


def create_test_app(database: Database, **options: Any) -> FastAPI:
    """The app at the instant of the fixtures. `options`: parameters of `create_web_app`."""
    defaults: dict[str, Any] = {
        "run_read_query": make_read_query_runner(database),
        "run_act": make_act_runner(database),
        "clock": lambda: NOW,
        "not_ready_reason": lambda: "",
        "status_page": StatusPageConfig(
            "Acme status", group_order=("Core", "Search", "Jobs"), probe_order=STATUS_PAGE_ORDER
        ),
        "destination_addresses": DESTINATION_ADDRESSES,
        "collect_process_metrics": WatchdogActivityMetrics,
        "mcp_app": FakeMcpApp(),
        "transition_feed": EndedTransitionFeed(database),
        "receiver_tester": ReceiverTester(
            ConfiguredReceiverTestDependencies(
                dict.fromkeys(DESTINATION_ADDRESSES, LogNotifier()), NetworkAccess(), SecretMask(()), lambda: NOW
            )
        ),
    }
    return create_web_app(**defaults | options)


def list_requests(app: FastAPI) -> list[tuple[str, str]]:
    """Every (path, method) of the application's routers."""

    def walk(routes: Iterable[BaseRoute]) -> Iterator[APIRoute]:
        for route in routes:
            if isinstance(route, APIRoute):
                yield route
            elif (inner := getattr(route, "original_router", None)) is not None:
                yield from walk(inner.routes)

    return [(route.path, method) for route in walk(app.routes) for method in sorted(route.methods or ())]


@contextmanager
def running_app(app: FastAPI | ASGIApp) -> Iterator[str]:
    """A real server on a free loopback port; yields its URL."""
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:  # else asyncio would leave Nagle's algorithm on
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        thread = Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def request_page(
    app: FastAPI,
    path: str,
    method: str = "GET",
    *,
    client: str = "127.0.0.1",
    host: str = "localhost:8080",
    scheme: str = "http",
    **options: Any,
) -> httpx.Response:
    """One request, without a network."""

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(client, 50_000))
        async with httpx.AsyncClient(transport=transport, base_url=f"{scheme}://{host}") as http:
            return await http.request(method, path, **options)

    return asyncio.run(run())


def read_page_text(database: Database, path: str) -> str:
    """The visible text of a page about this database. The page has to be valid HTML."""
    response = request_page(create_test_app(database), path)
    assert response.status_code == 200
    assert find_html_problems(response.text) == []
    assert "<script>alert" not in response.text
    return visible_text(response.text).replace(NBSP, " ")
