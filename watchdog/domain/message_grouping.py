"""Which incidents share a message at a destination: those with one cause, and those that a route groups by its
`group_by`. Pure.

A group stores what all of its incidents share: the cause, the labels of a route, or both. What a joining incident does
not share is removed, so that no message names a cause or labels that only some of its incidents have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from watchdog.domain.formatting import HOUR_MS, format_duration
from watchdog.domain.model import ProbeInfo
from watchdog.domain.shared_cause import SharedIncidentCauseKey

ALLOWED_GROUP_BY_LABELS = ("group", "kind", "severity", "probe")
"""The labels that `group_by` of a route may list."""
MAX_LABEL_GROUP_AGE_MS = 24 * HOUR_MS
"""How long a group accepts incidents with its labels, while one of its incidents is open."""
GROUPING_ROUTING_LOG_PREFIX = "grouping: "
"""Prefix of steps about shared messages. Such a step may contain the name of a probe, and notifies no one."""


class LabelGrouping(NamedTuple):
    """How a route groups an incident at a destination."""

    key: str
    """Identifies the route by what it matches, with the values of the labels."""
    labels: Mapping[str, str]
    """By name; empty: all incidents of the route are one group."""
    wait_ms: int
    """How long the first message of a group waits for further incidents."""


def get_label_values_of_probe(probe: ProbeInfo, names: Sequence[str]) -> dict[str, str]:
    """The values of a probe by label. `names`: of ALLOWED_GROUP_BY_LABELS."""
    values = {"group": probe.group, "kind": probe.kind, "severity": probe.severity.value, "probe": probe.id}
    return {name: values[name] for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageGroup:
    """Incidents that share a message at a destination."""

    lead_incident: str
    """The first one."""
    lead_probe_name: str = ""
    cause: SharedIncidentCauseKey | None
    """None: the cause is unknown, or the incidents have several."""
    label_key: str
    """Of a LabelGrouping; empty: no route groups all of them by the same labels."""
    labels: Mapping[str, str] | None
    opened_at: int
    accepts_cause_until: int
    """Until when further incidents with the same cause may join; epoch ms."""
    first_message_at: int
    """When its first message is sent at the earliest; epoch ms."""
    is_held_back: bool = False
    """Each of its incidents is held back from the destination: nothing about the group waits or was sent."""

    def accepts_labels(self, key: str, now: int) -> bool:
        return bool(key) and self.label_key == key and now < self.opened_at + MAX_LABEL_GROUP_AGE_MS

    def accepts_cause(self, cause: SharedIncidentCauseKey | None, now: int) -> bool:
        return cause is not None and self.cause == cause and now < self.accepts_cause_until


class MessageGroupReason(StrEnum):
    """Why an incident shares a message, or begins one."""

    SAME_CAUSE = "same_cause"
    """It joins incidents with the same cause. A shared cause takes precedence over labels."""
    EQUAL_LABELS = "equal_labels"
    """It joins incidents that the route groups with it, because their labels are equal."""
    WAITS_FOR_OTHERS = "waits_for_others"
    """It begins a group, whose message waits for further incidents."""
    BEGINS_GROUP = "begins_group"
    """It begins a group, whose message does not wait."""
    NOT_GROUPED = "not_grouped"
    """It is unknown what broke, and the route does not group."""


class MessageGroupDecision(NamedTuple):
    """The group of an incident at a destination, after the incident has joined it, and why."""

    group: MessageGroup | None
    """None: it has a message of its own."""
    reason: MessageGroupReason

    grouping: LabelGrouping | None
    """Of the route that leads to the destination."""

    def describe(self, now: int) -> str:
        """ "in one message with the incident of API, sent in 20 s (equal_labels: group Search)"; empty if there is
        nothing to state."""
        group, labels = self.group, "" if self.grouping is None else format_labels(self.grouping.labels)
        if group is None:
            return ""
        wait = f", sent in {format_duration(group.first_message_at - now)}" if group.first_message_at > now else ""
        if self.reason is MessageGroupReason.SAME_CAUSE:
            what = group.cause.what if group.cause is not None else ""
            return f"in one message with the incident of {group.lead_probe_name}{wait} ({self.reason}: {what})"
        suffix = f": {labels}" if labels else ""
        if self.reason is MessageGroupReason.EQUAL_LABELS:
            return f"in one message with the incident of {group.lead_probe_name}{wait} ({self.reason}{suffix})"
        if self.grouping is None:
            return ""
        return f"begins a message{wait} ({self.reason}{suffix})"


def build_grouping_steps_of_routing_log(decisions: Mapping[str, MessageGroupDecision], now: int) -> list[str]:
    """As steps of the routing log: "grouping: chat/slack, ops/email: in one message with the incident of API
    (same_cause: db:5432)". `decisions`: by destination."""
    destinations: dict[str, list[str]] = {}
    for destination, decision in decisions.items():
        if text := decision.describe(now):
            destinations.setdefault(text, []).append(destination)
    return [f"{GROUPING_ROUTING_LOG_PREFIX}{', '.join(names)}: {text}" for text, names in destinations.items()]


