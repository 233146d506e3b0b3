"""What needs no API key: the status page, static files, liveness and readiness."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from watchdog.api.service import build_liveness_body, build_readiness_body
from watchdog.store.read.query import STORE_READ_QUERY_ERRORS, STORE_READ_QUERY_TIMEOUT_S, StoreReadRunner
from watchdog.web.compression import PrecompressedResponseBody
from watchdog.web.errors import StatusPageUnavailableError
from watchdog.web.pages.status import build_status_page
from watchdog.web.pages.status_selection import StatusPageGroupAndPageNumber, replace_nonexistent_status_page_view
from watchdog.web.pages.status_snapshot import StatusPageConfig, StatusPageDataFromStore, load_status_page_snapshot
from watchdog.web.readiness import ReadinessChecker
from watchdog.web.templating import LIVE_PAGE_HEADERS, NO_STORE_HEADERS, PageRenderer

STATUS_PAGE_CACHE_MS = 5_000
"""How long one rendering of the status page is served."""
MAX_CACHED_STATUS_PAGE_VIEWS = 32
MAX_PAGE_NUMBER_DIGITS = 9


@dataclass(frozen=True, slots=True)
class RenderedStatusPage:
    rendered_at: int
    body: PrecompressedResponseBody
    digest: str


class StatusPageCache:
    """Renders each view of the status page at most once every STATUS_PAGE_CACHE_MS, however many visitors there are.

    While the database is unavailable, it renders the last snapshot that could be read, marked as outdated.
    """

    def __init__(
        self,
        run_read_query: StoreReadRunner,
        clock: Callable[[], int],
        config: StatusPageConfig,
        renderer: PageRenderer,
    ):
        self._run_read_query, self._clock, self._config, self._renderer = run_read_query, clock, config, renderer
        self._rendered: dict[StatusPageGroupAndPageNumber, RenderedStatusPage] = {}
        """The view that was rendered longest ago first."""
        self._last_snapshot: StatusPageDataFromStore | None = None
        self._failed_at: int | None = None
        self._lock = asyncio.Lock()

    async def get_current_status_page(self, view: StatusPageGroupAndPageNumber) -> RenderedStatusPage:
        """Raises StatusPageUnavailableError."""
        async with self._lock:
            now = self._clock()
            if self._failed_at is not None and 0 <= now - self._failed_at < STATUS_PAGE_CACHE_MS:
                raise StatusPageUnavailableError  # visitors do not queue for a database that does not respond
            if self._last_snapshot is not None:
                view = replace_nonexistent_status_page_view(view, self._last_snapshot.selection.service_count_by_group)
            rendered = self._rendered.get(view)
            if rendered is None or not 0 <= now - rendered.rendered_at < STATUS_PAGE_CACHE_MS:
                rendered = await self._load_and_render_status_page(view, now)
                self._rendered.pop(view, None)
                self._rendered[view] = rendered
                if len(self._rendered) > MAX_CACHED_STATUS_PAGE_VIEWS:
                    del self._rendered[next(iter(self._rendered))]
            return rendered

    async def _load_and_render_status_page(self, view: StatusPageGroupAndPageNumber, now: int) -> RenderedStatusPage:
        is_outdated = False
        try:
            async with asyncio.timeout(STORE_READ_QUERY_TIMEOUT_S):
                self._last_snapshot = await self._run_read_query(
                    lambda connection: load_status_page_snapshot(connection, self._config, now, view)
                )
        except STORE_READ_QUERY_ERRORS:
            is_outdated = True
        if self._last_snapshot is None:
            self._failed_at = self._clock()
            raise StatusPageUnavailableError
        return await asyncio.to_thread(self._render_status_page_snapshot, self._last_snapshot, now, is_outdated)

    def _render_status_page_snapshot(
        self, snapshot: StatusPageDataFromStore, now: int, is_outdated: bool
    ) -> RenderedStatusPage:
        page = build_status_page(snapshot, self._config)
        template = "status.j2" if page.groups else "status_empty.j2"
        html = self._renderer.render(template, now, page=page, read_at=snapshot.read_at, is_outdated=is_outdated)
        body = html.encode()
        return RenderedStatusPage(now, PrecompressedResponseBody(body), sha256(body).hexdigest()[:24])


def create_public_router(
    renderer: PageRenderer,
    status_pages: StatusPageCache,
    readiness_check: ReadinessChecker,
    list_notes: Callable[[bool], Sequence[str]],
    is_operator: Callable[[Request], bool],
) -> APIRouter:
    """`list_notes`: what else to know about the service, with or without names."""
    router = APIRouter()

    @router.api_route("/", methods=["GET", "HEAD"])
    async def show_status(request: Request) -> Response:
        rendered = await status_pages.get_current_status_page(parse_status_page_group_and_page_number(request))
        content, encoding_headers = rendered.body.choose_body_and_encoding_headers(request)
        etag = f'"{rendered.digest}{"-gzip" if content is rendered.body.compressed else ""}"'
        cache = {"ETag": etag, "Cache-Control": f"public, max-age={STATUS_PAGE_CACHE_MS // 1000}"}
        headers = cache | LIVE_PAGE_HEADERS | encoding_headers
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type="text/html", headers=headers)

    @router.get("/static/{name}")
    async def serve_static_file(request: Request, name: str) -> Response:
        file = renderer.static_files.get(name)
        if file is None:
            return Response("not found", 404, media_type="text/plain")
        content, encoding_headers = file.body.choose_body_and_encoding_headers(request)
        headers = {"Cache-Control": "public, max-age=31536000, immutable", **encoding_headers}
        return Response(content, media_type=file.media_type, headers=headers)

    @router.api_route("/healthz", methods=["GET", "HEAD"])
    async def liveness() -> Response:
        return JSONResponse(build_liveness_body(), headers=NO_STORE_HEADERS)

    @router.api_route("/readyz", methods=["GET", "HEAD"])
    async def readiness(request: Request) -> Response:
        reason, findings = await readiness_check.find_not_ready_reason_and_own_findings()
        show_names = is_operator(request)
        content = build_readiness_body(reason, findings, list_notes(show_names), show_names=show_names)
        return JSONResponse(content, 503 if reason else 200, headers=NO_STORE_HEADERS)

    return router


def parse_status_page_group_and_page_number(request: Request) -> StatusPageGroupAndPageNumber:
    """`?group=NAME`, `?page=N`. Ignores what it cannot parse."""
    page_number = request.query_params.get("page", "")
    is_number = page_number.isascii() and page_number.isdigit() and len(page_number) <= MAX_PAGE_NUMBER_DIGITS
    return StatusPageGroupAndPageNumber(request.query_params.get("group"), int(page_number) if is_number else 1)
