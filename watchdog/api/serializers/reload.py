"""A reload of the configuration as JSON."""

from __future__ import annotations

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.instants import format_optional_iso8601
from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG
from watchdog.service.config_reload import ConfigReloadOutcome


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ConfigReloadJson(TypedDict):
    """What a reload of the configuration led to."""

    result: str
    """applied; invalid: the former configuration stays; postponed: it is applied when the database is back."""
    problems: list[str]
    """Why it is invalid: place and field, without anything that the files contain. `watchdog validate` shows more."""
    changes: dict[str, int]
    """How much changed: probes that were `added`, `removed`, `changed` or `rerouted`, `destinations`, and other
    `sections`. Empty: nothing."""
    former_applied_at: str | None
    """When the configuration that this one replaced was applied; null: it was not replaced."""
    warnings: list[str]
    """What the applied configuration states that is probably a mistake, a line each."""


def serialize_config_reload(outcome: ConfigReloadOutcome) -> ConfigReloadJson:
    return {
        "result": outcome.result.value,
        "problems": list(outcome.problems),
        "changes": dict(outcome.change_counts),
        "former_applied_at": format_optional_iso8601(outcome.former_applied_at),
        "warnings": list(outcome.warnings),
    }
