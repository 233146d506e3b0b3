"""Notifiers by kind. A new kind is one file and one name in the union: receivers, schema and documentation follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, get_args

from watchdog.notifiers.base import Delivery, DeliveryError, Notifier
from watchdog.notifiers.email import Email, EmailServer
from watchdog.notifiers.log import Log
from watchdog.notifiers.slack import Slack
from watchdog.notifiers.webhook import Webhook

AnyNotifier: TypeAlias = Slack | Email | Webhook | Log

KINDS: Mapping[str, type[Notifier]] = {notifier.kind: notifier for notifier in get_args(AnyNotifier)}

__all__ = [
    "KINDS", "AnyNotifier", "Delivery", "DeliveryError", "Email", "EmailServer", "Log", "Notifier", "Slack", "Webhook",
]  # fmt: skip
