"""The JSON of Alertmanager's webhook, version 4, for receivers that read it. docs/webhook.md describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from watchdog.domain.alert_message import AlertMessageContext, IncidentWithProbe
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.model import IncidentEvent, Json
from watchdog.domain.notification import Notification
from watchdog.notifiers.message import AlertMessage, compose_alert_message, format_test_alert_prefix
from watchdog.notifiers.message_fields import (
    MAX_MESSAGE_CAUSE_CHARS,
    MAX_MESSAGE_NAME_CHARS,
    replace_nbsp,
    to_safe_single_line,
)
from watchdog.notifiers.plain_text import render_alert_text_body

ALERTMANAGER_PAYLOAD_VERSION = "4"
ALERTMANAGER_TIME_OF_NO_END = "0001-01-01T00:00:00Z"
"""`endsAt` of a firing alert."""


def build_alertmanager_payload(notification: Notification, context: AlertMessageContext) -> dict[str, Json]:
    """The JSON to post: one alert for each incident that the message is about."""
    incidents = context.members or (IncidentWithProbe(context.incident, context.probe),)
    public_url = context.incident_url.removesuffix(f"/incidents/{context.incident.id}")
    alerts = [_build_alertmanager_alert(member, context, public_url) for member in incidents]
    common_labels = _find_entries_common_to_mappings([alert["labels"] for alert in alerts])
    return {
        "version": ALERTMANAGER_PAYLOAD_VERSION,
        "groupKey": f"{notification.incident}:{notification.destination}",
        "truncatedAlerts": 0,
        "status": "resolved" if context.event is IncidentEvent.RESOLVED else "firing",
        "receiver": notification.destination.partition("/")[0],
        "groupLabels": _build_alertmanager_group_labels(context, common_labels),
        "commonLabels": common_labels,
        "commonAnnotations": _find_entries_common_to_mappings([alert["annotations"] for alert in alerts]),
        "externalURL": public_url,
        "alerts": alerts,
    }


def _build_alertmanager_group_labels(context: AlertMessageContext, common_labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of `group_by`, if a route groups the incidents by labels; otherwise the name of the probe, if all have
    the same. A label without a value is left out, as in an alert."""
    if context.group_labels is not None:
        return {name: value for name, value in context.group_labels.items() if value}
    return {name: value for name, value in common_labels.items() if name == "alertname"}


def _build_alertmanager_alert(
    member: IncidentWithProbe, context: AlertMessageContext, public_url: str
) -> dict[str, Json]:
    incident, labels = member.incident, _build_alertmanager_labels(member)
    is_over = context.event is IncidentEvent.RESOLVED or (bool(context.members) and member.is_resolved_and_not_flapping)
    return {
        "status": "resolved" if is_over else "firing",
        "labels": labels,
        "annotations": _build_alertmanager_annotations(member, context),
        "startsAt": format_iso8601(incident.since),
        "endsAt": format_iso8601(incident.resolved_at or context.now) if is_over else ALERTMANAGER_TIME_OF_NO_END,
        "generatorURL": f"{public_url}/incidents/{incident.id}" if public_url else "",
        "fingerprint": blake2b(json.dumps(labels, sort_keys=True).encode(), digest_size=8).hexdigest(),
    }


def _build_alertmanager_labels(member: IncidentWithProbe) -> dict[str, str]:
    """They identify the alert, so nothing is among them that changes while the incident is open."""
    incident, probe = member.incident, member.probe
    labels = {
        "alertname": probe.name,
        "severity": incident.severity.value,
        "probe": probe.id,
        "kind": probe.kind,
        "group": probe.group,
        "tags": ",".join(probe.tags),
        "instance": probe.target,
        "rule": incident.rule,
        "subject": incident.subject,
    }
    return {name: value for name, value in labels.items() if value}


def _build_alertmanager_annotations(member: IncidentWithProbe, context: AlertMessageContext) -> dict[str, str]:
    """What people read. The description is left out of the alerts of a message about several incidents."""
    incident, probe = member.incident, member.probe
    name = to_safe_single_line(probe.name, MAX_MESSAGE_NAME_CHARS)
    cause = to_safe_single_line(incident.message or incident.reason, MAX_MESSAGE_CAUSE_CHARS)
    annotations = {
        "summary": f"{format_test_alert_prefix(context)}{name}: {cause}",
        "description": ""
        if context.members
        else _format_headline_and_body_of_alert_message(compose_alert_message(context)),
        "reason": incident.reason,
        "incident": incident.id,
        "runbook_url": probe.runbook,
        "shared_cause": context.shared_cause,
    }
    return {name: replace_nbsp(value) for name, value in annotations.items() if value}


def _format_headline_and_body_of_alert_message(message: AlertMessage) -> str:
    return f"{message.change_text_or_headline}\n\n{render_alert_text_body(message)}"


def _find_entries_common_to_mappings(entries: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The names that have the same value in all of them."""
    first, *others = entries
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}
