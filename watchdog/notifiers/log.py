"""One structured line in Watchdog's own log: for the receiver that is another program, and for trying things out."""

from __future__ import annotations

from typing import ClassVar

from watchdog.domain.model import IncidentEvent, Json
from watchdog.notifiers.base import DeliveryRequest, Notifier
from watchdog.notifiers.message import MAX_NAME_CHARS, compose_message, replace_nbsp, safe_line


class LogNotifier(Notifier):
    kind: ClassVar[str] = "log"

    @property
    def recipient(self) -> str:
        return "log"

    async def send(self, request: DeliveryRequest) -> dict[str, Json]:
        import structlog

        story, message = request.alert_context, compose_message(request.alert_context)
        opened = story.event is IncidentEvent.OPENED
        facts = {
            "incident": message.incident_id,
            "probe": safe_line(story.probe.name, MAX_NAME_CHARS),
            "rule": story.incident.rule,
            "subject": safe_line(story.incident.subject, MAX_NAME_CHARS),
            "severity": story.incident.severity.value,
            "text": message.summary_text,
            "evidence": safe_line(message.evidence, len(message.evidence)),
            "link": message.incident_url,
            "key": safe_line(request.notification.idempotency_key, 300),
            "test": story.is_test,
        }
        told = {
            name: replace_nbsp(value) if isinstance(value, str) else value for name, value in facts.items() if value
        }
        log = structlog.get_logger()
        (log.warning if opened else log.info)(f"incident_{story.event}", **told)
        return {}
