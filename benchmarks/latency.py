"""From the deciding result to the message received: a real probe, a real store, stand-ins for Slack, mail and webhooks.

One incident is in flight at a time; every notifier hears each. The clock starts when the run hands its result over.
"""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from benchmarks.table import Measurement, percentile
from tests.support.crash_harness import FakeHttpTarget
from tests.support.fakes import FakeMailServer, FakeSlack, FakeWebhookReceiver
from watchdog.app import run_app
from watchdog.config.load import load_config
from watchdog.domain.model import ClaimedSlot, RecordedResult

INCIDENT_COUNT = 200
MAX_P99_MS = 250.0
"""Ms at the 99th percentile."""


def prove() -> Iterator[Measurement]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with (
        tempfile.TemporaryDirectory() as folder, FakeHttpTarget() as target, FakeSlack() as bot, FakeSlack() as hook,
        FakeMailServer() as mail, FakeWebhookReceiver() as web,
    ):  # fmt: skip
        taken = asyncio.run(_measure_latencies(Path(folder), target, bot, hook, mail, web))
    for kind, samples in taken.items():
        yield Measurement(f"{kind}: messages heard, {2 * INCIDENT_COUNT} sent", float(len(samples)))
        yield Measurement(f"{kind}: messages missing or too many", float(abs(len(samples) - 2 * INCIDENT_COUNT)), "", 0)
        yield Measurement(f"{kind}: deciding result to message, p50", percentile(samples, 50), "ms")
        yield Measurement(f"{kind}: deciding result to message, p99", percentile(samples, 99), "ms", MAX_P99_MS)


async def _measure_latencies(
    folder: Path,
    target: FakeHttpTarget,
    slack_bot: FakeSlack,
    slack_webhook: FakeSlack,
    mail_server: FakeMailServer,
    webhook: FakeWebhookReceiver,
) -> dict[str, list[float]]:
    heard: dict[str, Callable[[], list[float]]] = {
        "slack bot": lambda: [h.received_at for h in slack_bot.received if not h.path.endswith("chat.update")],
        "slack webhook": lambda: [h.received_at for h in slack_webhook.received],
        "email": lambda: [m.received_at for m in mail_server.received],
        "webhook": lambda: [h.received_at for h in webhook.received],
    }
    receivers = {
        "a": {"slack": {"bot_token": slack_bot.token, "channel": slack_bot.channel, "api_url": slack_bot.url}},
        "b": {"slack": {"webhook": slack_webhook.webhook}, "webhook": {"url": webhook.url}},
        "c": {"email": {"to": ["oncall@acme.example"]}},
    }
    config = {
        "storage": {"url": f"sqlite:///{folder / 'watchdog.db'}"},
        "probes": [
            {
                "name": "API",
                "every": "1h",
                "http": target.url,
                "alert": {"failure_threshold": 1, "success_threshold": 1},
            }
        ],
        "receivers": receivers,
        "email": {"host": "127.0.0.1", "port": mail_server.port, "security": "none", "from": "watchdog@acme.example"},
    }
    taken: dict[str, list[float]] = {kind: [] for kind in heard}
    async with run_app(load_config(folder / "watchdog.yaml", json.dumps(config), {})) as app:
        service = app.service
        decided = 0.0

        def take(report: RecordedResult) -> None:
            nonlocal decided
            decided = time.monotonic()
            service.accept_result(report)

        service.run_executor.on_result = take
        probe_id, probe = next(iter(service.probes.items()))
        prev = None
        for number in range(2 * INCIDENT_COUNT):
            target.up = number % 2 == 1
            slot = ClaimedSlot(probe_id, app.clock(), "local", prev)
            prev = slot.slot
            service.run_executor.start_run(probe, slot, {})
            end = time.monotonic() + 10
            while any(len(times()) <= number for times in heard.values()) and time.monotonic() < end:
                await asyncio.sleep(0.002)
            for kind, times in heard.items():
                if len(times()) > number:
                    taken[kind].append((times()[number] - decided) * 1000)
            while service.notification_sender._tasks_by_destination:
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.01)
    return taken
