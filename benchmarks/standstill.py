"""The largest responses of each kind, beside a target that goes down: CPU of the longest step, and time to its alert.

Watchdog runs in a process of its own; its targets, with responses at the limits, in this one. For each kind a probe of
the large response and one of the target that goes down run every 2 s.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import sys
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import brotli  # type: ignore[import-untyped] # it ships no types
import structlog
import zstandard

from benchmarks.measurements import Measurement
from benchmarks.standstill_sources import (
    WORKER_COUNT,
    running_bullmq_queue,
    running_celery_queue,
    running_job_table,
    running_redbeat,
    running_rq_queue,
)
from tests.support.fakes import FakeWebhookReceiver
from tests.support.mcp_servers.scripted import running_scripted_server

INTERVAL_S, TIMEOUT_S = 2, 3
WARM_UP_S, MAX_WAIT_S = 5.0, 20.0
MAX_STEP_MS = 100.0
MAX_DELAY_S = INTERVAL_S + TIMEOUT_S + 1.0
MAX_BODY_BYTES, MAX_SESSION_BYTES = 16 << 20, (4 << 20) - 5_000
HTML_ITEM = b"<li>all systems operational</li>\n"
DOWN, LARGE = "Down", "Large"
MAX_JUDGEMENT_S = 30


class Case(NamedTuple):
    name: str
    open_target: Callable[[Path], Any]
    """Opens the target; returns the fields of its probe."""


def prove() -> Iterator[Measurement]:
    for case in cases():
        with tempfile.TemporaryDirectory() as folder:
            figures = asyncio.run(_run_case(case, Path(folder)))
        yield Measurement(f"{case.name}: longest step, CPU", figures["longest_step_ms"], "ms", MAX_STEP_MS)
        yield Measurement(f"{case.name}: outage to alert", figures["delay_s"], "s", MAX_DELAY_S)
        yield Measurement(f"{case.name}: wrong verdicts, of {figures['runs']}", figures["wrong"], "", 0)


def cases() -> Iterator[Case]:
    page = HTML_ITEM * (MAX_BODY_BYTES // len(HTML_ITEM))
    wide = json.dumps({f"key{i}": {"ok": True} for i in range(550_000)}).encode()
    deep = b"[" + (b"[" * 400 + b"1" + b"]" * 400 + b",") * 20_000 + b"1]"
    numbers = b"[" + b"1," * 8_000_000 + b"1]"
    text = ["body.contains('operational')"]
    yield http_case("HTTP text", page, text)
    yield http_case("HTTP text, gzip", gzip.compress(page, 1), text, "gzip")
    yield http_case("HTTP text, deflate", zlib.compress(page, 1), text, "deflate")
    yield http_case("HTTP text, br", brotli.compress(page, quality=1), text, "br")
    yield http_case("HTTP text, zstd", zstandard.ZstdCompressor().compress(page), text, "zstd")
    yield http_case("HTTP JSON, wide", wide, ["body.key7.ok", "size(body) > 500000"])
    yield http_case("HTTP JSON, deep", deep, ["size(body) == 20001"])
    yield http_case("HTTP JSON, gzip", gzip.compress(numbers, 1), ["body[7] == 1"], "gzip")
    few = b"[" + b"1," * 4_000 + b"1]"
    yield http_case("HTTP JSON of 8 KB, quadratic loop", few, ["size(body.map(x, x)) == 4001"])
    tools = {"tools/list": {"tools": list(tools_of_bytes(MAX_SESSION_BYTES))}}
    count = len(tools["tools/list"]["tools"])
    for transport in ("http", "http events", "http gzip events", "sse", "stdio"):
        yield mcp_case(f"MCP {count} tools, {transport}", transport, tools, [f"size(tools) == {count}"])
    entry: dict[str, Any] = {"name": "queue", "ok": True, "depth": 17}
    parts = [entry] * (MAX_SESSION_BYTES // (len(json.dumps(entry)) + 2))
    value = {"healthy": True, "parts": parts}
    text_value = {"healthy": True, "parts": parts[: len(parts) * 4 // 5]}  # its quotes are escaped
    results: dict[str, dict[str, Any]] = {
        "structured content": {"content": [], "structuredContent": value},
        "JSON text": {"content": [{"type": "text", "text": json.dumps(text_value)}]},
        "content blocks": {"content": [{"type": "text", "text": "line"}] * (MAX_SESSION_BYTES // 34)},
    }
    listed = {"tools/list": {"tools": [{"name": "health_check", "inputSchema": {"type": "object"}}]}}
    for name, result in results.items():
        for transport in ("http", "sse", "stdio"):
            expect = ["result.contains('line')"] if name == "content blocks" else ["result.healthy"]
            yield mcp_case(f"MCP {name}, {transport}", transport, listed | {"tools/call": result}, expect)
    yield Case("SQL, 2,000 jobs", running_job_table)
    yield Case("Redis, 2,000 schedules", running_redbeat)
    yield Case(f"BullMQ queue, {WORKER_COUNT:,} workers", running_bullmq_queue)
    yield Case(f"RQ queue, {2 * WORKER_COUNT:,} workers", running_rq_queue)
    yield Case("Celery queue, message of 60 MB", running_celery_queue)


def http_case(name: str, body: bytes, expect: list[str], encoding: str = "") -> Case:
    headers = f"Content-Encoding: {encoding}\r\n" if encoding else ""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    if expect[0].startswith("body.contains"):
        head = head.replace("application/json", "text/html")

    @asynccontextmanager
    async def open_target(folder: Path) -> AsyncIterator[dict[str, Any]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head.encode() + body)
            await writer.drain()
            writer.close()

        async with _running(serve) as port:
            yield {"http": {"url": f"http://127.0.0.1:{port}/", "max_body": "16MiB"}, "expect": expect}

    return Case(name, open_target)


def mcp_case(name: str, transport: str, results: dict[str, Any], expect: list[str]) -> Case:
    @asynccontextmanager
    async def open_target(folder: Path) -> AsyncIterator[dict[str, Any]]:
        async with running_scripted_server(transport, results, folder) as settings:
            yield {"mcp": {**settings, "max_body": "16MiB"}, "expect": expect}

    return Case(name, open_target)


def tools_of_bytes(size: int) -> Iterator[dict[str, Any]]:
    """The shortest tools, with a space after each separator."""
    for i in range(size // 62):
        yield {"name": f"t{i:05}", "inputSchema": {"type": "object"}}


@asynccontextmanager
async def _running(serve: Callable[..., Awaitable[None]]) -> AsyncIterator[int]:
    async def serve_quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()

    server = await asyncio.start_server(serve_quietly, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _run_case(case: Case, folder: Path) -> dict[str, Any]:
    is_down = False

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if is_down:
            await reader.read()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(_running(serve))
        large = await stack.enter_async_context(case.open_target(folder))
        webhook = stack.enter_context(FakeWebhookReceiver())
        config = folder / "watchdog.yaml"
        config.write_text(json.dumps(_config(large, port, webhook.url, folder)))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.standstill", str(config)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 22,
        )
        await asyncio.sleep(WARM_UP_S)
        is_down, down_since = True, time.monotonic()
        alerts: list[float] = []
        while not alerts and time.monotonic() - down_since < MAX_WAIT_S:
            await asyncio.sleep(0.02)
            alerts = [alert.received_at for alert in webhook.received if DOWN in alert.body.decode()]
        output, _ = await process.communicate(b"")
    figures: dict[str, Any] = json.loads(output)
    figures["delay_s"] = alerts[0] - down_since if alerts else float("inf")
    return figures


def _config(large: dict[str, Any], port: int, webhook_url: str, folder: Path) -> dict[str, Any]:
    """A large response may take 30 s to be judged."""
    return {
        "storage": {"url": f"sqlite:///{folder / 'watchdog.db'}"},
        "defaults": {"every": f"{INTERVAL_S}s", "alert": {"failure_threshold": 1}},
        "probes": [
            {"name": LARGE, "timeout": f"{MAX_JUDGEMENT_S}s", **large},
            {"name": DOWN, "timeout": f"{TIMEOUT_S}s", "http": f"http://127.0.0.1:{port}/"},
        ],
        "receivers": {"oncall": {"webhook": {"url": webhook_url}}},
    }


class LoopMonitor:
    """Measures the CPU time of each step of the event loop."""

    def __init__(self) -> None:
        self.longest_step_s = 0.0
        self.longest_step = ""

    @contextmanager
    def measuring(self) -> Iterator[None]:
        run = asyncio.events.Handle._run

        def run_and_measure(handle: asyncio.Handle) -> None:
            started = time.thread_time()
            run(handle)
            elapsed_s = time.thread_time() - started
            if elapsed_s > self.longest_step_s:
                self.longest_step_s, self.longest_step = elapsed_s, repr(handle)[:300]

        asyncio.events.Handle._run = run_and_measure  # type: ignore[assignment, method-assign] # observed from outside
        try:
            yield
        finally:
            asyncio.events.Handle._run = run  # type: ignore[method-assign]


async def _run_and_measure(config: Path) -> None:
    from watchdog.app import start_watchdog_service_and_stop_on_exit
    from watchdog.cli.common import freeze_heap_and_enable_gc
    from watchdog.config.load import load_config
    from watchdog.domain.model import Outcome, ResultToRecord
    from watchdog.service.process_resources import keep_heap_small

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    monitor, results = LoopMonitor(), list[ResultToRecord]()
    loaded = load_config(config)
    freeze_heap_and_enable_gc()  # as `watchdog run` does
    async with start_watchdog_service_and_stop_on_exit(loaded) as app:
        service = app.service
        heap_task = asyncio.create_task(keep_heap_small())

        def accept_result(recorded_result: ResultToRecord) -> None:
            results.append(recorded_result)
            service.buffer_result(recorded_result)

        service.run_executor.on_result = accept_result
        large_id = next(id_ for id_, probe in service.probes.items() if probe.name == LARGE)
        with monitor.measuring():
            await asyncio.to_thread(sys.stdin.read)
            for _ in range(MAX_JUDGEMENT_S * 10):
                if any(large_id == r.result.probe and r.result.outcome is not Outcome.MISSED for r in results):
                    break
                await asyncio.sleep(0.1)
        names = {id_: probe.name for id_, probe in service.probes.items()}
        heap_task.cancel()
    verdicts = [(names[r.result.probe], str(r.result.outcome), r.result.reason) for r in results]
    unexpected = [
        v for v in verdicts if v[1] != "pass" and v != (DOWN, "fail", "timeout.first_byte") and v[1] != "missed"
    ]
    print(
        f"{monitor.longest_step_s * 1000:.0f} ms in {monitor.longest_step}; unexpected: {unexpected[:3]}",
        file=sys.stderr,
    )
    figures = {
        "longest_step_ms": monitor.longest_step_s * 1000,
        "runs": sum(name == LARGE for name, *_ in verdicts),
        "wrong": len(unexpected) + ((LARGE, "pass", "") not in verdicts),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(_run_and_measure(Path(sys.argv[1])))
