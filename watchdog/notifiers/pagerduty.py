"""Events for PagerDuty (Events API v2): an alert is triggered, updated, acknowledged and resolved under one key."""

from __future__ import annotations

import json
import re
from typing import ClassVar

from pydantic import field_validator

from watchdog.config_types import Secret
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.model import IncidentEvent, Json
from watchdog.domain.notification import Notification
from watchdog.domain.text import truncate_at_word
from watchdog.net.url import HttpUrl, parse_http_url
from watchdog.notifiers.base import (
    DELIVERY_CONFIG_ERROR_RETRY_DURATION_S,
    NotificationDeliveryError,
    NotificationDeliveryRequest,
    Notifier,
)
from watchdog.notifiers.message import AlertMessage, compose_alert_message
from watchdog.notifiers.message_fields import (
    MAX_MESSAGE_CAUSE_CHARS,
    MAX_MESSAGE_NAME_CHARS,
    replace_nbsp,
    to_safe_single_line,
)
from watchdog.notifiers.post import (
    NotificationResponse,
    build_delivery_error_from_status,
    post_notification_json_without_status_check,
)
from watchdog.notifiers.shared_message import find_highest_incident_severity

PAGERDUTY_ACCEPTED_HTTP_STATUS = 202
MAX_PAGERDUTY_SUMMARY_CHARS, MAX_PAGERDUTY_DEDUP_KEY_CHARS, MAX_PAGERDUTY_EVENT_BYTES = 1_024, 255, 512 * 1024
"""The API's limits."""
MAX_PAGERDUTY_LINK_CHARS = 1_000
MAX_PAGERDUTY_INCIDENT_LINES = 50
"""Lines about the incidents of a group. The limits of `AlertMessage` keep the event far below that of the API."""
_PAGERDUTY_ROUTING_KEY_PATTERN = re.compile(r"[A-Za-z0-9]{32}")


class PagerDutyNotifier(Notifier):
    """Triggers an alert in PagerDuty when an incident opens, acknowledges it when the incident is acknowledged, and
    resolves it when the incident is over. An incident that was resolved before its alert could be triggered triggers
    none. PagerDuty has no event for the removal of an acknowledgement. Reminders are left to PagerDuty."""

    kind: ClassVar[str] = "pagerduty"
    example: ClassVar[str] = """
        receivers:
          oncall: {pagerduty: {routing_key: "${PAGERDUTY_ROUTING_KEY}"}}
    """

    routing_key: Secret
    """The integration key of an "Events API v2" integration of a service in PagerDuty: 32 letters and digits."""
    api_url: HttpUrl = "https://events.pagerduty.com/v2/enqueue"
    """The URL of the Events API; for accounts in the EU `https://events.eu.pagerduty.com/v2/enqueue`."""

    @field_validator("routing_key")
    @classmethod
    def _validate_routing_key(cls, routing_key: Secret) -> Secret:
        if not _PAGERDUTY_ROUTING_KEY_PATTERN.fullmatch(routing_key.get_secret_value()):
            raise ValueError(
                "expected the integration key of an `Events API v2` integration, which has 32 letters and digits: copy "
                "it from the integrations of the service in PagerDuty"
            )
        return routing_key

    @property
    def recipient(self) -> str:
        return parse_http_url(self.api_url).host

    @property
    def accepts_merged_messages(self) -> bool:
        """An alert has one key, under which one incident or group is resolved."""
        return False

    @property
    def repeats_alerts(self) -> bool:
        """PagerDuty notifies people again until they acknowledge the alert."""
        return True

    @property
    def tracks_acknowledgements(self) -> bool:
        """PagerDuty stops notifying people of an alert that is acknowledged."""
        return True

    async def send(self, request: NotificationDeliveryRequest) -> dict[str, Json]:
        event = build_pagerduty_event(self.routing_key.get_secret_value(), request.notification, request.alert_context)
        body = json.dumps(event, ensure_ascii=False).encode("utf-8", "replace")
        response = await post_notification_json_without_status_check(
            request.network, self.api_url, body, {}, now=request.alert_context.now
        )
        _require_pagerduty_accepted_event(response)
        return {}


