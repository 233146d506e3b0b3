"""Responses to failed requests: a page for browsers, JSON for programs, and never a traceback."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from watchdog.api.service import build_api_error_body
from watchdog.store.errors import StoreUnavailableError, WatchdogDatabaseSchemaError
from watchdog.web.auth.access import WebRequestRefusedError
from watchdog.web.errors import PageNotFoundError, StatusPageUnavailableError
from watchdog.web.routes.sign_in import build_retry_after_header, render_sign_in_page
from watchdog.web.templating import NO_STORE_HEADERS, SECURITY_HEADERS, PageRenderer

PAGE_DATABASE_UNAVAILABLE_TEXT = "Watchdog cannot read its database at the moment. Try again soon."
PAGE_INTERNAL_ERROR_TEXT = "Watchdog failed to build this page; see its log. Probes and notifications are not affected."
PAGE_NOT_FOUND_TEXT = "There is no page at this address."


def install_error_handlers(
    app: FastAPI, renderer: PageRenderer, clock: Callable[[], int], describe_probing_without_store: Callable[[], str]
) -> None:
    def error_response(
        request: Request, status_code: int, heading: str, text: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        headers = {**NO_STORE_HEADERS, **(headers or {})}
        if is_program_request(request):
            return JSONResponse(build_api_error_body(heading, text), status_code, headers=headers)
        html = renderer.render("error.j2", clock(), status_code=status_code, heading=heading, text=text)
        return HTMLResponse(html, status_code, headers=headers)

    @app.exception_handler(WebRequestRefusedError)
    async def handle_access_denied(request: Request, error: WebRequestRefusedError) -> Response:
        if error.status_code == 401 and not is_program_request(request):
            path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return render_sign_in_page(renderer, clock(), path, error)
        headers = build_retry_after_header(error) | ({"WWW-Authenticate": "Bearer"} if error.status_code == 401 else {})
        heading = error.reason if is_program_request(request) else "Access denied"
        return error_response(request, error.status_code, heading, f"{error}.", headers)

    @app.exception_handler(PageNotFoundError)
    async def handle_page_not_found(request: Request, error: PageNotFoundError) -> Response:
        return error_response(request, 404, "Not found", str(error))

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return error_response(request, 404, "Not found", PAGE_NOT_FOUND_TEXT)
        return error_response(request, error.status_code, "Request refused", f"{error.detail}.", error.headers)

    @app.exception_handler(RequestValidationError)
    async def handle_invalid_parameters(request: Request, _: RequestValidationError) -> Response:
        return error_response(request, 400, "Request refused", "A parameter in the URL is not valid.")

    @app.exception_handler(StoreUnavailableError)
    @app.exception_handler(WatchdogDatabaseSchemaError)
    @app.exception_handler(TimeoutError)
    @app.exception_handler(StatusPageUnavailableError)
    async def handle_database_unavailable(request: Request, _: Exception) -> Response:
        text = build_database_unavailable_text(describe_probing_without_store())
        return error_response(request, 503, "Database unavailable", text, {"Retry-After": "10"})

    app.add_exception_handler(ClientDisconnect, handle_client_disconnect)

    @app.exception_handler(Exception)
    async def handle_unexpected_error(request: Request, _: Exception) -> Response:
        response = error_response(request, 500, "Internal error", PAGE_INTERNAL_ERROR_TEXT)
        response.headers.update(SECURITY_HEADERS)  # this response bypasses SecurityHeadersMiddleware
        return response


async def handle_client_disconnect(_: Request, __: Exception) -> Response:
    """No one reads this response; without it, each visitor who leaves while sending a form would be logged."""
    return Response(status_code=400)


def build_database_unavailable_text(probing: str) -> str:
    """`probing`: what runs while the database is away; empty if it is not, and just cannot be read."""
    return f"{PAGE_DATABASE_UNAVAILABLE_TEXT} {probing[:1].upper()}{probing[1:]}{'.' if probing else ''}".rstrip()


def is_program_request(request: Request) -> bool:
    """Whether a program sent the request."""
    path = request.url.path
    return path.startswith("/api/") or path == "/mcp" or "authorization" in request.headers
