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
    """Why it is invalid: place and field, without any content of the files. `watchdog validate` shows details."""
    changes: dict[str, int]
    """The number of changes by kind: `added`, `removed`, `changed` and `rerouted` probes, `destinations`, and other
    `sections`. Empty: nothing has changed."""
    former_applied_at: str | None
    """When the former configuration was applied; null: it is still in use."""
    former_changes: dict[str, int]
    """The number of changes that the former configuration made when it was applied; empty: it is that of the start."""
    warnings: list[str]
    """Probable mistakes in the applied configuration, one line each."""


def serialize_config_reload(outcome: ConfigReloadOutcome) -> ConfigReloadJson:
    return {
        "result": outcome.result.value,
        "problems": list(outcome.problems),
        "changes": dict(outcome.change_counts),
        "former_applied_at": format_optional_iso8601(outcome.former_applied_at),
        "former_changes": dict(outcome.former_change_counts),
        "warnings": list(outcome.warnings),
    }
