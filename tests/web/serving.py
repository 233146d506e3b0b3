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

from tests.web.book import NOW, Book
from watchdog.store.database import Database
from watchdog.store.tables import metadata
from watchdog.web import Site, create_app

T = TypeVar("T")


@contextmanager
def filled(url: str, book: Book) -> Iterator[Database]:
    """A database with the book's rows."""
    database = Database(url)
    try:
        metadata.create_all(database.writer)
        with database.write() as connection:
            book.write(connection)
        yield database
    finally:
        database.close()


def reader(database: Database) -> Callable[[Callable[[sa.Connection], T]], Awaitable[T]]:
    """The seam through which pages read."""

    async def read(query: Callable[[sa.Connection], T]) -> T:
        def run() -> T:
            with database.read() as connection:
                return query(connection)

        return await asyncio.to_thread(run)

    return read


class Agents:
    """Stands behind the door for agents, and says whether who comes in may act."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        may_act = Request(scope).state.may_act
        await JSONResponse({"may_act": may_act}, headers={"Cache-Control": "no-store"})(scope, receive, send)


ORDER = (
    *("website", "api", "sign-in", "payments", "search-mcp", "document-fetch", "suggestions"),
    *("scheduled-reports", "exports", "thumbnails", "webhooks-out"),
)
ADDRESSES = {"oncall/slack": "#oncall", "oncall/email": "oncall@acme.example", "chat/slack": "#chat",
             "pager/webhook": "events.acme.example"}  # fmt: skip


def app_of(database: Database, **options: Any) -> FastAPI:
    """The app at the story's instant."""
    given: dict[str, Any] = {
        "read": reader(database), "now": lambda: NOW, "ready": lambda: "",
        "site": Site("Acme status", groups=("Core", "Search", "Jobs"), order=ORDER), "addresses": ADDRESSES,
        "agents": Agents(),
    }  # fmt: skip
    return create_app(**given | options)


@contextmanager
def serving(app: FastAPI | ASGIApp) -> Iterator[str]:
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


def ask(
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
