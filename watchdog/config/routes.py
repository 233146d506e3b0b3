"""The section `routes` of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StrictBool, model_validator

from watchdog.config.matchers import IncidentMatchSettings
from watchdog.config.problems import build_did_you_mean_suffix
from watchdog.config_types import (
    ConfigModel,
    Duration,
    DurationOrZero,
    MultiFieldValidationError,
    create_duration_bounds_validator,
    format_config_duration,
)
from watchdog.domain import routing
from watchdog.domain.escalation import EscalationStep
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.message_grouping import ALLOWED_GROUP_BY_LABELS


class EscalationSettings(ConfigModel):
    """Further receivers to notify of an incident that is still open after a time. Each is notified once, and then of
    changes, reminders and the end of the incident like the others. A silence postpones the notification until it
    ends."""

    after: Annotated[Duration, create_duration_bounds_validator("1s", "365d")]
    """The time since the incident opened."""
    unless: Literal["acknowledged"] | None = None
    """`acknowledged`: an acknowledgement cancels the escalation. If the acknowledgement is removed, `after` counts from
    then. Default: the receivers are notified even if the incident is acknowledged."""
    receivers: Annotated[tuple[str, ...], Field(min_length=1)]
    """The names of the receivers to notify."""

    def to_escalation_step(self) -> EscalationStep:
        return EscalationStep(self.after, self.receivers, unless_acknowledged=self.unless == "acknowledged")


MAX_GROUP_WAIT_MS = HOUR_MS
GROUP_BY_LABEL_SCHEMA = Field(json_schema_extra={"enum": list(ALLOWED_GROUP_BY_LABELS)})


def _validate_group_by_label(label: str) -> str:
    if label not in ALLOWED_GROUP_BY_LABELS:
        hint = (
            build_did_you_mean_suffix(label, ALLOWED_GROUP_BY_LABELS)
            or f"; labels: {', '.join(ALLOWED_GROUP_BY_LABELS)}"
        )
        raise ValueError(f"unknown label '{label}'{hint}")
    return label


def _validate_group_wait(ms: int) -> int:
    if ms > MAX_GROUP_WAIT_MS:
        maximum = format_config_duration(MAX_GROUP_WAIT_MS)
        raise ValueError(
            f"expected at most {maximum}, found {format_config_duration(ms)}: alerts would be sent too late"
        )
    return ms


class NotificationRouteSettings(ConfigModel):
    """Sends matching incidents to receivers. Only the first matching route applies, unless it sets `continue`. When
    the cause of an incident changes, the receivers that were notified of the incident are notified of the change. If
    the routes select additional receivers for the new cause, those receivers are notified of the incident. If no
    one was notified of an open incident, it is sent once a reload or a start adds a route that leads to a receiver."""

    match: IncidentMatchSettings = IncidentMatchSettings()
    """The incidents that the route applies to; default: all."""
    receivers: Annotated[tuple[str, ...], Field(min_length=1)]
    """The names of the receivers to notify."""
    escalate: tuple[EscalationSettings, ...] = ()
    """Further receivers, which are notified if the incident is still open after a time; default: none."""
    group_by: tuple[Annotated[str, AfterValidator(_validate_group_by_label), GROUP_BY_LABEL_SCHEMA], ...] | None = None
    """The labels by which incidents share messages: `group`, `kind` and `severity` of the probe, and `probe` itself.
    Open incidents of the route with the same values share one message at a destination; `[]` groups all of them. A
    shared cause takes precedence. Default: incidents are grouped only by a shared cause (docs/grouping.md)."""
    group_wait: Annotated[DurationOrZero, AfterValidator(_validate_group_wait)] = 0
    """How long the first message of such a group waits for further incidents, also for critical ones; at most 1h."""
    continue_matching: StrictBool = Field(default=False, alias="continue")
    """Whether the routes below are also evaluated."""

    @model_validator(mode="after")
    def _validate_grouping(self) -> Self:
        if self.group_by is None and self.group_wait:
            message = "has no effect without `group_by`: add `group_by: [group]`, or remove this"
            raise MultiFieldValidationError([(("group_wait",), message)])
        if len(set(self.group_by or ())) < len(self.group_by or ()):
            raise MultiFieldValidationError([(("group_by",), "a label is listed twice: list it once")])
        for index, step in enumerate(self.escalate):
            if step.after <= self.group_wait:
                wait = format_config_duration(self.group_wait)
                message = f"expected more than `group_wait` ({wait}): the escalation would precede the first message"
                raise MultiFieldValidationError([(("escalate", index, "after"), message)])
        return self

    def to_notification_route(self) -> routing.NotificationRoute:
        return routing.NotificationRoute(
            self.receivers,
            self.match.to_probe_matcher(),
            self.continue_matching,
            self.match.reason,
            escalation_steps=tuple(step.to_escalation_step() for step in self.escalate),
            group_by=self.group_by,
            group_wait_ms=self.group_wait,
        )
