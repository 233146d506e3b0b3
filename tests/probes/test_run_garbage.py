"""What a complete response leaves behind is freed at once, without the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.probe_runs import EMPTY_MASK
from tests.support.scripted_servers import (
    NOW,
    ConnectionHandler,
    http_response,
    redirect_to,
    running_server,
    send_parts,
)
from watchdog.domain.model import ClaimedSlot
from watchdog.net import NetworkAccess
from watchdog.probes import HttpProbe
from watchdog.service.event_loop_lag import EventLoopLagMonitor
from watchdog.service.runner import RetryingProbeRunner

NOW_MS = round(NOW.timestamp() * 1000)
RUN_COUNT = 3
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\n\r\nok"
INTERIM = b"HTTP/1.1 103 Early Hints\r\n\r\n"


async def respond_to_each_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(http_response(b"ok"))
        await reader.readuntil(b"\r\n\r\n")


@contextmanager
def collecting_garbage() -> Iterator[Counter[str]]:
    """Counts, at its end, the objects of Watchdog and of httptools that only the garbage collector frees, by class."""
    counts: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield counts
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = [type(each) for each in gc.garbage]
        counts.update(kind.__qualname__ for kind in kinds if kind.__module__.startswith(("watchdog.", "httptools.")))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize(
    ("handler", "target", "expect", "reason"),
    [
        (send_parts(http_response(b"ok")), {}, [], ""),
        (send_parts(http_response(b'{"ok": true}', Content_Type="application/json")), {}, ["body.ok"], ""),
        (send_parts(http_response(b"", status="204 No Content")), {}, [], ""),
        (send_parts(http_response()), {"method": "HEAD"}, [], ""),
        (send_parts(CHUNKED), {}, [], ""),
        (send_parts(INTERIM + UNTIL_CLOSED), {}, [], ""),
        (respond_to_each_request, {"keep_alive": True}, [], ""),
        (send_parts(http_response(b"no", status="503 Service Unavailable")), {}, [], "http.503"),
        (redirect_to("/"), {"follow_redirects": False}, ["status == 302"], ""),
    ],
)
def test_complete_response_leaves_no_reference_cycle(
    handler: ConnectionHandler, target: dict[str, Any], expect: list[str], reason: str
) -> None:
    async def run_probe() -> None:
        async with running_server(handler) as server, NetworkAccess() as network, EventLoopLagMonitor() as lag:
            probe = HttpProbe.model_validate(
                {"name": "Shop", "every": "1m", "http": {"url": server.url_of(), **target}, "expect": expect}
            )
            runner = RetryingProbeRunner(network, EMPTY_MASK, lambda: NOW_MS, lag)
            with collecting_garbage() as counts:
                for n in range(RUN_COUNT):
                    recorded = await runner.run(probe, ClaimedSlot(1, NOW_MS + n, "here", None), {})
                    assert recorded.result.reason == reason
            assert not counts

    asyncio.run(run_probe())