def build_pagerduty_event(
    routing_key: str, notification: Notification, context: AlertMessageContext
) -> dict[str, Json]:
    """The JSON to post. All events of an incident, or of a group of incidents, at a destination have one `dedup_key`:
    another destination may have grouped the incident differently, and must not resolve this alert."""
    dedup_key = f"{notification.incident}:{notification.destination}"[:MAX_PAGERDUTY_DEDUP_KEY_CHARS]
    event: dict[str, Json] = {"routing_key": routing_key, "dedup_key": dedup_key}
    if context.event is IncidentEvent.RESOLVED:
        return event | {"event_action": "resolve"}
    if context.event is IncidentEvent.ACKNOWLEDGED:
        return event | {"event_action": "acknowledge"}
    message = compose_alert_message(context)
    links = [{"href": url, "text": label} for label, url in message.links if len(url) <= MAX_PAGERDUTY_LINK_CHARS]
    event |= {"event_action": "trigger", "client": "Watchdog", "links": links}
    event["payload"] = _build_pagerduty_payload(message, context)
    return event


def _build_pagerduty_payload(message: AlertMessage, context: AlertMessageContext) -> dict[str, Json]:
    incident, probe = context.incident, context.probe
    source = context.shared_cause or probe.target or probe.name or probe.id
    component = "" if context.members else probe.name
    payload = {
        "summary": truncate_at_word(replace_nbsp(message.change_text_or_headline), MAX_PAGERDUTY_SUMMARY_CHARS),
        "source": to_safe_single_line(source, MAX_MESSAGE_CAUSE_CHARS) or "Watchdog",
        "severity": find_highest_incident_severity(context).value,
        "timestamp": format_iso8601(incident.since),
        "component": to_safe_single_line(component, MAX_MESSAGE_NAME_CHARS),
        "group": to_safe_single_line(probe.group, MAX_MESSAGE_NAME_CHARS),
        "class": to_safe_single_line(incident.reason, MAX_MESSAGE_NAME_CHARS),
        "custom_details": _build_pagerduty_details(message),
    }
    return {name: value for name, value in payload.items() if value}


def _build_pagerduty_details(message: AlertMessage) -> dict[str, Json]:
    """The facts, by label. A label that several fields have, such as "Expected", has a line for each."""
    details: dict[str, str] = {"Note": message.notice} if message.notice else {}
    for field in (*message.main_fields, *message.attribute_fields):
        line = replace_nbsp(field.joined_code_and_text)
        details[field.label] = f"{details[field.label]}\n{line}" if field.label in details else line
    lines = [line.text for line in message.members[:MAX_PAGERDUTY_INCIDENT_LINES]]
    if more := sum(line.incident_count for line in message.members[MAX_PAGERDUTY_INCIDENT_LINES:]):
        lines.append(f"and {more:,} more: Watchdog's pages list them")
    if lines:
        details["Incidents"] = replace_nbsp("\n".join(lines))
    if message.evidence:
        details[f"{message.evidence_title} (includes untrusted text from the target)"] = message.evidence
    return {**details, "Incident id": message.incident_id}


def _require_pagerduty_accepted_event(response: NotificationResponse) -> None:
    """Raises NotificationDeliveryError unless PagerDuty confirms that it has accepted the event."""
    body = response.json_or_text_body
    fields = body if isinstance(body, dict) else {}
    if response.status == PAGERDUTY_ACCEPTED_HTTP_STATUS and fields.get("status") == "success":
        return
    error = build_delivery_error_from_status(response)
    if error is None:
        raise NotificationDeliveryError("delivery.invalid_response", "the response does not come from PagerDuty")
    if response.status == 400:
        explanation = _format_pagerduty_refusal(fields)
        is_about_key = not explanation or "routing" in explanation.lower()
        raise NotificationDeliveryError(
            error.reason,
            f"PagerDuty refuses the event: {explanation}" if explanation else str(error),
            retry_for_s=DELIVERY_CONFIG_ERROR_RETRY_DURATION_S if is_about_key else 0,
        )
    raise error


def _format_pagerduty_refusal(fields: dict[str, Json]) -> str:
    """The API's message and its errors; empty if the response has none."""
    errors = fields.get("errors")
    texts = [fields.get("message"), *(errors if isinstance(errors, list) else [errors])]
    return to_safe_single_line("; ".join(text for text in texts if isinstance(text, str)), MAX_MESSAGE_CAUSE_CHARS)
