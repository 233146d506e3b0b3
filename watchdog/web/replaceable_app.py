"""An application that a reload of the configuration replaces by another one."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class ReplaceableAsgiApp:
    """Passes each request to the current application. Requests in progress end with the one that they started with."""

    def __init__(self, app: ASGIApp):
        self.current_app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.current_app(scope, receive, send)
