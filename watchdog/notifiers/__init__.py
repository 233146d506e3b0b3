"""Notifiers by kind. A new kind is one file and one name in `NOTIFIER_KINDS`; receivers, schema and documentation
follow."""

from __future__ import annotations

from watchdog.notifiers.apprise import AppriseNotifier
from watchdog.notifiers.base import NotificationDeliveryError, NotificationDeliveryRequest, Notifier
from watchdog.notifiers.email import EmailNotifier, SmtpServerSettings
from watchdog.notifiers.log import LogNotifier
from watchdog.notifiers.pagerduty import PagerDutyNotifier
from watchdog.notifiers.slack import SlackNotifier
from watchdog.notifiers.webhook import WebhookNotifier
from watchdog.registry import KindRegistry

NOTIFIER_KINDS: KindRegistry[Notifier] = KindRegistry(
    SlackNotifier, EmailNotifier, PagerDutyNotifier, WebhookNotifier, AppriseNotifier, LogNotifier
)

__all__ = [
    "NOTIFIER_KINDS",
    "AppriseNotifier",
    "EmailNotifier",
    "LogNotifier",
    "NotificationDeliveryError",
    "NotificationDeliveryRequest",
    "Notifier",
    "PagerDutyNotifier",
    "SlackNotifier",
    "SmtpServerSettings",
    "WebhookNotifier",
]
