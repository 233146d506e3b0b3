"""Signing in with a key, and out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from watchdog.web.access import Access, DeniedError, same_origin
from watchdog.web.pages import NO_STORE, Pages

HOME = "/probes"


def sign_in_router(now: Callable[[], int], access: Access, pages: Pages) -> APIRouter:
    """Without configured keys there is nothing to sign in to: then it has no routes."""
    router = APIRouter(dependencies=[Depends(same_origin)])
    if not access.keys:
        return router

    @router.get("/login")
    async def login(next: str = HOME) -> HTMLResponse:
        return sign_in_page(pages, now(), next)

    @router.post("/login")
    async def enter(
        request: Request, key: Annotated[str, Form()] = "", next: Annotated[str, Form()] = HOME
    ) -> Response:
        try:
            found = access.check(request, key.strip().encode())
        except DeniedError as e:
            return sign_in_page(pages, now(), next, e)
        response = RedirectResponse(local(next), 303, headers=NO_STORE)
        access.sign_in(response, found, secure=request.url.scheme == "https")
        return response

    @router.post("/logout")
    async def leave() -> Response:
        response = RedirectResponse("/login", 303, headers=NO_STORE)
        access.sign_out(response)
        return response

    return router


def sign_in_page(pages: Pages, now: int, next: str, denied: DeniedError | None = None) -> HTMLResponse:
    """`next`: where to go afterwards. `denied`: why the last try was in vain."""
    problem = "" if denied is None or denied.reason == "access.missing_key" else str(denied)
    html = pages.render("login.j2", now, next=local(next), problem=problem)
    return HTMLResponse(html, 200 if denied is None else denied.status, headers={**NO_STORE, **retry_after(denied)})


def retry_after(denied: DeniedError | None) -> dict[str, str]:
    return {"Retry-After": str(denied.wait)} if denied and denied.wait else {}


def local(path: str) -> str:
    """A path of ours, whatever was asked for: never another site."""
    ours = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return quote(path, safe="/?&=%:+,~*") if ours else HOME
