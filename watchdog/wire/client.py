"""The client that notifiers post with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx

MOST_ANSWER = 1024 * 1024
TIMEOUT = 10.0


def make_client(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    """No redirects, nothing from the environment, answers of at most 1 MiB. They are asked for uncompressed."""
    return httpx.AsyncClient(
        transport=_Capped(transport),
        headers={"User-Agent": "watchdog-monitor", "Accept-Encoding": "identity"},
        timeout=TIMEOUT,
        follow_redirects=False,
        trust_env=False,
    )


class _Capped(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        if isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = _CappedStream(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _CappedStream(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._inner:
            size += len(chunk)
            if size > MOST_ANSWER:
                raise httpx.ReadError(f"the answer is longer than {MOST_ANSWER // 1024} KiB")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
