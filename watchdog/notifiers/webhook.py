"""A signed JSON document, posted to a URL. docs/webhook.md describes it to receivers."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import ClassVar, Literal
from urllib.parse import quote

from pydantic import field_validator

from watchdog.config_types import MultiFieldValidationError, Secret
from watchdog.domain.advice import find_advice
from watchdog.domain.alert_message import AlertMessageContext, IncidentWithProbe
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.model import Incident, Json, ResultWithEvidence, RunSummary
from watchdog.expressions import compile_expression
from watchdog.net.auth import find_header_problems
from watchdog.net.url import HttpUrl, parse_http_url
from watchdog.notifiers.alertmanager import build_alertmanager_payload
from watchdog.notifiers.base import NotificationDeliveryRequest, Notifier
from watchdog.notifiers.message import compose_alert_message
from watchdog.notifiers.message_fields import replace_nbsp
from watchdog.notifiers.post import (
    WEBHOOK_NOTIFIER_CONFIRM_VARIABLE_TYPES,
    build_delivery_error_from_status,
    post_notification_json_without_status_check,
    require_response_confirms_notification,
)

WEBHOOK_PAYLOAD_VERSION = 1
RESERVED_WEBHOOK_HEADERS = frozenset(
    {"content-length", "content-type", "host", "idempotency-key", "transfer-encoding", "watchdog-signature"}
)
"""Headers that Watchdog sets itself."""


class WebhookNotifier(Notifier):
    """Posts every event of an incident as JSON to a URL (docs/webhook.md)."""

    kind: ClassVar[str] = "webhook"
    example: ClassVar[str] = """
        receivers:
          pager: {webhook: {url: "https://events.acme.example/alert", secret: "${WEBHOOK_SECRET}"}}
          bridge: {webhook: {url: "https://bridge.acme.example/alertmanager", format: alertmanager}}
    """

    url: HttpUrl
    """The URL to post to; http:// or https://."""
    format: Literal["watchdog", "alertmanager"] = "watchdog"
    """The JSON document: Watchdog's own, or that of Alertmanager's webhook (version 4), for programs that read it."""
    secret: Secret | None = None
    """The key that every message is signed with. The `Watchdog-Signature` header contains the signature
    (HMAC-SHA256)."""
    headers: Mapping[str, str] = {}
    """Additional request headers, for example one that contains an access token."""
    confirm: str | None = None
    """A CEL expression over the `status`, `headers` and `body` of a 2xx response: true if the notification was
    delivered; default: true unless the body is an HTML document or JSON with `ok: false`."""

    @field_validator("headers")
    @classmethod
    def _validate_headers(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        if errors := find_header_problems(headers, RESERVED_WEBHOOK_HEADERS, ascii_only=True):
            raise MultiFieldValidationError(errors)
        return headers

    @field_validator("confirm")
    @classmethod
    def _validate_confirm(cls, confirm: str | None) -> str | None:
        if confirm is not None:
            compile_expression(confirm, WEBHOOK_NOTIFIER_CONFIRM_VARIABLE_TYPES)
        return confirm

    @property
    def recipient(self) -> str:
        return parse_http_url(self.url).host

    @property
    def accepts_merged_messages(self) -> bool:
        """A group of alerts has one `groupKey`, under which one incident or group ends."""
        return self.format == "watchdog"

    async def send(self, request: NotificationDeliveryRequest) -> dict[str, Json]:
        context, key = request.alert_context, request.notification.idempotency_key
        if self.format == "alertmanager":
            payload = build_alertmanager_payload(request.notification, context)
        else:
            payload = build_webhook_payload(key, context)
        body = json.dumps(payload).encode("ascii")
        headers = dict(self.headers)
        headers["idempotency-key"] = quote(key, safe=":/")
        if self.secret is not None:
            headers["watchdog-signature"] = sign_webhook_payload(
                self.secret.get_secret_value(), context.now // 1_000, body
            )
        response = await post_notification_json_without_status_check(
            request.network, self.url, body, headers, now=context.now
        )
        if error := build_delivery_error_from_status(response):
            raise error
        confirm = (
            None if self.confirm is None else compile_expression(self.confirm, WEBHOOK_NOTIFIER_CONFIRM_VARIABLE_TYPES)
        )
        require_response_confirms_notification(response, confirm)
        return {}


def sign_webhook_payload(secret: str, signed_at_s: int, body: bytes) -> str:
    """ "t=1795312172,v1=<hex>": HMAC-SHA256 over "<t>.<body>"."""
    mac = hmac.new(secret.encode(), f"{signed_at_s}.".encode() + body, hashlib.sha256)
    return f"t={signed_at_s},v1={mac.hexdigest()}"


def build_webhook_payload(idempotency_key: str, context: AlertMessageContext) -> dict[str, Json]:
    """The JSON to post. Within a version, fields are only ever added."""
    message = compose_alert_message(context)
    return {
        "version": WEBHOOK_PAYLOAD_VERSION,
        "event": context.event,
        "idempotency_key": idempotency_key,
        "sent_at": format_iso8601(context.now),
        "test": context.is_test,
        "merged": context.merged,
        "escalated_after_ms": context.escalated_after_ms,
        "muted_probes": list(context.muted_probe_names),
        "flapping": _serialize_webhook_flapping(context),
        "title": replace_nbsp(message.title),
        "text": message.summary_text,
        "incident": _serialize_webhook_incident(context),
        "probe": _serialize_webhook_probe(context),
        "last_good": _serialize_webhook_probe_run(context.last_good),
        "recent": [_serialize_webhook_probe_run(run) for run in context.recent_runs],
        "shared_cause": context.shared_cause or None,
        "group_labels": None if context.group_labels is None else dict(context.group_labels),
        "members": [_serialize_webhook_member(member) for member in context.members],
        "evidence": {
            "text": message.evidence,
            "first_bad": _serialize_webhook_result(context.first_bad),
            "latest": _serialize_webhook_result(context.latest),
        },
    }


def _serialize_webhook_member(member: IncidentWithProbe) -> dict[str, Json]:
    incident, probe = member.incident, member.probe
    return {
        "incident": _serialize_webhook_incident_summary(incident),
        "probe": {"id": probe.id, "name": probe.name, "kind": probe.kind, "target": probe.target},
    }


def _serialize_webhook_incident_summary(incident: Incident) -> dict[str, Json]:
    """What the message states of each of its incidents."""
    return {
        "id": incident.id,
        "state": incident.state,
        "rule": incident.rule,
        "subject": incident.subject,
        "severity": incident.severity,
        "reason": incident.reason,
        "message": replace_nbsp(incident.message),
        "since": format_iso8601(incident.since),
        "resolved_at": None if incident.resolved_at is None else format_iso8601(incident.resolved_at),
    }


def _serialize_webhook_flapping(context: AlertMessageContext) -> Json:
    if (flapping := context.flapping) is None:
        return None
    return {
        "since": format_iso8601(flapping.began_at),
        "incident_count": flapping.incident_count,
        "changed_at": format_iso8601(flapping.changed_at),
        "ended_at": None if flapping.ended_at is None else format_iso8601(flapping.ended_at),
        "replaced_incidents": list(context.replaced_incidents),
    }


def _serialize_webhook_incident(context: AlertMessageContext) -> dict[str, Json]:
    incident = context.incident
    return {
        **_serialize_webhook_incident_summary(incident),
        "first_reason": incident.first_reason or incident.reason,
        "first_message": replace_nbsp(incident.opening_cause_message),
        "opened_at": format_iso8601(incident.opened_at),
        "resolution": incident.resolution,
        "closed_by": None if incident.closure is None else incident.closure.actor.name,
        "closure_comment": None if incident.closure is None else incident.closure.comment,
        "bad_count": context.bad_count,
        "threshold": context.threshold,
        "url": context.incident_url or None,
        "advice": find_advice(incident, context.probe, context.latest or context.first_bad) or None,
        "other_destinations": [name for name, _ in context.other_destinations],
    }


def _serialize_webhook_probe(context: AlertMessageContext) -> dict[str, Json]:
    probe = context.probe
    return {
        "id": probe.id,
        "name": probe.name,
        "kind": probe.kind,
        "group": probe.group,
        "tags": list(probe.tags),
        "target": probe.target,
        "cadence": probe.schedule_text,
        "location": context.location,
        "runbook": probe.runbook or None,
        "url": context.probe_url or None,
    }


def _serialize_webhook_probe_run(run: RunSummary | None) -> Json:
    if run is None:
        return None
    return {"slot": format_iso8601(run.slot), "outcome": run.outcome, "duration_ms": run.duration}


def _serialize_webhook_result(result: ResultWithEvidence | None) -> Json:
    if result is None:
        return None
    return {
        "slot": format_iso8601(result.slot),
        "location": result.location,
        "outcome": result.outcome,
        "reason": result.reason,
        "message": replace_nbsp(result.message),
        "duration_ms": result.duration,
        "facts": dict(result.evidence.facts),
        "excerpt": result.evidence.excerpt,
    }
