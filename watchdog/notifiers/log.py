"""One structured line in Watchdog's own log: for the receiver that is another program, and for trying things out."""

from __future__ import annotations

from typing import ClassVar

from watchdog.model import Event, Json
from watchdog.notifiers.base import Delivery, Notifier
from watchdog.notifiers.message import NAME, compose, one_line, plain


class Log(Notifier):
    kind: ClassVar[str] = "log"

    @property
    def address(self) -> str:
        return "log"

    async def send(self, delivery: Delivery) -> dict[str, Json]:
        import structlog

        story, message = delivery.story, compose(delivery.story)
        opened = story.event is Event.OPENED
        facts = {
            "incident": message.incident,
            "probe": one_line(story.probe.name, NAME),
            "rule": story.incident.rule,
            "subject": one_line(story.incident.subject, NAME),
            "severity": story.incident.severity.value,
            "text": message.text,
            "evidence": one_line(message.evidence, len(message.evidence)),
            "link": message.link,
            "key": one_line(delivery.notification.key, 300),
            "test": story.test,
        }
        told = {name: plain(value) if isinstance(value, str) else value for name, value in facts.items() if value}
        log = structlog.get_logger()
        (log.warning if opened else log.info)(f"incident_{story.event}", **told)
        return {}
