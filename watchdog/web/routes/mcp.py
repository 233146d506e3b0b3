"""The route of the MCP server. It authenticates requests; watchdog.mcp_server answers them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from watchdog.web.routes.operators import OperatorRouteContext


class McpAsgiApp(AbstractAsyncContextManager[None], Protocol):
    """Answers MCP requests over HTTP. `request.state.is_operator`: whether the client may do more than read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class AsgiDelegatingResponse(Response):
    """Lets another application respond."""

    def __init__(self, app: McpAsgiApp):
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def create_mcp_router(context: OperatorRouteContext, mcp_app: McpAsgiApp) -> APIRouter:
    """Only POST: each request is complete by itself, so there is no session or stream to GET or DELETE."""
    router = APIRouter(dependencies=[Depends(context.authenticate)])

    @router.post("/mcp")
    async def handle_mcp_request(_: Request) -> Response:
        return AsgiDelegatingResponse(mcp_app)

    return router
