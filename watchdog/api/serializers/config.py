"""A configuration that was checked, and what it would change, as JSON."""

from __future__ import annotations

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG
from watchdog.service.config_check import ConfigCheckOutcome


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ConfigCheckJson(TypedDict):
    """Whether a configuration is valid."""

    is_valid: bool
    problems: list[str]
    """Position, field and what is wrong, without values. `watchdog validate` shows more."""
    warnings: list[str]
    """What is valid but has no effect, in the same form."""


def serialize_config_check(outcome: ConfigCheckOutcome) -> ConfigCheckJson:
    return {
        "is_valid": outcome.loaded_config is not None,
        "problems": list(outcome.problems),
        "warnings": list(outcome.warnings),
    }


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ConfigFieldChangeJson(TypedDict):
    """A field of the configuration. Secrets in values are masked."""

    path: str
    before: str | None
    """null: the field was added."""
    after: str | None
    """null: the field was removed."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ProbeConfigChangeJson(TypedDict):
    """A probe with another configuration."""

    probe: str
    fields: list[ConfigFieldChangeJson]
    """Empty: the values of variables differ."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ConfigSectionChangeJson(TypedDict):
    """A section of the configuration other than `probes`."""

    section: str
    fields: list[ConfigFieldChangeJson]
    """Empty: the values of variables differ."""


SuspectedProbeRenameJson = TypedDict("SuspectedProbeRenameJson", {"from": str, "to": str, "target": str})
"""A removed and an added probe with the same target. `id: <from>` would keep the history and the incidents."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ProbeRoutingChangeJson(TypedDict):
    """Who is notified of the future incidents of a probe."""

    probe: str
    before: list[str]
    """Destinations, such as `oncall/slack`."""
    after: list[str]


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class IncidentRoutingChangeJson(ProbeRoutingChangeJson):
    """Who was notified of an open incident, and to whom the new routes lead."""

    incident: str


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class DestinationChangesJson(TypedDict):
    """Destinations by what happens to them."""

    added: list[str]
    removed: list[str]
    changed: list[str]


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ConfigChangesJson(TypedDict):
    """What a reload would change."""

    is_changed: bool
    added: list[str]
    """Ids of probes."""
    removed: list[str]
    changed: list[ProbeConfigChangeJson]
    renamed: list[SuspectedProbeRenameJson]
    """Also in `added` and `removed`."""
    unrouted: list[str]
    """Ids of added and changed probes that no route matches: no one is notified of their incidents."""
    rerouted: list[ProbeRoutingChangeJson]
    rerouted_incidents: list[IncidentRoutingChangeJson]
    destinations: DestinationChangesJson
    sections: list[ConfigSectionChangeJson]
    restart_required: list[str]
    """Fields that take effect after a restart."""
