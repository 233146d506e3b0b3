"""A WebSocket server of the package websockets: PORT [PEM file with certificate and key]. It does as websocket.cjs."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Sequence

from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol


async def handle(connection: ServerConnection) -> None:
    assert connection.request is not None
    if connection.request.path == "/closed":
        await connection.close(4401, "token expired")
        return
    await connection.send(f"path {connection.request.path}")
    async for message in connection:
        await connection.send(f"echo: {message}" if isinstance(message, str) else message)


def select_subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return Subprotocol("chat.v2") if "chat.v2" in offered else None


async def main(port: int, pem_file: str = "") -> None:
    context = None
    if pem_file:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem_file)
    async with serve(handle, "127.0.0.1", port, ssl=context, select_subprotocol=select_subprotocol) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
