"""Real proxies on free ports of loopback, and proxies whose replies a test scripts."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from tests.support.ports import find_free_port
from tests.support.scripted_servers import ScriptedServer, running_server
from tests.support.third_party import listening_process

PROXY_USER, PROXY_PASSWORD = "monitor", "pr0xy-passw0rd"
TINYPROXY_CONFIG = """
Port {port}
Listen 127.0.0.1
Timeout 600
MaxClients 200
Allow 127.0.0.1
LogFile "{folder}/log"
LogLevel Connect
{options}
"""
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin"


def find_system_program(name: str) -> str | None:
    return shutil.which(name, path=_SYSTEM_PATH)


@contextmanager
def running_tinyproxy(*options: str) -> Iterator[int]:
    """An HTTP proxy. `options`: lines of its configuration. Yields its port."""
    binary, port = find_system_program("tinyproxy"), find_free_port()
    assert binary is not None
    folder = Path(tempfile.mkdtemp(prefix="watchdog-tinyproxy-"))
    config = folder / "tinyproxy.conf"
    config.write_text(TINYPROXY_CONFIG.format(port=port, folder=folder, options="\n".join(options)))
    try:
        with listening_process([binary, "-d", "-c", str(config)], port):
            yield port
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_microsocks(*options: str) -> Iterator[int]:
    """A SOCKS5 proxy. Yields its port."""
    binary, port = find_system_program("microsocks"), find_free_port()
    assert binary is not None
    with listening_process([binary, "-i", "127.0.0.1", "-p", str(port), *options], port):
        yield port


class RecordingProxy:
    """A proxy that relays, and records what it was asked for."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.request_heads: list[str] = []
        """Of CONNECT and of forwarded requests."""

    @property
    def url(self) -> str:
        return f"http://{PROXY_USER}:{PROXY_PASSWORD}@127.0.0.1:{self.server.port}"


@asynccontextmanager
async def running_recording_proxy(
    tls: ssl.SSLContext | None = None, *, destination_port: int | None = None
) -> AsyncIterator[RecordingProxy]:
    """Speaks CONNECT, and forwards other requests. `destination_port`: on loopback, in place of every target."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        proxy.request_heads.append(head)
        method, target, _ = head.split(" ", 2)
        authority = target if method == "CONNECT" else target.split("/")[2]
        port = destination_port or int(authority.rpartition(":")[2])
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            to_target = _relay(reader, other_writer)
        else:
            to_target = _forward_requests(head, authority, reader, other_writer, proxy)
        try:
            await asyncio.gather(to_target, _relay(other_reader, writer))
        finally:
            other_writer.transport.abort()

    async with running_server(handle, tls, read_request=False) as server:
        proxy = RecordingProxy(server)
        yield proxy


async def _forward_requests(
    head: str, authority: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, proxy: RecordingProxy
) -> None:
    """One after the other, over one connection."""
    with suppress(OSError, asyncio.IncompleteReadError):
        while True:
            lines = [line for line in head.split("\r\n") if not line.lower().startswith("proxy-")]
            lines[0] = lines[0].replace(f"http://{authority}", "", 1)
            writer.write("\r\n".join(lines).encode())
            length = next((line.split(":")[1] for line in lines if line.lower().startswith("content-length:")), "0")
            writer.write(await reader.readexactly(int(length)))
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            proxy.request_heads.append(head)
    writer.close()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
