"""A fault of a target on real sockets, and what Watchdog has to report about it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tests.support.scripted_servers import ConnectionHandler, http_response, running_server, send_parts
from watchdog.domain.model import Outcome

Setup: TypeAlias = Callable[[Path], AbstractAsyncContextManager[dict[str, Any]]]
"""Starts the target in a folder for files. Yields the fields of the `http` probe."""


@dataclass(frozen=True)
class Fault:
    """One row of a table."""

    name: str
    setup: Setup
    reason: str
    facts: tuple[str, ...] = ()
    """Parts of the message: what was observed, by name."""
    outcome: Outcome = Outcome.FAIL
    timeout: str = "5s"
    shares_remedy_with: str = ""
    """The row that has the same reason, because the same has to be done about it."""


def http_fields(port: int, ca_file: str = "", *, scheme: str = "https", host: str = "127.0.0.1", **tls: Any) -> Any:
    options = {"ca_file": ca_file, **tls} if ca_file else tls
    return {"url": f"{scheme}://{host}:{port}/"} | ({"tls": options} if options else {})


@asynccontextmanager
async def tls_target(
    pem_file: str,
    configure: Callable[[ssl.SSLContext], None] = lambda context: None,
    handler: ConnectionHandler | None = None,
) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem_file)
    configure(context)
    async with running_server(handler or send_parts(http_response(b"hello")), context) as server:
        yield server.port


@asynccontextmanager
async def raw_target(handler: Callable[..., Awaitable[None]], tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server whose handler gets the connection before anything is read."""
    async with running_server(handler, tls, read_request=False) as server:
        yield server.port
