"""A WebSocket server of Starlette on uvicorn: PORT [PEM file with certificate and key]. It does as websocket.cjs."""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


async def handle(websocket: WebSocket) -> None:
    offered = websocket.scope["subprotocols"]
    await websocket.accept("chat.v2" if "chat.v2" in offered else None)
    url = websocket.url
    if url.path == "/closed":
        await websocket.close(4401, "token expired")
        return
    query = f"?{url.query}" if url.query else ""
    await websocket.send_text(f"path {url.path}{query}")
    try:
        while True:
            await websocket.send_text(f"echo: {await websocket.receive_text()}")
    except WebSocketDisconnect:
        return


if __name__ == "__main__":
    application = Starlette(routes=[WebSocketRoute("/{path:path}", handle)])
    port, *pem_files = sys.argv[1:]
    tls = {"ssl_certfile": pem_files[0], "ssl_keyfile": pem_files[0]} if pem_files else {}
    uvicorn.run(application, host="127.0.0.1", port=int(port), log_level="critical", **tls)  # type: ignore[arg-type] # paths