def format_labels(labels: Mapping[str, str]) -> str:
    """ "group Search, severity critical". An empty value is a value as well: "group none"."""
    return ", ".join(f"{name} {value or 'none'}" for name, value in labels.items())


def decide_message_group(
    incident: str,
    groups: Sequence[MessageGroup],
    cause: SharedIncidentCauseKey | None,
    grouping: LabelGrouping | None,
    *,
    cause_window_ms: int,
    now: int,
) -> MessageGroupDecision:
    """For one incident and one destination. `groups`: those at the destination with the cause or the labels of this one
    that have an incident which is open or whose alert flaps, or whose first message waits. `cause_window_ms`: for how
    long a group accepts incidents with the cause of this one, counted from its first."""
    key = grouping.key if grouping is not None else ""
    wait_ms = grouping.wait_ms if grouping is not None else 0
    same_cause = [group for group in groups if group.accepts_cause(cause, now)]
    equal_labels = [group for group in groups if group.accepts_labels(key, now)]
    in_both = [group for group in same_cause if group in equal_labels]
    for candidates, reason in (
        (in_both or same_cause, MessageGroupReason.SAME_CAUSE),
        (equal_labels, MessageGroupReason.EQUAL_LABELS),
    ):
        if candidates:
            group = min(candidates, key=lambda group: (group.opened_at, group.lead_incident))
            joined = _add_to_group(group, cause, key, cause_window_ms, now + wait_ms)
            return MessageGroupDecision(joined, reason, grouping)
    if cause is None and grouping is None:
        return MessageGroupDecision(None, MessageGroupReason.NOT_GROUPED, grouping)
    group = MessageGroup(
        lead_incident=incident, cause=cause, label_key=key, labels=None if grouping is None else grouping.labels,
        opened_at=now, accepts_cause_until=now + cause_window_ms, first_message_at=now + wait_ms,
    )  # fmt: skip
    reason = MessageGroupReason.WAITS_FOR_OTHERS if wait_ms else MessageGroupReason.BEGINS_GROUP
    return MessageGroupDecision(group, reason, grouping)


def _add_to_group(
    group: MessageGroup, cause: SharedIncidentCauseKey | None, key: str, cause_window_ms: int, sent_at: int
) -> MessageGroup:
    """`sent_at`: when the incident would be sent if it were the first. The message of a group that waits is sent at the
    earliest of these times. If all incidents were held back so far, the wait begins again."""
    has_key, has_cause = group.label_key == key, group.cause == cause
    accepts_until = max(group.accepts_cause_until, group.opened_at + cause_window_ms)
    return replace(
        group,
        cause=cause if has_cause else None,
        label_key=key if has_key else "",
        labels=group.labels if has_key else None,
        accepts_cause_until=accepts_until if has_cause else group.accepts_cause_until,
        first_message_at=sent_at if group.is_held_back else min(group.first_message_at, sent_at),
    )
