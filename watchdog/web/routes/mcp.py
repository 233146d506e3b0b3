"""The door for agents: who may knock is decided here, what is said behind it elsewhere."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from watchdog.web.routes.operators import OperatorContext


class AsgiLifespanApp(AbstractAsyncContextManager[None], Protocol):
    """Speaks MCP over HTTP. `request.state.may_act` says whether a visitor may do more than read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class DelegatingResponse(Response):
    """Answered by somebody else."""

    def __init__(self, app: AsgiLifespanApp):
        super().__init__()
        self._face = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._face(scope, receive, send)


def create_mcp_router(context: OperatorContext, mcp_app: AsgiLifespanApp) -> APIRouter:
    """POST alone: each is complete by itself, so that there is no session or stream for a GET or DELETE."""
    router = APIRouter(dependencies=[Depends(context.authenticate)])

    @router.post("/mcp")
    async def serve(_: Request) -> Response:
        return DelegatingResponse(mcp_app)

    return router
