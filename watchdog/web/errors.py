"""What a request gets that cannot have what it asked for: a designed page, or JSON for programs. Never a traceback."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from watchdog.store.errors import SchemaError, StoreUnavailableError
from watchdog.web.auth.access import AccessDeniedError
from watchdog.web.routes.sign_in import render_sign_in_page, retry_after_header
from watchdog.web.templating import NO_STORE_HEADERS, SECURITY_HEADERS, TemplateRenderer

DATABASE_UNAVAILABLE_TEXT = (
    "Watchdog cannot read what it stored. Probing goes on, and what it sees is kept. Try again soon."
)
INTERNAL_ERROR_TEXT = "That is a fault of Watchdog itself; its log says which. Probing and telling people go on."
PAGE_NOT_FOUND_TEXT = "No page has this address."


class PageNotFoundError(Exception):
    """No such probe or incident. The text is for people."""


class StatusPageUnavailableError(Exception):
    """The database does not answer, and there is no earlier page to show."""


def install_error_handlers(app: FastAPI, renderer: TemplateRenderer, clock: Callable[[], int]) -> None:
    def answer(request: Request, status: int, title: str, text: str, **headers: str) -> Response:
        kept = {**NO_STORE_HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if wants_json(request):
            return JSONResponse({"error": title, "message": text}, status, headers=kept)
        html = renderer.render("error.j2", clock(), status=status, heading=title, text=text)
        return HTMLResponse(html, status, headers=kept)

    @app.exception_handler(AccessDeniedError)
    async def denied(request: Request, error: AccessDeniedError) -> Response:
        if error.status == 401 and not wants_json(request):
            asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return render_sign_in_page(renderer, clock(), asked, error)
        headers = retry_after_header(error) | ({"WWW-Authenticate": "Bearer"} if error.status == 401 else {})
        title = error.reason if wants_json(request) else "Not from here"
        return answer(request, error.status, title, f"{error}.", **headers)

    @app.exception_handler(PageNotFoundError)
    async def not_here(request: Request, error: PageNotFoundError) -> Response:
        return answer(request, 404, "Nothing is here", str(error))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return answer(request, 404, "Nothing is here", PAGE_NOT_FOUND_TEXT)
        headers: Mapping[str, str] = error.headers or {}
        return answer(request, error.status_code, "This cannot be done", f"{error.detail}.", **headers)

    @app.exception_handler(RequestValidationError)
    async def unreadable(request: Request, _: RequestValidationError) -> Response:
        return answer(request, 400, "This cannot be done", "The address has a part that cannot be read.")

    @app.exception_handler(StoreUnavailableError)
    @app.exception_handler(SchemaError)
    @app.exception_handler(TimeoutError)
    @app.exception_handler(StatusPageUnavailableError)
    async def away(request: Request, _: Exception) -> Response:
        return answer(request, 503, "The database does not answer", DATABASE_UNAVAILABLE_TEXT, Retry_After="10")

    @app.exception_handler(Exception)
    async def broken(request: Request, _: Exception) -> Response:
        response = answer(request, 500, "This page failed", INTERNAL_ERROR_TEXT)
        response.headers.update(SECURITY_HEADERS)  # sent from outside of the middleware that does this for all others
        return response


def wants_json(request: Request) -> bool:
    """Programs get JSON, browsers pages."""
    path = request.url.path
    return path.startswith("/api/") or path == "/mcp" or "authorization" in request.headers
