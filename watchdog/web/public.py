"""What everybody may see: the status page, its stylesheet, and whether we are well."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol, TypeVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from watchdog.store.views import Connection, StoreError
from watchdog.web.errors import NoPageError
from watchdog.web.pages import NO_STORE, Pages
from watchdog.web.status import Site, Snapshot, read, status_page

T = TypeVar("T")

FRESH = 5_000
"""How long a render is served to everybody, in ms."""
PATIENCE = 5.0
"""Seconds to wait for the database before the last good page is shown."""


class Read(Protocol):
    """Runs a query on a reading connection, in the store's own threads."""

    def __call__(self, query: Callable[[Connection], T], /) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True)
class Rendered:
    at: int
    body: bytes
    etag: str


class StatusPages:
    """Renders the status page at most every few seconds; shows the last good one with its age when it cannot."""

    def __init__(self, read_: Read, now: Callable[[], int], site: Site, pages: Pages):
        self._read, self._now, self._site, self._pages = read_, now, site, pages
        self._rendered: Rendered | None = None
        self._good: Snapshot | None = None
        self._failed_at: int | None = None
        self._lock = asyncio.Lock()

    async def current(self) -> Rendered:
        """Raises NoPageError."""
        async with self._lock:
            now = self._now()
            if self._failed_at is not None and 0 <= now - self._failed_at < FRESH:
                raise NoPageError  # nobody waits in line for a database that hangs
            if self._rendered is None or not 0 <= now - self._rendered.at < FRESH:
                self._rendered = await self._render(now)
            return self._rendered

    async def _render(self, now: int) -> Rendered:
        stale = False
        try:
            async with asyncio.timeout(PATIENCE):
                self._good = await self._read(lambda connection: read(connection, self._site, now))
        except (StoreError, TimeoutError):
            stale = True
        if self._good is None:
            self._failed_at = self._now()
            raise NoPageError
        return await asyncio.to_thread(self._draw, self._good, now, stale)

    def _draw(self, good: Snapshot, now: int, stale: bool) -> Rendered:
        page = status_page(good, self._site)
        template = "status.j2" if page.groups else "unwatched.j2"
        body = self._pages.render(template, now, page=page, read_at=good.at, stale=stale).encode()
        return Rendered(now, body, f'"{sha256(body).hexdigest()[:24]}"')


def public_router(pages: Pages, status: StatusPages, read_: Read, ready: Callable[[], str]) -> APIRouter:
    """`ready`: what keeps us from being ready, in words; empty when nothing does."""
    router = APIRouter()

    @router.api_route("/", methods=["GET", "HEAD"])
    async def show_status(request: Request) -> Response:
        rendered = await status.current()
        headers = {"ETag": rendered.etag, "Cache-Control": f"public, max-age={FRESH // 1000}"}
        if rendered.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(rendered.body, media_type="text/html", headers=headers)

    @router.get("/static/{name}")
    async def static(name: str) -> Response:
        found = pages.static.get(name)
        if found is None:
            return Response("not found", 404, media_type="text/plain")
        forever = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(found.content, media_type=found.media_type, headers=forever)

    @router.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"}, headers=NO_STORE)

    @router.api_route("/readyz", methods=["GET", "HEAD"])
    async def readyz() -> Response:
        reason = ready() or await _database_silent(read_)
        answer = {"status": "not ready", "reason": reason} if reason else {"status": "ready"}
        return JSONResponse(answer, 503 if reason else 200, headers=NO_STORE)

    return router


async def _database_silent(read_: Read) -> str:
    """Why the database cannot be used, in words; empty when it answers."""
    try:
        async with asyncio.timeout(PATIENCE):
            await read_(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())
    except (StoreError, TimeoutError):
        return "the database does not answer"
    return ""
