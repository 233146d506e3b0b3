"""Which probes mute the alerts of which, as `needs` and `inhibit` state it, and what is wrong with that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from watchdog.config.models import Config, InhibitSettings
from watchdog.config.problems import ConfigSourceLocation, build_did_you_mean_suffix
from watchdog.config.sources import MergedConfigSources
from watchdog.config.yaml_tree import YamlNode
from watchdog.domain.model import ProbeInfo
from watchdog.domain.muting import MutingProbe
from watchdog.domain.rules import service
from watchdog.probes import AnyProbe, Probe

MAX_MUTED_PAIRS_PER_INHIBIT_RULE = 100_000
"""Pairs of a muting and a muted probe, of one rule of `inhibit`: each is a row in the database."""
MAX_PAIRS_NAMED_IN_CYCLE = 8


def build_probe_info_for_matching(probe: Probe) -> ProbeInfo:
    """What routes, `inhibit` and the status page match."""
    return ProbeInfo(
        database_id=0, id=probe.id, name=probe.name, kind=probe.kind, group=probe.group, tags=tuple(probe.tags),
        severity=probe.alert.severity,
    )  # fmt: skip


def map_muting_probes_by_probe_id(config: Config) -> dict[str, tuple[MutingProbe, ...]]:
    """By the id of the probe that they mute; probes that none mutes are missing. Names are resolved."""
    muting = {probe.id: {id: MutingProbe(id) for id in probe.needs} for probe in config.probes}
    infos = [build_probe_info_for_matching(probe) for probe in config.probes]
    for index, rule in enumerate(config.inhibit):
        muting_ids, muted_ids = find_probes_of_inhibit_rule(rule, infos)
        for muted_id in muted_ids:
            for muting_id in muting_ids:
                if muting_id != muted_id:
                    muting[muted_id].setdefault(muting_id, MutingProbe(muting_id, f"inhibit.{index}"))
    return {id: tuple(by_id.values()) for id, by_id in muting.items() if by_id}


def find_probes_of_inhibit_rule(rule: InhibitSettings, infos: Sequence[ProbeInfo]) -> tuple[list[str], list[str]]:
    """The ids of the probes that mute, and of those that are muted. No probe mutes itself."""
    when, mute = rule.when.to_probe_matcher(), rule.mute.to_probe_matcher()
    return (
        [info.id for info in infos if not when.describe_mismatch(info)],
        [info.id for info in infos if not mute.describe_mismatch(info)],
    )


def replace_needed_probe_names_with_ids(
    config: Config, probe_ids: Mapping[str, str], sources: MergedConfigSources
) -> tuple[AnyProbe, ...]:
    """The probes, with the ids of those that they need in place of the names. `probe_ids`: name or id -> id."""
    if len(config.probes) != len(sources.probes):
        return config.probes  # invalid probes have been reported already
    return tuple(
        probe.model_copy(update={"needs": tuple(_resolve_needs_of_probe(probe, node, probe_ids, sources))})
        if probe.needs
        else probe
        for probe, node in zip(config.probes, sources.probes, strict=True)
    )


def _resolve_needs_of_probe(
    probe: Probe, node: YamlNode, probe_ids: Mapping[str, str], sources: MergedConfigSources
) -> Iterator[str]:
    needed: set[str] = set()
    for item in node.mapping_entries["needs"].list_items:
        id = probe_ids.get(str(item.value).strip())
        if id is None:
            literals = [
                str(name.value)
                for each in sources.probes
                if (name := each.mapping_entries.get("name")) and name.interpolated_text is None
            ]
            hint = "" if item.interpolated_text is not None else build_did_you_mean_suffix(str(item.value), literals)
            problem = f"no probe has this id or name{hint or ': add the probe, or remove it here'}"
        elif id == service.WATCHDOG_SELF_PROBE_ID:
            problem = "Watchdog's own probe is never down, so it mutes nothing: remove it"
        elif id == probe.id:
            problem = "a probe cannot need itself: remove it"
        elif id in needed:
            problem = f"duplicate: '{item.raw_value}' is needed already; remove it"
        else:
            needed.add(id)
            yield id
            continue
        sources.add_problem(item.location, item.path, problem)


class _MutingProbeWithYamlNode(NamedTuple):
    """A probe that mutes another one, and where the configuration states it."""

    muting_id: str
    node: YamlNode


def report_invalid_muting(config: Config, sources: MergedConfigSources) -> None:
    """Report rules of `inhibit` for too many probes, and probes that mute one another. `config`: names are resolved."""
    ids = [probe.id for probe in config.probes]
    if len(ids) != len(sources.probes) or len(set(ids)) != len(ids):
        return  # invalid or duplicate probes have been reported already
    infos = [build_probe_info_for_matching(probe) for probe in config.probes]
    statements: dict[str, list[_MutingProbeWithYamlNode]] = {id: [] for id in ids}
    for probe, node in zip(config.probes, sources.probes, strict=True):
        items = node.mapping_entries["needs"].list_items if probe.needs else []
        if len(items) == len(probe.needs):  # else some have been reported already
            statements[probe.id] = [
                _MutingProbeWithYamlNode(id, item) for id, item in zip(probe.needs, items, strict=True)
            ]
    nodes = list_inhibit_rule_nodes(sources)
    rules = list(zip(config.inhibit, nodes, strict=True)) if len(nodes) == len(config.inhibit) else []
    for rule, node in rules:
        muting_ids, muted_ids = find_probes_of_inhibit_rule(rule, infos)
        if len(muting_ids) * len(muted_ids) > MAX_MUTED_PAIRS_PER_INHIBIT_RULE:
            message = (
                f"{len(muting_ids):,} probes would mute {len(muted_ids):,}, and at most "
                f"{MAX_MUTED_PAIRS_PER_INHIBIT_RULE:,} pairs are possible: match fewer probes in `when` or `mute`"
            )
            sources.add_problem(node.location, node.path, message)
            continue
        for muted_id in muted_ids:
            statements[muted_id] += [_MutingProbeWithYamlNode(id, node) for id in muting_ids if id != muted_id]
    names = {
        probe.id: str(node.mapping_entries["name"].raw_value)
        for probe, node in zip(config.probes, sources.probes, strict=True)
    }
    reported: set[ConfigSourceLocation] = set()
    for cycle, node in _iter_muting_cycles(statements):
        if node.location not in reported:
            reported.add(node.location)
            sources.add_problem(node.location, node.path, _describe_muting_cycle([names[id] for id in cycle], node))


def list_inhibit_rule_nodes(sources: MergedConfigSources) -> list[YamlNode]:
    section = sources.root.get("inhibit")
    return [] if section is None else section.list_items


def _describe_muting_cycle(names: Sequence[str], node: YamlNode) -> str:
    """`names`: each is muted by the next one; the last is the first again."""
    pairs = [f"'{muted}' by '{muting}'" for muted, muting in pairwise(names[1:])]
    if len(pairs) > MAX_PAIRS_NAMED_IN_CYCLE:
        pairs[MAX_PAIRS_NAMED_IN_CYCLE - 1 : -1] = [f"{len(pairs) - MAX_PAIRS_NAMED_IN_CYCLE} more"]
    cycle = ", ".join([f"'{names[0]}' would be muted by '{names[1]}'", *pairs])
    remedy = "remove one of these `needs`" if ".needs." in node.path else "match fewer probes in `when` or `mute`"
    return f"probes would mute one another, and no one would be notified: {cycle}; {remedy}"


def _iter_muting_cycles(
    statements: Mapping[str, Sequence[_MutingProbeWithYamlNode]],
) -> Iterator[tuple[list[str], YamlNode]]:
    """Cycles such as [a, b, a], each with the statement that closes it: at least one of each set of probes that mute
    one another. Iterative, because chains may be long."""
    finished: set[str] = set()
    for start in statements:
        if start in finished:
            continue
        path, on_path, remaining = [start], {start}, [iter(statements[start])]
        while path:
            statement = next(remaining[-1], None)
            if statement is None:
                finished.add(path[-1])
                on_path.discard(path.pop())
                remaining.pop()
            elif statement.muting_id in on_path:
                yield [*path[path.index(statement.muting_id) :], statement.muting_id], statement.node
            elif statement.muting_id not in finished:
                path.append(statement.muting_id)
                on_path.add(statement.muting_id)
                remaining.append(iter(statements[statement.muting_id]))


def iter_needs_with_nodes(
    config: Config, sources: MergedConfigSources
) -> Iterator[tuple[Probe, Probe, YamlNode]]:  # fmt: skip
    """Each probe that needs another one, that one, and where it states it; of a valid configuration."""
    by_id = {probe.id: probe for probe in config.probes}
    for probe, node in zip(config.probes, sources.probes, strict=True):
        for id, item in zip(probe.needs, node.mapping_entries["needs"].list_items if probe.needs else (), strict=True):
            yield probe, by_id[id], item
