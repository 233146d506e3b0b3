"""Remediations by kind, and when they run. A new kind is one class and its name here."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    model_validator,
)

from watchdog.config_types import STRING_OR_LIST_SCHEMA, ConfigModel, Duration, wrap_string_in_list
from watchdog.registry import KindRegistry
from watchdog.remediations.base import JOB_RUN_ID_REMEDIATION_PARAMETER, RemediationAction, RemediationParameters
from watchdog.remediations.http import HttpRemediation
from watchdog.remediations.mcp import McpRemediation
from watchdog.remediations.reasons import can_probe_report_reason, expand_reason_shorthand
from watchdog.remediations.sql import SqlRemediation

REMEDIATION_KINDS: KindRegistry[RemediationAction] = KindRegistry(SqlRemediation, HttpRemediation, McpRemediation)


def _validate_remediation_reason_pattern(reason: str) -> str:
    expand_reason_shorthand(reason)
    return reason


RemediationReason = Annotated[str, AfterValidator(_validate_remediation_reason_pattern)]


@REMEDIATION_KINDS.add_optional_field_per_kind_to_model
class RemediationSettings(ConfigModel):
    """An action that Watchdog runs automatically when the probe reports one of the reasons in `on`: at most once for
    each combination of incident, reason and job run. Exactly one of `sql`, `http` and `mcp`."""

    on: Annotated[
        tuple[RemediationReason, ...], BeforeValidator(wrap_string_in_list), Field(min_length=1), STRING_OR_LIST_SCHEMA
    ]
    """The reasons that trigger the action, one or a list (docs/reasons.md): a reason such as `job.stuck` or `http.503`,
    a family such as `timeout`, or a class of statuses such as `http.5xx`. For jobs, tasks, queues
    and canaries, the family can be omitted: `lost` stands for `job.lost` and `canary.lost`."""
    max_runs: Annotated[StrictInt, Field(ge=1, le=1000)] = 3
    """The maximum number of runs within `per`, for all incidents of the probe together."""
    per: Duration = 3_600_000
    """The period that `max_runs` applies to."""
    dry_run: StrictBool = False
    """Whether the action only reports what it would do, and changes nothing."""

    @model_validator(mode="after")
    def _require_one_action(self) -> Self:
        REMEDIATION_KINDS.require_one_kind_and_get_its_settings(self)
        return self

    @property
    def action(self) -> RemediationAction:
        return REMEDIATION_KINDS.require_one_kind_and_get_its_settings(self)

    def find_unreportable_reasons(self, reason_prefixes: tuple[str, ...]) -> list[str]:
        """The entries of `on` that the probe can never report. `reason_prefixes`: see `can_probe_report_reason`."""
        return [
            word
            for word in self.on
            if not any(can_probe_report_reason(reason, reason_prefixes) for reason in expand_reason_shorthand(word))
        ]

    @property
    def reason_patterns(self) -> frozenset[str]:
        return frozenset(reason for word in self.on for reason in expand_reason_shorthand(word))


__all__ = [
    "JOB_RUN_ID_REMEDIATION_PARAMETER",
    "REMEDIATION_KINDS",
    "RemediationAction",
    "RemediationParameters",
    "RemediationSettings",
    "SqlRemediation",
]
