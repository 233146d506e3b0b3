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

from benchmarks.table import Figure, percentile
from tests.crash.harness import Target
from tests.standins import HookStandIn, MailStandIn, SlackStandIn
from watchdog.app import running
from watchdog.config import load
from watchdog.model import Report, Slot

INCIDENTS = 200
BOUND = 250.0
"""Ms at the 99th percentile."""


def prove() -> Iterator[Figure]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with (
        tempfile.TemporaryDirectory() as folder, Target() as target, SlackStandIn() as bot, SlackStandIn() as hook,
        MailStandIn() as mail, HookStandIn() as web,
    ):  # fmt: skip
        taken = asyncio.run(_measure(Path(folder), target, bot, hook, mail, web))
    for kind, samples in taken.items():
        yield Figure(f"{kind}: messages heard, {2 * INCIDENTS} sent", float(len(samples)))
        yield Figure(f"{kind}: messages missing or too many", float(abs(len(samples) - 2 * INCIDENTS)), "", 0)
        yield Figure(f"{kind}: deciding result to message, p50", percentile(samples, 50), "ms")
        yield Figure(f"{kind}: deciding result to message, p99", percentile(samples, 99), "ms", BOUND)


async def _measure(
    folder: Path, target: Target, bot: SlackStandIn, hook: SlackStandIn, mail: MailStandIn, web: HookStandIn
) -> dict[str, list[float]]:
    heard: dict[str, Callable[[], list[float]]] = {
        "slack bot": lambda: [h.at for h in bot.heard if not h.path.endswith("chat.update")],
        "slack webhook": lambda: [h.at for h in hook.heard],
        "email": lambda: [m.at for m in mail.heard],
        "webhook": lambda: [h.at for h in web.heard],
    }
    receivers = {
        "a": {"slack": {"bot_token": bot.token, "channel": bot.channel, "api_url": bot.url}},
        "b": {"slack": {"webhook": hook.webhook}, "webhook": {"url": web.url}},
        "c": {"email": {"to": ["oncall@acme.example"]}},
    }
    config = {
        "storage": {"url": f"sqlite:///{folder / 'watchdog.db'}"},
        "probes": [{"name": "API", "every": "1h", "http": target.url, "alert": {"after": 1, "recover": 1}}],
        "receivers": receivers,
        "email": {"host": "127.0.0.1", "port": mail.port, "security": "none", "from": "watchdog@acme.example"},
    }
    taken: dict[str, list[float]] = {kind: [] for kind in heard}
    async with running(load(folder / "watchdog.yaml", json.dumps(config), {})) as app:
        service = app.service
        decided = 0.0

        def take(report: Report) -> None:
            nonlocal decided
            decided = time.monotonic()
            service.take(report)

        service.dispatcher.deliver = take
        probe_id, probe = next(iter(service.probes.items()))
        prev = None
        for number in range(2 * INCIDENTS):
            target.up = number % 2 == 1
            slot = Slot(probe_id, app.clock(), "local", prev)
            prev = slot.at
            service.dispatcher.start(probe, slot, {})
            end = time.monotonic() + 10
            while any(len(times()) <= number for times in heard.values()) and time.monotonic() < end:
                await asyncio.sleep(0.002)
            for kind, times in heard.items():
                if len(times()) > number:
                    taken[kind].append((times()[number] - decided) * 1000)
            while service.mailroom._sending:
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.01)
    return taken
