"""Notifiers by kind. A new kind is one file and one name in the union: receivers, schema and documentation follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, get_args

from watchdog.notifiers.base import DeliveryError, DeliveryRequest, Notifier
from watchdog.notifiers.email import EmailNotifier, SmtpServerSettings
from watchdog.notifiers.log import LogNotifier
from watchdog.notifiers.slack import SlackNotifier
from watchdog.notifiers.webhook import WebhookNotifier

AnyNotifier: TypeAlias = SlackNotifier | EmailNotifier | WebhookNotifier | LogNotifier

NOTIFIER_KINDS: Mapping[str, type[Notifier]] = {notifier.kind: notifier for notifier in get_args(AnyNotifier)}

__all__ = [
    "NOTIFIER_KINDS",
    "AnyNotifier",
    "DeliveryError",
    "DeliveryRequest",
    "EmailNotifier",
    "LogNotifier",
    "Notifier",
    "SlackNotifier",
    "SmtpServerSettings",
    "WebhookNotifier",
]
