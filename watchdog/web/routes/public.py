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

from watchdog.store.errors import StoreUnavailableError
from watchdog.store.read.status import Connection
from watchdog.web.errors import StatusPageUnavailableError
from watchdog.web.pages.status import StatusPageConfig, StatusSnapshot, build_status_page, load_status_snapshot
from watchdog.web.templating import NO_STORE_HEADERS, TemplateRenderer

QueryResultT = TypeVar("QueryResultT")

STATUS_PAGE_CACHE_MS = 5_000
"""How long a render is served to everybody, in ms."""
DATABASE_TIMEOUT_S = 5.0
"""Seconds to wait for the database before the last good page is shown."""


class ReadQueryRunner(Protocol):
    """Runs a query on a reading connection, in the store's own threads."""

    def __call__(self, query: Callable[[Connection], QueryResultT], /) -> Awaitable[QueryResultT]: ...


@dataclass(frozen=True, slots=True)
class RenderedPage:
    rendered_at: int
    body: bytes
    etag: str


class StatusPageCache:
    """Renders the status page at most every few seconds; shows the last good one with its age when it cannot."""

    def __init__(
        self,
        run_read_query: ReadQueryRunner,
        clock: Callable[[], int],
        config: StatusPageConfig,
        renderer: TemplateRenderer,
    ):
        self._read, self._now, self._site, self._pages = run_read_query, clock, config, renderer
        self._rendered: RenderedPage | None = None
        self._good: StatusSnapshot | None = None
        self._failed_at: int | None = None
        self._lock = asyncio.Lock()

    async def current_page(self) -> RenderedPage:
        """Raises NoPageError."""
        async with self._lock:
            now = self._now()
            if self._failed_at is not None and 0 <= now - self._failed_at < STATUS_PAGE_CACHE_MS:
                raise StatusPageUnavailableError  # nobody waits in line for a database that hangs
            if self._rendered is None or not 0 <= now - self._rendered.rendered_at < STATUS_PAGE_CACHE_MS:
                self._rendered = await self._load_and_render(now)
            return self._rendered

    async def _load_and_render(self, now: int) -> RenderedPage:
        stale = False
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT_S):
                self._good = await self._read(lambda connection: load_status_snapshot(connection, self._site, now))
        except (StoreUnavailableError, TimeoutError):
            stale = True
        if self._good is None:
            self._failed_at = self._now()
            raise StatusPageUnavailableError
        return await asyncio.to_thread(self._render_snapshot, self._good, now, stale)

    def _render_snapshot(self, snapshot: StatusSnapshot, now: int, stale: bool) -> RenderedPage:
        page = build_status_page(snapshot, self._site)
        template = "status.j2" if page.groups else "unwatched.j2"
        body = self._pages.render(template, now, page=page, read_at=snapshot.read_at, stale=stale).encode()
        return RenderedPage(now, body, f'"{sha256(body).hexdigest()[:24]}"')


def create_public_router(
    renderer: TemplateRenderer,
    status_pages: StatusPageCache,
    run_read_query: ReadQueryRunner,
    not_ready_reason: Callable[[], str],
) -> APIRouter:
    """`ready`: what keeps us from being ready, in words; empty when nothing does."""
    router = APIRouter()

    @router.api_route("/", methods=["GET", "HEAD"])
    async def show_status(request: Request) -> Response:
        rendered = await status_pages.current_page()
        headers = {"ETag": rendered.etag, "Cache-Control": f"public, max-age={STATUS_PAGE_CACHE_MS // 1000}"}
        if rendered.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(rendered.body, media_type="text/html", headers=headers)

    @router.get("/static/{name}")
    async def static(name: str) -> Response:
        found = renderer.static.get(name)
        if found is None:
            return Response("not found", 404, media_type="text/plain")
        forever = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(found.content, media_type=found.media_type, headers=forever)

    @router.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"}, headers=NO_STORE_HEADERS)

    @router.api_route("/readyz", methods=["GET", "HEAD"])
    async def readyz() -> Response:
        reason = not_ready_reason() or await _database_error_message(run_read_query)
        answer = {"status": "not ready", "reason": reason} if reason else {"status": "ready"}
        return JSONResponse(answer, 503 if reason else 200, headers=NO_STORE_HEADERS)

    return router


async def _database_error_message(run_read_query: ReadQueryRunner) -> str:
    """Why the database cannot be used, in words; empty when it answers."""
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_S):
            await run_read_query(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())
    except (StoreUnavailableError, TimeoutError):
        return "the database does not answer"
    return ""
