"""Deliveries to receivers of every kind, on injected time: a store, a sender, and stand-ins that get real requests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from email.message import EmailMessage
from types import MappingProxyType
from typing import Any, Self

from tests.support.fakes import FakeMailServer, FakeSlack, FakeWebhookReceiver
from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_result
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.net import NetworkAccess, SecretMask
from watchdog.notifiers.base import Notifier
from watchdog.notifiers.email import EmailNotifier
from watchdog.notifiers.slack import SlackNotifier
from watchdog.notifiers.webhook import WebhookNotifier
from watchdog.service.notifications import NotificationSender
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.database import Database

DESTINATIONS = ("bot/slack", "channel/slack", "mail/email", "pager/webhook")


class Receivers:
    """A stand-in for each kind of receiver. Started outside an event loop, because the mail server has its own."""

    def __init__(self) -> None:
        self.bot, self.channel = FakeSlack(), FakeSlack()
        self.mail, self.pager = FakeMailServer(), FakeWebhookReceiver()

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        for receiver in (self.bot, self.channel, self.mail, self.pager):
            self._stack.enter_context(receiver)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class DeliveryHarness:
    """`now` is the clock of the sender; `settle()` sends until nothing more is due now."""

    def __init__(
        self,
        database: str | Database,
        receivers: Receivers,
        probes: list[RegisteredProbe],
        destinations: tuple[str, ...] = DESTINATIONS,
        routes: NotificationRoutingTable | None = None,
        bot_options: Mapping[str, str] = MappingProxyType({}),
    ):
        """`database`: a URL, or an open database, which stays open.
        `routes`: by default, all of `destinations` get everything. `bot_options`: more fields of the Slack bot."""
        routes = routes or NotificationRoutingTable({"oncall": destinations})
        self.store = StoreHarness(database, probes, routes=routes).without_downtime()
        self.now = START_AT + INTERVAL_MS
        self.executor = StoreExecutor(self.store.database, lambda: self.now)
        self.bot, self.channel = receivers.bot, receivers.channel
        self.mail, self.pager = receivers.mail, receivers.pager
        self.destinations, self._bot_options = destinations, bot_options

    async def __aenter__(self) -> Self:
        server = {"host": "127.0.0.1", "port": self.mail.port, "security": "none", "from": "watchdog@acme.example"}
        notifiers: dict[str, Notifier] = {
            "bot/slack": SlackNotifier.model_validate(
                {"bot_token": self.bot.token, "channel": self.bot.channel, "api_url": self.bot.url, **self._bot_options}
            ),
            "channel/slack": SlackNotifier.model_validate({"webhook": self.channel.webhook}),
            "mail/email": EmailNotifier.model_validate({"to": ["oncall@acme.example"], "server": server}),
            "pager/webhook": WebhookNotifier.model_validate({"url": self.pager.url}),
        }
        self.network = NetworkAccess()
        await self.network.__aenter__()
        self.notifiers = {name: notifiers[name] for name in self.destinations}
        self.start_sender()
        return self

    def start_sender(self) -> None:
        """As a process does when it starts; another one may have been killed before."""
        self.sender = NotificationSender(
            store_executor=self.executor,
            outbox=self.store.outbox,
            notifiers=self.notifiers,
            network=self.network,
            mask=SecretMask([]),
            clock=lambda: self.now,
            public_url="https://status.example",
        )

    async def __aexit__(self, *_: object) -> None:
        await self.sender.stop(5)
        await self.network.__aexit__(None, None, None)
        self.executor.close()
        self.store.close()

    async def settle(self) -> None:
        while True:
            await self.sender.start_sending_due_notifications()
            tasks = list(self.sender._tasks_by_destination.values())
            if not tasks:
                return
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)

    async def advance(self, ms: int, step_ms: int = 1_000) -> None:
        """Let time pass, and send what becomes due."""
        end = self.now + ms
        while self.now < end:
            self.now = min(self.now + step_ms, end)
            await self.settle()

    def record(self, probes: list[int], outcome: str, **fields: Any) -> None:
        """One result of each of these probes, now, as one batch."""
        self.store.record_results(*[make_result(probe, self.now, outcome, **fields) for probe in probes], now=self.now)

    def count_messages(self) -> dict[str, int]:
        """How many messages each destination has, edits and replies in threads not counted."""
        counts = (
            len(self.bot.thread_roots),
            len(self.channel.posts),
            len(self.mail.received),
            len(self.pager.received),
        )
        return {name: count for name, count in zip(DESTINATIONS, counts, strict=True) if name in self.destinations}

    def list_texts(self) -> dict[str, list[str]]:
        """Everything that a person can read in each message, by destination, oldest first."""
        texts = (
            [f"{post['text']} {post.get('blocks')}" for post in self.bot.thread_roots],
            [f"{post['text']} {post['blocks']}" for post in self.channel.posts],
            [read_mail_text(mail.message) for mail in self.mail.received],
            [request.body.decode() for request in self.pager.received],
        )
        return {name: text for name, text in zip(DESTINATIONS, texts, strict=True) if name in self.destinations}


def read_mail_text(mail: EmailMessage) -> str:
    """Its subject and its parts, as a mail client shows them."""
    parts = (mail.get_body((kind,)) for kind in ("plain", "html"))
    return "\n".join([mail["subject"], *(part.get_content() for part in parts if part is not None)])
