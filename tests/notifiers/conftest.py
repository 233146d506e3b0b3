"""Receivers to send to, and a way to send."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from math import inf
from typing import Protocol

import pytest

from tests.support.alert_contexts import notification_for
from tests.support.fakes import FakePagerDuty, FakeSlack, FakeWebhookReceiver
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.model import Json
from watchdog.net import NetworkAccess
from watchdog.notifiers.base import (
    DELIVERY_CONFIG_ERROR_RETRY_DURATION_S,
    NotificationDeliveryError,
    NotificationDeliveryRequest,
    Notifier,
)


class SendFixture(Protocol):
    def __call__(
        self,
        notifier: Notifier,
        context: AlertMessageContext,
        receipt: Mapping[str, Json] = {},
        partly: Mapping[str, Json] = {},
    ) -> dict[str, Json]: ...


@pytest.fixture(scope="session")
def loop_and_wire() -> Iterator[tuple[asyncio.Runner, NetworkAccess]]:
    """One network and one set of secrets for all deliveries, as in the service."""
    with asyncio.Runner() as loop:
        network = NetworkAccess()
        loop.run(network.__aenter__())
        yield loop, network
        loop.run(network.__aexit__(None, None, None))


@pytest.fixture
def send(loop_and_wire: tuple[asyncio.Runner, NetworkAccess]) -> SendFixture:
    """Deliver a notification; returns the receipt."""
    loop, network = loop_and_wire

    def deliver(
        notifier: Notifier,
        context: AlertMessageContext,
        receipt: Mapping[str, Json] = {},
        partly: Mapping[str, Json] = {},
    ) -> dict[str, Json]:
        return loop.run(
            notifier.send(NotificationDeliveryRequest(notification_for(context), context, receipt, network, partly))
        )

    return deliver


@pytest.fixture
def fail(send: SendFixture) -> SendFixture:
    """Deliver a notification that fails; returns the error for the outbox."""

    def deliver(
        notifier: Notifier,
        context: AlertMessageContext,
        receipt: Mapping[str, Json] = {},
        partly: Mapping[str, Json] = {},
    ) -> dict[str, Json]:
        with pytest.raises(NotificationDeliveryError) as caught:
            send(notifier, context, receipt, partly)
        e = caught.value
        assert e.__cause__ is None, "it may quote a secret"
        assert e.__suppress_context__ or isinstance(e.__context__, NotificationDeliveryError | None), (
            "it may quote a secret"
        )
        retried = {0: "never", DELIVERY_CONFIG_ERROR_RETRY_DURATION_S: "an hour", inf: "always"}[e.retry_for_s]
        return {"reason": e.reason, "retried": retried, "retry_after": e.retry_after_s, "message": str(e)}

    return deliver


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    with FakeSlack() as standin:
        yield standin


@pytest.fixture
def hook() -> Iterator[FakeWebhookReceiver]:
    with FakeWebhookReceiver() as standin:
        yield standin


@pytest.fixture
def pagerduty() -> Iterator[FakePagerDuty]:
    with FakePagerDuty() as standin:
        yield standin
