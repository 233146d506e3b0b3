"""What changes from one configuration to another: the effect of a reload. Pure.

`watchdog diff`, the log of a reload and the tests use the same function. Everything here is free of secrets: a secret
counts by its name, so that a new value of it is no change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from watchdog.domain.model import ProbeInfo
from watchdog.domain.routing import NotificationRoutingTable

RESTART_REQUIRED_FIELD_PREFIXES = ("server.listen", "storage.")
"""Fields that a running process does not apply."""


class ProbeConfigSnapshot(NamedTuple):
    """A configured probe."""

    info: ProbeInfo
    config_yaml: str
    """As written, variables not replaced, defaults merged."""
    content_digest: str
    """Of its own configuration, with the values of variables; empty: not known."""
    definition: str
    """A digest of its own configuration and of the routes that apply to it."""


class ConfigSectionSnapshot(NamedTuple):
    """A section of the configuration other than `probes`."""

    digest: str
    fields: Mapping[str, str]
    """Path, such as `receivers.oncall.slack.channel` -> masked value. Without fields that have their default."""
    started_fields: Mapping[str, str] | None = None
    """For a process that was reloaded: the fields at its start, of which it still uses some."""


@dataclass(frozen=True, slots=True)
class ComparableConfigSnapshot:
    """A configuration, as far as configurations are compared."""

    probes: Mapping[str, ProbeConfigSnapshot]
    """By id, without the built-in one."""
    destinations: Mapping[str, str]
    """Destination -> a digest of how it is notified."""
    routes: NotificationRoutingTable
    sections: Mapping[str, ConfigSectionSnapshot]
    """By name; one that is missing is not known."""


class OpenIncidentWithNotifiedDestinations(NamedTuple):
    """An incident that is open, and who was notified of it."""

    id: str
    probe_id: str
    reason: str
    notified: tuple[str, ...]
    """Destinations."""


class ConfigFieldChange(NamedTuple):
    """A field that was added (`before` is None), removed (`after` is None) or changed."""

    path: str
    before: str | None
    after: str | None


class ProbeConfigFieldChanges(NamedTuple):
    """A probe with another configuration. Without fields: the values of variables differ."""

    probe_id: str
    fields: tuple[ConfigFieldChange, ...]


class SuspectedProbeRename(NamedTuple):
    """A removed and an added probe with the same kind and target: probably one probe that was given another id."""

    removed_id: str
    added_id: str
    target: str


class RoutingChange(NamedTuple):
    """Another route applies to a probe, or other destinations are notified of an open incident of it."""

    probe_id: str
    incident: str
    """Its id; empty: every future incident of the probe."""
    before: tuple[str, ...]
    """Destinations; of an incident: those that were notified."""
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConfigChanges:
    """What a reload does."""

    added: tuple[str, ...] = ()
    """Probe ids, as in `removed`."""
    removed: tuple[str, ...] = ()
    changed: tuple[ProbeConfigFieldChanges, ...] = ()
    renamed: tuple[SuspectedProbeRename, ...] = ()
    """Also in `added` and `removed`."""
    unrouted: tuple[str, ...] = ()
    """Those of the added and changed probes that no route matches: no one is notified of their incidents."""
    rerouted: tuple[RoutingChange, ...] = ()
    rerouted_incidents: tuple[RoutingChange, ...] = ()
    added_destinations: tuple[str, ...] = ()
    removed_destinations: tuple[str, ...] = ()
    changed_destinations: tuple[str, ...] = ()
    sections: Mapping[str, tuple[ConfigFieldChange, ...]] = field(default_factory=dict)
    """Section -> its fields. Without fields: the values of variables differ."""
    restart_required_fields: tuple[str, ...] = ()
    """Changed fields that take effect only at the next start."""

    def is_empty(self) -> bool:
        return self == ConfigChanges()

    def count_config_changes_by_kind(self) -> dict[str, int]:
        """For a log line and the result of a reload: the kinds that occur, such as {"added": 1}."""
        counts = {
            "added": len(self.added),
            "removed": len(self.removed),
            "changed": len(self.changed),
            "rerouted": len(self.rerouted),
            "destinations": len(self.added_destinations + self.removed_destinations + self.changed_destinations),
            "sections": len(self.sections),
        }
        return {name: count for name, count in counts.items() if count}


def compare_configs(
    old: ComparableConfigSnapshot,
    new: ComparableConfigSnapshot,
    parse_fields: Callable[[str], Mapping[str, str]],
    open_incidents: Iterable[OpenIncidentWithNotifiedDestinations] = (),
) -> ConfigChanges:
    """What a reload from `old` to `new` does. `parse_fields`: the fields of a probe's YAML, by path."""
    added = tuple(probe_id for probe_id in new.probes if probe_id not in old.probes)
    removed = tuple(probe_id for probe_id in old.probes if probe_id not in new.probes)
    changed_ids = [
        id for id in new.probes if id in old.probes and _is_probe_config_changed(old.probes[id], new.probes[id])
    ]
    changed_destinations = [
        name for name, digest in new.destinations.items() if old.destinations.get(name, digest) != digest
    ]
    sections = {
        name: tuple(list_config_field_changes(old.sections[name].fields, section.fields))
        for name, section in sorted(new.sections.items())
        if name in old.sections and old.sections[name].digest != section.digest
    }
    return ConfigChanges(
        added=added,
        removed=removed,
        changed=tuple(
            ProbeConfigFieldChanges(
                id,
                tuple(
                    list_config_field_changes(
                        parse_fields(old.probes[id].config_yaml), parse_fields(new.probes[id].config_yaml)
                    )
                ),
            )
            for id in changed_ids
        ),
        renamed=tuple(_find_renamed_probes(old, new, removed, added)),
        unrouted=tuple(id for id in (*added, *changed_ids) if not new.routes.has_route_for_probe(new.probes[id].info)),
        rerouted=tuple(_find_rerouted_probes(old, new, frozenset(changed_ids))),
        rerouted_incidents=tuple(_find_rerouted_incidents(old, new, open_incidents)),
        added_destinations=tuple(sorted(new.destinations.keys() - old.destinations.keys())),
        removed_destinations=tuple(sorted(old.destinations.keys() - new.destinations.keys())),
        changed_destinations=tuple(sorted(changed_destinations)),
        sections=sections,
        restart_required_fields=tuple(
            path
            for name, changes in sections.items()
            for path in _list_restart_required_field_paths(changes)
            if not _is_new_value_equal_to_value_at_start(path, old.sections[name], new.sections[name])
        ),
    )


