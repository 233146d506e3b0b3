"""Remediations by kind, and when they run. A new kind is one class and its name here."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    WithJsonSchema,
    model_validator,
)

from watchdog.config_types import ConfigModel, Duration
from watchdog.registry import Registry
from watchdog.remediations.base import RUN_ID_PARAMETER, RemediationAction, RemediationContext
from watchdog.remediations.http import HttpRemediation
from watchdog.remediations.mcp import McpRemediation
from watchdog.remediations.reasons import can_report, expand_reason
from watchdog.remediations.sql import SqlRemediation

REMEDIATION_KINDS: Registry[RemediationAction] = Registry(SqlRemediation, HttpRemediation, McpRemediation)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _validate_reason(reason: str) -> str:
    expand_reason(reason)
    return reason


RemediationReason = Annotated[str, AfterValidator(_validate_reason)]
_STRING_OR_LIST_SCHEMA = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
)


@REMEDIATION_KINDS.add_fields
class RemediationSettings(ConfigModel):
    """An action that Watchdog runs automatically when the probe reports one of the reasons in `on`: at most once for
    each combination of incident, reason and job run. Exactly one of `sql`, `http` and `mcp`."""

    on: Annotated[tuple[RemediationReason, ...], BeforeValidator(_as_list), Field(min_length=1), _STRING_OR_LIST_SCHEMA]
    """The reasons that trigger it, one or a list, such as `job.stuck` or `canary.not_picked_up` (docs/reasons.md). The
    family can be omitted for jobs, tasks, queues and canaries: `stuck`."""
    max_runs: Annotated[StrictInt, Field(ge=1, le=1000)] = 3
    """The maximum number of runs within `per`, for all incidents of the probe together."""
    per: Duration = 3_600_000
    """The period that `max_runs` applies to."""
    dry_run: StrictBool = False
    """Whether it only reports what it would do, and changes nothing."""

    @model_validator(mode="after")
    def _require_one_action(self) -> Self:
        REMEDIATION_KINDS.exactly_one(self)
        return self

    @property
    def action(self) -> RemediationAction:
        return REMEDIATION_KINDS.exactly_one(self)

    def unsupported_reasons(self, reason_prefixes: tuple[str, ...]) -> list[str]:
        """The entries of `on` that the probe can never report. `reason_prefixes`: see `can_report`."""
        return [
            word for word in self.on if not any(can_report(reason, reason_prefixes) for reason in expand_reason(word))
        ]

    @property
    def expanded_reasons(self) -> frozenset[str]:
        return frozenset(reason for word in self.on for reason in expand_reason(word))


__all__ = [
    "REMEDIATION_KINDS",
    "RUN_ID_PARAMETER",
    "RemediationAction",
    "RemediationContext",
    "RemediationSettings",
    "SqlRemediation",
]
