"""Signing in with an API key, and signing out."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from watchdog.web.auth.access import Authenticator, WebRequestRefusedError, require_same_origin
from watchdog.web.auth.session import SESSION_COOKIE_NAME
from watchdog.web.forms import read_form
from watchdog.web.templating import NO_STORE_HEADERS, PageRenderer

DEFAULT_SIGN_IN_REDIRECT_PATH = "/probes"


def create_sign_in_router(
    clock: Callable[[], int],
    authenticator: Authenticator,
    renderer: PageRenderer,
    end_streams_of_session: Callable[[str], None],
) -> APIRouter:
    """Has no routes if no API keys are configured, because there is nothing to sign in to. `end_streams_of_session`:
    gets the cookie of a session that is signed out."""
    router = APIRouter(dependencies=[Depends(require_same_origin)])
    if not authenticator.api_keys:
        return router

    @router.get("/login")
    async def show_sign_in_form(next: str = DEFAULT_SIGN_IN_REDIRECT_PATH) -> HTMLResponse:
        return render_sign_in_page(renderer, clock(), next)

    @router.post("/login")
    async def submit_sign_in(request: Request) -> Response:
        fields = await read_form(request)
        next_path = fields.get("next", DEFAULT_SIGN_IN_REDIRECT_PATH)
        try:
            api_key = authenticator.require_valid_api_key(request, fields.get("key", "").strip().encode())
        except WebRequestRefusedError as e:
            return render_sign_in_page(renderer, clock(), next_path, e)
        response = RedirectResponse(restrict_redirect_path_to_site(next_path), 303, headers=NO_STORE_HEADERS)
        authenticator.sessions.set(response, api_key, secure=request.url.scheme == "https")
        return response

    @router.post("/logout")
    async def sign_out(request: Request) -> Response:
        end_streams_of_session(request.cookies.get(SESSION_COOKIE_NAME, ""))
        response = RedirectResponse("/login", 303, headers=NO_STORE_HEADERS)
        authenticator.sessions.clear(response)
        return response

    return router


def render_sign_in_page(
    renderer: PageRenderer, now: int, next_path: str, error: WebRequestRefusedError | None = None
) -> HTMLResponse:
    """`next_path`: where to go after signing in. `error`: why the last attempt failed."""
    error_message = "" if error is None or error.reason == "access.missing_key" else str(error)
    html = renderer.render(
        "login.j2", now, next_path=restrict_redirect_path_to_site(next_path), error_message=error_message
    )
    status_code = 200 if error is None else error.status_code
    return HTMLResponse(html, status_code, headers={**NO_STORE_HEADERS, **build_retry_after_header_of_refusal(error)})


def build_retry_after_header_of_refusal(error: WebRequestRefusedError | None) -> dict[str, str]:
    return {"Retry-After": str(error.retry_after_s)} if error and error.retry_after_s else {}


def restrict_redirect_path_to_site(path: str) -> str:
    """The path, if it is one of this site; otherwise DEFAULT_SIGN_IN_REDIRECT_PATH."""
    is_own = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return quote(path, safe="/?&=%:+,~*") if is_own else DEFAULT_SIGN_IN_REDIRECT_PATH