def _is_new_value_equal_to_value_at_start(
    path: str, running: ConfigSectionSnapshot, new: ConfigSectionSnapshot
) -> bool:
    """Whether a process already uses the new value of a field: an earlier reload could not apply another value."""
    started = running.started_fields
    return started is not None and started.get(path) == new.fields.get(path)


def list_restart_required_fields(
    started: Mapping[str, ConfigSectionSnapshot], current: Mapping[str, ConfigSectionSnapshot]
) -> tuple[str, ...]:
    """The fields that differ from those that a process was started with, and that it does not apply."""
    changes = (
        list_config_field_changes(started[name].fields, current[name].fields)
        for name in started.keys() & current.keys()
    )
    return tuple(sorted(_list_restart_required_field_paths(chain.from_iterable(changes))))


def _list_restart_required_field_paths(changes: Iterable[ConfigFieldChange]) -> tuple[str, ...]:
    return tuple(change.path for change in changes if change.path.startswith(RESTART_REQUIRED_FIELD_PREFIXES))


def _is_probe_config_changed(old: ProbeConfigSnapshot, new: ProbeConfigSnapshot) -> bool:
    if old.content_digest and new.content_digest:
        return old.content_digest != new.content_digest
    return old.definition != new.definition


def list_config_field_changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[ConfigFieldChange]:
    """The fields that differ, in the order of the new ones; those that were removed follow."""
    for path in [*new, *(path for path in old if path not in new)]:
        if old.get(path) != new.get(path):
            yield ConfigFieldChange(path, old.get(path), new.get(path))


def _find_renamed_probes(
    old: ComparableConfigSnapshot, new: ComparableConfigSnapshot, removed: Iterable[str], added: Iterable[str]
) -> Iterator[SuspectedProbeRename]:
    """Only where one removed and one added probe have the kind and target: otherwise it is a guess."""
    by_target: dict[tuple[str, str], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, (snapshot, ids) in enumerate(((old, removed), (new, added))):
        for id in ids:
            info = snapshot.probes[id].info
            by_target[info.kind, info.target][side].append(id)
    for (_, target), (before, after) in by_target.items():
        if target and len(before) == len(after) == 1:
            yield SuspectedProbeRename(before[0], after[0], target)


def _find_rerouted_probes(
    old: ComparableConfigSnapshot, new: ComparableConfigSnapshot, changed: frozenset[str]
) -> Iterator[RoutingChange]:
    for id, probe in new.probes.items():
        former = old.probes.get(id)
        if former is None or former.definition == probe.definition:
            continue
        before = old.routes.list_possible_destinations_of_probe(former.info)
        after = new.routes.list_possible_destinations_of_probe(probe.info)
        if id not in changed or set(before) != set(after):
            yield RoutingChange(id, "", before, after)


def _find_rerouted_incidents(
    old: ComparableConfigSnapshot,
    new: ComparableConfigSnapshot,
    open_incidents: Iterable[OpenIncidentWithNotifiedDestinations],
) -> Iterator[RoutingChange]:
    """Of probes that stay. The incidents of others resolve."""
    for incident in open_incidents:
        former, probe = old.probes.get(incident.probe_id), new.probes.get(incident.probe_id)
        if former is None or probe is None:
            continue
        before = old.routes.decide_routing(former.info, incident.reason).destinations
        after = new.routes.decide_routing(probe.info, incident.reason).destinations
        if set(before) != set(after):
            yield RoutingChange(incident.probe_id, incident.id, incident.notified, after)
