"""Receivers to send to, and a way to send."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from math import inf
from typing import Protocol

import pytest

from tests.notifiers.stories import told
from tests.standins import HookStandIn, SlackStandIn
from watchdog.model import Json, Story
from watchdog.notifiers.base import MENDING, Delivery, DeliveryError, Notifier
from watchdog.wire import Wire


class Send(Protocol):
    def __call__(
        self, notifier: Notifier, story: Story, receipt: Mapping[str, Json] = {}, partly: Mapping[str, Json] = {}
    ) -> dict[str, Json]: ...


@pytest.fixture(scope="session")
def loop_and_wire() -> Iterator[tuple[asyncio.Runner, Wire]]:
    """One of each for all deliveries, as in a service."""
    with asyncio.Runner() as loop:
        wire = Wire()
        loop.run(wire.__aenter__())
        yield loop, wire
        loop.run(wire.__aexit__(None, None, None))


@pytest.fixture
def send(loop_and_wire: tuple[asyncio.Runner, Wire]) -> Send:
    """Deliver a story; returns the receipt."""
    loop, wire = loop_and_wire

    def deliver(
        notifier: Notifier, story: Story, receipt: Mapping[str, Json] = {}, partly: Mapping[str, Json] = {}
    ) -> dict[str, Json]:
        return loop.run(notifier.send(Delivery(told(story), story, receipt, wire, partly)))

    return deliver


@pytest.fixture
def fail(send: Send) -> Send:
    """Deliver a story in vain; returns what the outbox needs to know of the failure."""

    def deliver(
        notifier: Notifier, story: Story, receipt: Mapping[str, Json] = {}, partly: Mapping[str, Json] = {}
    ) -> dict[str, Json]:
        with pytest.raises(DeliveryError) as caught:
            send(notifier, story, receipt, partly)
        e = caught.value
        assert e.__cause__ is None, "it may quote a secret"
        assert e.__suppress_context__ or isinstance(e.__context__, DeliveryError | None), "it may quote a secret"
        retried = {0: "never", MENDING: "an hour", inf: "always"}[e.retry_for]
        return {"reason": e.reason, "retried": retried, "retry_after": e.retry_after, "message": str(e)}

    return deliver


@pytest.fixture
def slack() -> Iterator[SlackStandIn]:
    with SlackStandIn() as standin:
        yield standin


@pytest.fixture
def hook() -> Iterator[HookStandIn]:
    with HookStandIn() as standin:
        yield standin
