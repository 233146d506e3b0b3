"""Signing in with a key, and out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from watchdog.web.auth.access import AccessDeniedError, Authenticator, require_same_origin
from watchdog.web.templating import NO_STORE_HEADERS, TemplateRenderer

DEFAULT_REDIRECT_PATH = "/probes"


def create_sign_in_router(
    clock: Callable[[], int], authenticator: Authenticator, renderer: TemplateRenderer
) -> APIRouter:
    """Without configured keys there is nothing to sign in to: then it has no routes."""
    router = APIRouter(dependencies=[Depends(require_same_origin)])
    if not authenticator.keys:
        return router

    @router.get("/login")
    async def login(next: str = DEFAULT_REDIRECT_PATH) -> HTMLResponse:
        return render_sign_in_page(renderer, clock(), next)

    @router.post("/login")
    async def enter(
        request: Request, key: Annotated[str, Form()] = "", next: Annotated[str, Form()] = DEFAULT_REDIRECT_PATH
    ) -> Response:
        try:
            found = authenticator.verify_key(request, key.strip().encode())
        except AccessDeniedError as e:
            return render_sign_in_page(renderer, clock(), next, e)
        response = RedirectResponse(safe_redirect_path(next), 303, headers=NO_STORE_HEADERS)
        authenticator.set_session_cookie(response, found, secure=request.url.scheme == "https")
        return response

    @router.post("/logout")
    async def leave() -> Response:
        response = RedirectResponse("/login", 303, headers=NO_STORE_HEADERS)
        authenticator.clear_session_cookie(response)
        return response

    return router


def render_sign_in_page(
    renderer: TemplateRenderer, now: int, next: str, error: AccessDeniedError | None = None
) -> HTMLResponse:
    """`next`: where to go afterwards. `denied`: why the last try was in vain."""
    problem = "" if error is None or error.reason == "access.missing_key" else str(error)
    html = renderer.render("login.j2", now, next=safe_redirect_path(next), problem=problem)
    return HTMLResponse(
        html, 200 if error is None else error.status, headers={**NO_STORE_HEADERS, **retry_after_header(error)}
    )


def retry_after_header(error: AccessDeniedError | None) -> dict[str, str]:
    return {"Retry-After": str(error.wait)} if error and error.wait else {}


def safe_redirect_path(path: str) -> str:
    """A path of ours, whatever was asked for: never another site."""
    ours = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return quote(path, safe="/?&=%:+,~*") if ours else DEFAULT_REDIRECT_PATH
