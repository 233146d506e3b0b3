"""The pages over a database of a test's own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any, TypeVar

import httpx
import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.support.fixture_rows import NOW, FixtureRows
from watchdog.store.database import Database
from watchdog.store.tables import metadata
from watchdog.web import StatusPageConfig, create_app

QueryResultT = TypeVar("QueryResultT")


@contextmanager
def filled_database(url: str, rows: FixtureRows) -> Iterator[Database]:
    """A database with the book's rows."""
    database = Database(url)
    try:
        metadata.create_all(database.writer)
        with database.write_transaction() as connection:
            rows.insert_into(connection)
        yield database
    finally:
        database.close()


def make_read_function(
    database: Database,
) -> Callable[[Callable[[sa.Connection], QueryResultT]], Awaitable[QueryResultT]]:
    """The seam through which pages read."""

    async def read(query: Callable[[sa.Connection], QueryResultT]) -> QueryResultT:
        def run() -> QueryResultT:
            with database.read_transaction() as connection:
                return query(connection)

        return await asyncio.to_thread(run)

    return read


class FakeMcpApp:
    """Stands behind the door for agents, and says whether who comes in may act."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        may_act = Request(scope).state.may_act
        await JSONResponse({"may_act": may_act}, headers={"Cache-Control": "no-store"})(scope, receive, send)


STATUS_PAGE_ORDER = (
    *("website", "api", "sign-in", "payments", "search-mcp", "document-fetch", "suggestions"),
    *("scheduled-reports", "exports", "thumbnails", "webhooks-out"),
)
DESTINATION_ADDRESSES = {"oncall/slack": "#oncall", "oncall/email": "oncall@acme.example", "chat/slack": "#chat",
             "pager/webhook": "events.acme.example"}  # fmt: skip


def create_test_app(database: Database, **options: Any) -> FastAPI:
    """The app at the story's instant."""
    given: dict[str, Any] = {
        "read": make_read_function(database),
        "now": lambda: NOW,
        "ready": lambda: "",
        "site": StatusPageConfig("Acme status", group_order=("Core", "Search", "Jobs"), probe_order=STATUS_PAGE_ORDER),
        "addresses": DESTINATION_ADDRESSES,
        "agents": FakeMcpApp(),
    }
    return create_app(**given | options)


@contextmanager
def running_app(app: FastAPI | ASGIApp) -> Iterator[str]:
    """A real server on a free port of loopback: its address."""
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
