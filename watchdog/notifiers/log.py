"""Writes an alert as one structured line to Watchdog's own log, for other programs and for trying things out."""

from __future__ import annotations

from typing import ClassVar

from watchdog.domain.model import IncidentEvent, Json
from watchdog.notifiers.base import NotificationDeliveryRequest, Notifier
from watchdog.notifiers.message import compose_alert_message
from watchdog.notifiers.message_fields import MAX_MESSAGE_NAME_CHARS, replace_nbsp, to_safe_single_line


class LogNotifier(Notifier):
    """Writes one structured line per notification to Watchdog's own log, for log pipelines and for testing.
    Takes no fields."""

    kind: ClassVar[str] = "log"
    example: ClassVar[str] = """
        receivers:
          journal: {log: {}}
    """

    @property
    def recipient(self) -> str:
        return "log"

    async def send(self, request: NotificationDeliveryRequest) -> dict[str, Json]:
        import structlog

        context, message = request.alert_context, compose_alert_message(request.alert_context)
        fields = {
            "incident": message.incident_id,
            "probe_name": to_safe_single_line(context.probe.name, MAX_MESSAGE_NAME_CHARS),
            "rule": context.incident.rule,
            "subject": to_safe_single_line(context.incident.subject, MAX_MESSAGE_NAME_CHARS),
            "severity": context.incident.severity.value,
            "text": message.summary_text,
            "members": "; ".join(line.text for line in message.members),
            "evidence": to_safe_single_line(message.evidence, len(message.evidence)),
            "incident_url": message.incident_url,
            "probe_url": message.probe_url,
            "notification_key": to_safe_single_line(request.notification.idempotency_key, 300),
            "is_test": context.is_test,
        }
        entry = {
            name: replace_nbsp(value) if isinstance(value, str) else value for name, value in fields.items() if value
        }
        log = structlog.get_logger()
        write = log.info if context.event is IncidentEvent.RESOLVED else log.warning
        write(f"alert_{context.event}", **entry)
        return {}
