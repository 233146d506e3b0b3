"""The client that notifiers post with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx

MAX_RESPONSE_BYTES = 1024 * 1024
REQUEST_TIMEOUT_S = 10.0


def create_notifier_http_client(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    """No redirects, nothing from the environment, answers of at most 1 MiB. They are asked for uncompressed."""
    return httpx.AsyncClient(
        transport=_SizeLimitedTransport(transport),
        headers={"User-Agent": "watchdog-monitor", "Accept-Encoding": "identity"},
        timeout=REQUEST_TIMEOUT_S,
        follow_redirects=False,
        trust_env=False,
    )


class _SizeLimitedTransport(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        if isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = _SizeLimitedStream(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _SizeLimitedStream(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._inner:
            size += len(chunk)
            if size > MAX_RESPONSE_BYTES:
                raise httpx.ReadError(f"the answer is longer than {MAX_RESPONSE_BYTES // 1024} KiB")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
