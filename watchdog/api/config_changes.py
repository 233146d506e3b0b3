"""What a reload changes, as JSON and as lines for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import cast

from watchdog.api.serializers.config import ConfigChangesJson
from watchdog.domain.config_changes import ConfigChanges, ConfigFieldChange, RoutingChange
from watchdog.domain.model import Json
from watchdog.domain.text import map_json_strings, replace_invisible_characters, truncate_with_ellipsis

MAX_CONFIG_VALUE_CHARS_IN_CHANGE_LINE = 120
UNSHOWN_VALUES_CHANGE_TEXT = "the values of variables, or masked values"
"""What differs if no field does as it is written."""


def serialize_config_changes(changes: ConfigChanges, mask: Callable[[str], str]) -> ConfigChangesJson:
    """`mask`: masks the secrets of both configurations."""
    body: Json = {
        "is_changed": not changes.is_empty(),
        "added": list(changes.added),
        "removed": list(changes.removed),
        "changed": [
            {"probe": change.probe_id, "fields": list(map(_serialize_field_change, change.fields))}
            for change in changes.changed
        ],
        "renamed": [
            {"from": rename.removed_id, "to": rename.added_id, "target": rename.target} for rename in changes.renamed
        ],
        "unrouted": list(changes.unrouted),
        "rerouted": list(map(_serialize_routing_change, changes.rerouted)),
        "rerouted_incidents": [
            _serialize_routing_change(change) | {"incident": change.incident} for change in changes.rerouted_incidents
        ],
        "destinations": {
            "added": list(changes.added_destinations),
            "removed": list(changes.removed_destinations),
            "changed": list(changes.changed_destinations),
        },
        "sections": [
            {"section": name, "fields": list(map(_serialize_field_change, fields))}
            for name, fields in changes.sections.items()
        ],
        "restart_required": list(changes.restart_required_fields),
    }
    return cast(ConfigChangesJson, map_json_strings(body, lambda text: _mask_and_flatten_change_line(text, mask)))


def _serialize_field_change(change: ConfigFieldChange) -> Json:
    return change._asdict()


def _serialize_routing_change(change: RoutingChange) -> dict[str, Json]:
    return {"probe": change.probe_id, "before": list(change.before), "after": list(change.after)}


def format_config_changes(changes: ConfigChanges, mask: Callable[[str], str]) -> list[str]:
    """A line for each change, in the order in which they matter; empty: nothing changes."""
    return [_mask_and_flatten_change_line(line, mask) for line in _iter_config_change_lines(changes)]


def _mask_and_flatten_change_line(text: str, mask: Callable[[str], str]) -> str:
    return replace_invisible_characters(mask(text)).replace("\n", " ")


def _iter_config_change_lines(changes: ConfigChanges) -> Iterator[str]:
    yield from (f"+ probe {probe_id}" for probe_id in changes.added)
    yield from (f"- probe {probe_id}" for probe_id in changes.removed)
    for rename in changes.renamed:
        yield (
            f"? probe {rename.added_id} is probably {rename.removed_id}, with the same target {rename.target}: "
            f"`id: {rename.removed_id}` would keep its history and its incidents"
        )
    for change in changes.changed:
        yield from _iter_field_change_lines(f"probe {change.probe_id}", change.fields)
    for name, fields in changes.sections.items():
        yield from _iter_field_change_lines(name, fields, is_part_of_path=True)
    yield from (f"+ destination {name}" for name in changes.added_destinations)
    yield from (f"- destination {name}" for name in changes.removed_destinations)
    yield from (f"~ destination {name}" for name in changes.changed_destinations)
    for routing in changes.rerouted:
        if set(routing.before) == set(routing.after):  # another route, which a section states, leads to the same ones
            continue
        before, after = _join_destinations_or_no_one(routing.before), _join_destinations_or_no_one(routing.after)
        yield f"~ routing of probe {routing.probe_id}: {before} -> {after}"
    for routing in changes.rerouted_incidents:
        yield f"~ open incident {routing.incident} of probe {routing.probe_id}: {_describe_rerouted_incident(routing)}"
    for probe_id in changes.unrouted:
        yield f"! no route matches probe {probe_id}: no one is notified of its incidents"
    yield from (f"! {path} takes effect after a restart" for path in changes.restart_required_fields)


def _describe_rerouted_incident(routing: RoutingChange) -> str:
    """An incident of which no one was notified is sent; any other is not affected."""
    before, after = _join_destinations_or_no_one(routing.before), _join_destinations_or_no_one(routing.after)
    if routing.after and not routing.before:
        return f"no one was notified; it is sent to {after} when the new routes are in force"
    return f"notified: {before}; the new routes lead to {after}"


def _iter_field_change_lines(
    subject: str, fields: Iterable[ConfigFieldChange], *, is_part_of_path: bool = False
) -> Iterator[str]:
    fields = list(fields)
    if not fields:
        yield f"~ {subject}: {UNSHOWN_VALUES_CHANGE_TEXT}"
    for change in fields:
        path = change.path if is_part_of_path else f"{subject}: {change.path}"
        before, after = map(_truncate_config_value_in_change_line, (change.before, change.after))
        if change.before is None:
            yield f"~ {path}: added {after}"
        elif change.after is None:
            yield f"~ {path}: removed {before}"
        else:
            yield f"~ {path}: {before} -> {after}"


def _truncate_config_value_in_change_line(value: str | None) -> str:
    return truncate_with_ellipsis(value or "''", MAX_CONFIG_VALUE_CHARS_IN_CHANGE_LINE)


def _join_destinations_or_no_one(destinations: Iterable[str]) -> str:
    return ", ".join(destinations) or "no one"
