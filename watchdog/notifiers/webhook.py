"""A signed JSON document, posted to a URL. docs/webhook.md describes it to receivers."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import quote

from pydantic import field_validator

from watchdog.fields import Secret
from watchdog.model import Json, Run, Sample, Story
from watchdog.notifiers.base import Delivery, Notifier
from watchdog.notifiers.message import compose, plain
from watchdog.notifiers.post import Url, post, refusal
from watchdog.wire.url import parse_url
from watchdog.words import iso

VERSION = 1
OWN = frozenset(
    {"content-length", "content-type", "host", "idempotency-key", "transfer-encoding", "watchdog-signature"}
)
"""Headers that are ours to set."""


class Webhook(Notifier):
    kind: ClassVar[str] = "webhook"

    url: Url
    secret: Secret | None = None
    """Signs every message with HMAC-SHA256: header `Watchdog-Signature`."""
    headers: Mapping[str, str] = {}
    """Sent along, for receivers that want a token."""

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in headers.items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise ValueError(f"{name!r} is not a header's name")
            if name.lower() in OWN:
                raise ValueError(f"the header {name} is set by Watchdog")
            if not re.fullmatch(r"[\x21-\x7e]([\t\x20-\x7e]*[\x21-\x7e])?", value):
                raise ValueError(f"the value of header {name} is not plain printable text")
        return headers

    @property
    def address(self) -> str:
        return parse_url(self.url).host

    async def send(self, delivery: Delivery) -> dict[str, Json]:
        story, key = delivery.story, delivery.notification.key
        body = json.dumps(document(key, story)).encode("ascii")
        headers = dict(self.headers)
        headers["idempotency-key"] = quote(key, safe=":/")
        if self.secret is not None:
            headers["watchdog-signature"] = signature(self.secret.get_secret_value(), story.now // 1_000, body)
        refused = refusal(await post(delivery.wire, self.url, body, headers, now=story.now))
        if refused is not None:
            raise refused
        return {}


def signature(secret: str, at: int, body: bytes) -> str:
    """ "t=1795312172,v1=<hex>": HMAC-SHA256 over "<t>.<body>". `at`: epoch seconds."""
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"


def document(key: str, story: Story) -> dict[str, Json]:
    """What is posted. Fields are only ever added within a version."""
    incident, probe, message = story.incident, story.probe, compose(story)
    return {
        "version": VERSION,
        "event": story.event,
        "key": key,
        "sent_at": _time(story.now),
        "test": story.test,
        "merged": story.merged,
        "title": plain(message.title),
        "text": message.text,
        "incident": {
            "id": incident.id,
            "state": incident.state,
            "rule": incident.rule,
            "subject": incident.subject,
            "severity": incident.severity,
            "reason": incident.reason,
            "message": plain(incident.message),
            "since": _time(incident.since),
            "opened_at": _time(incident.opened_at),
            "resolved_at": _time(incident.resolved_at),
            "resolution": incident.resolution,
            "bad_results": story.streak,
            "needed": story.needed,
            "url": story.link or None,
        },
        "probe": {
            "key": probe.key,
            "name": probe.name,
            "kind": probe.kind,
            "group": probe.group,
            "tags": list(probe.tags),
            "target": probe.target,
            "cadence": probe.cadence,
            "location": story.location,
            "runbook": probe.runbook or None,
        },
        "last_good": _run(story.last_good),
        "recent": [_run(run) for run in story.recent],
        "evidence": {"text": message.evidence, "first_bad": _sample(story.first_bad), "latest": _sample(story.latest)},
    }


def _time(at: int | None) -> str | None:
    return None if at is None else iso(at)


def _run(run: Run | None) -> Json:
    return None if run is None else {"slot": _time(run.slot), "outcome": run.outcome, "duration_ms": run.duration}


def _sample(sample: Sample | None) -> Json:
    if sample is None:
        return None
    return {
        "slot": _time(sample.slot),
        "location": sample.location,
        "outcome": sample.outcome,
        "reason": sample.reason,
        "message": plain(sample.message),
        "duration_ms": sample.duration,
        "facts": dict(sample.evidence.facts),
        "excerpt": sample.evidence.excerpt,
    }
