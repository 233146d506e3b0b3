"""From the result that opens an incident to the message received: a real probe and store, fake Slack, mail and webhook.

Incidents follow each other; every notifier gets each, because the alert never counts as flapping. The time starts when
the run hands over its result.
"""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import structlog

from benchmarks.measurements import Measurement, percentile
from tests.support.fakes import FakeHttpTarget, FakeMailServer, FakeSlack, FakeWebhookReceiver
from watchdog.app import start_watchdog_service_and_stop_on_exit
from watchdog.config.load import load_config
from watchdog.domain import flapping
from watchdog.domain.model import ClaimedSlot, ResultToRecord

INCIDENT_COUNT = 200
MAX_P99_MS = 250.0


def prove() -> Iterator[Measurement]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with (
        tempfile.TemporaryDirectory() as folder, FakeHttpTarget() as target, FakeSlack() as bot, FakeSlack() as hook,
        FakeMailServer() as mail, FakeWebhookReceiver() as web,
        patch.object(flapping, "FLAPPING_INCIDENT_COUNT", 2 * INCIDENT_COUNT),
    ):  # fmt: skip
        latencies = asyncio.run(_measure_latencies(Path(folder), target, bot, hook, mail, web))
    for kind, samples in latencies.items():
        yield Measurement(f"{kind}: messages received, of {2 * INCIDENT_COUNT}", float(len(samples)))
        yield Measurement(f"{kind}: missing or extra messages", float(abs(len(samples) - 2 * INCIDENT_COUNT)), "", 0)
        yield Measurement(f"{kind}: result to message, p50", percentile(samples, 50), "ms")
        yield Measurement(f"{kind}: result to message, p99", percentile(samples, 99), "ms", MAX_P99_MS)


async def _measure_latencies(
    folder: Path,
    target: FakeHttpTarget,
    slack_bot: FakeSlack,
    slack_webhook: FakeSlack,
    mail_server: FakeMailServer,
    webhook: FakeWebhookReceiver,
) -> dict[str, list[float]]:
    arrival_times: dict[str, Callable[[], list[float]]] = {
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
    latencies: dict[str, list[float]] = {kind: [] for kind in arrival_times}
    async with start_watchdog_service_and_stop_on_exit(
        load_config(folder / "watchdog.yaml", json.dumps(config), {})
    ) as app:
        service = app.service
        handed_over_at = 0.0

        def accept_result(recorded_result: ResultToRecord) -> None:
            nonlocal handed_over_at
            handed_over_at = time.monotonic()
            service.buffer_result(recorded_result)

        service.run_executor.on_result = accept_result
        probe_id, probe = next(iter(service.probes.items()))
        previous_slot = None
        for number in range(2 * INCIDENT_COUNT):
            target.up = number % 2 == 1
            slot = ClaimedSlot(probe_id, app.clock(), "local", previous_slot)
            previous_slot = slot.slot
            service.run_executor.start_probe_run(probe, slot, {})
            end = time.monotonic() + 10
            while any(len(times()) <= number for times in arrival_times.values()) and time.monotonic() < end:
                await asyncio.sleep(0.002)
            for kind, times in arrival_times.items():
                if len(times()) > number:
                    latencies[kind].append((times()[number] - handed_over_at) * 1000)
            while service.notification_sender._tasks_by_destination:
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.01)
    return latencies
