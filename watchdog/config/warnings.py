"""Warnings: a valid configuration in which something has no effect, above all one that notifies no one.

A warning never quotes the value of a variable: names, groups and tags are worded as they are written in the file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from watchdog.config.matchers import ProbeMatchSettings
from watchdog.config.models import Config
from watchdog.config.muting import (
    build_probe_info_for_matching,
    find_probes_of_inhibit_rule,
    iter_needs_with_nodes,
    list_inhibit_rule_nodes,
)
from watchdog.config.problems import ConfigProblem, build_did_you_mean_suffix
from watchdog.config.routes import NotificationRouteSettings
from watchdog.config.sources import MergedConfigSources
from watchdog.config.yaml_tree import YamlNode
from watchdog.config_types import format_config_duration
from watchdog.domain.local_hosts import is_loopback_host
from watchdog.domain.model import ProbeInfo
from watchdog.domain.muting import MAX_WAIT_FOR_MUTING_PROBE_MS
from watchdog.domain.own_network import MIN_HOSTS_OF_MASS_FAILURE, get_endpoint_host
from watchdog.domain.routing import ProbeMatcher, list_evaluated_routes_with_mismatches
from watchdog.domain.rules import service
from watchdog.domain.schedule import CronSchedule
from watchdog.net.url import parse_http_url
from watchdog.probes import Probe

MAX_CRON_SLOTS_SEARCHED_FOR_INTERVAL = 20
"""The shortest distance between the slots of a cron expression is looked for among this many."""
PROBE_KINDS_WITHOUT_FAILURE_THRESHOLD = frozenset({"heartbeat", "jobs"})
"""Their incidents open after the limits of their jobs, and not after a number of runs."""
CRON_INTERVAL_SEARCH_START_MS = 1_700_000_000_000
"""Any instant will do: the slots after it are compared."""


@dataclass(frozen=True, slots=True)
class _ProbeWithYamlNode:
    """A probe with the node that it is written in."""

    probe: Probe
    node: YamlNode
    info: ProbeInfo
    """What routes and the status page match."""

    @property
    def name(self) -> str:
        return _get_raw_yaml_text(self.node.mapping_entries["name"])


def find_config_warnings(config: Config, sources: MergedConfigSources) -> list[ConfigProblem]:
    """The warnings of a valid configuration, in reading order. `config`: variables replaced, nothing masked."""
    probes = [
        _ProbeWithYamlNode(p, node, build_probe_info_for_matching(p))
        for p, node in zip(config.probes, sources.probes, strict=True)
    ]
    warnings = [*sources.warnings, *_find_run_overlap_warnings(probes)]
    if not probes:
        warnings.append(_build_config_section_warning(sources, "probes", "no `probes`: nothing is monitored; add one"))
    else:
        warnings += [
            *_find_alert_receiver_warnings(config, sources),
            *_find_notification_route_warnings(config, sources, probes),
            *_find_connectivity_section_warnings(config, sources),
            *_find_too_late_muting_by_needs_warnings(config, sources),
            *_find_inhibit_warnings(config, sources, probes),
        ]
        warnings += _find_status_page_warnings(config, sources, probes)
        warnings += _find_maintenance_warnings(config, sources, probes)
    file_order = {file: i for i, file in enumerate(sources.base_folders)}
    return sorted(dict.fromkeys(warnings), key=lambda w: (file_order.get(w.file, -1), w.line, w.column))


def _get_raw_yaml_text(node: YamlNode) -> str:
    return str(node.raw_value)


def _build_yaml_node_warning(node: YamlNode, message: str) -> ConfigProblem:
    return ConfigProblem(*node.location, node.path, message)


def _build_config_section_warning(sources: MergedConfigSources, name: str, message: str) -> ConfigProblem:
    """About a section that is missing or empty."""
    node = sources.root.get(name)
    return ConfigProblem(*(sources.location if node is None else node.key_location), name, message)


# --- runs


def _find_run_overlap_warnings(probes: Iterable[_ProbeWithYamlNode]) -> Iterator[ConfigProblem]:
    """Probes whose runs may last longer than their interval: they overlap, and the evaluation waits for them."""
    for written in probes:
        probe, entries = written.probe, written.node.mapping_entries
        if probe.passive_source:
            continue
        limit_ms, limit = probe.run_time_limit_ms, format_config_duration(probe.run_time_limit_ms)
        has_timeout = "timeout" not in probe.unsupported_fields
        limit_name = "`timeout`" if has_timeout else "`finish_within` plus a margin"
        node = entries.get("timeout") or entries.get("schedule" if probe.schedule else "every") or entries[probe.kind]
        interval_ms, interval_name = (
            _find_shortest_scheduled_run_interval_ms(probe),
            "schedule" if probe.schedule else "every",
        )
        if limit_ms <= interval_ms and probe.retry_interval is not None and probe.retry_interval < limit_ms:
            interval_ms, interval_name = probe.retry_interval, "retry_interval"
            node = entries.get("retry_interval") or node
        if limit_ms > interval_ms:
            interval = format_config_duration(interval_ms)
            reduction = f"`timeout` to at most {interval}" if has_timeout else "`finish_within`"
            remedy = (
                f"choose a `schedule` with at least {limit} between runs"
                if interval_name == "schedule"
                else f"increase `{interval_name}` to at least {limit}"
            )
            yield _build_yaml_node_warning(
                node,
                f"a run may take {limit} ({limit_name}), but the next one starts after {interval} "
                f"(`{interval_name}`): runs overlap while the target hangs; reduce {reduction}, or {remedy}",
            )


def _find_shortest_scheduled_run_interval_ms(probe: Probe) -> int:
    if probe.schedule is None:
        return probe.every
    schedule, slots = CronSchedule(probe.schedule, probe.timezone), [CRON_INTERVAL_SEARCH_START_MS]
    for _ in range(MAX_CRON_SLOTS_SEARCHED_FOR_INTERVAL):
        slots.append(schedule.find_next_slot_after(slots[-1]))
    return min(after - before for before, after in pairwise(slots[1:]))


# --- connectivity


def _find_connectivity_section_warnings(config: Config, sources: MergedConfigSources) -> Iterator[ConfigProblem]:
    """Nothing shows whether Watchdog's own network has failed, although many hosts may seem to be down then."""
    hosts = {get_endpoint_host(probe.network_endpoint) for probe in config.probes if probe.network_endpoint}
    if config.connectivity is None:
        remote_hosts = {host for host in hosts if not is_loopback_host(host)}
        if len(remote_hosts) >= MIN_HOSTS_OF_MASS_FAILURE:
            message = (
                "no `connectivity`: when many probes fail at once, Watchdog cannot check whether its own network "
                'has failed; add one, such as `connectivity: {targets: ["https://one.one.one.one/"]}`'
            )
            yield _build_config_section_warning(sources, "connectivity", message)
    elif {parse_http_url(url).host for url in config.connectivity.targets} <= hosts:
        message = (
            "probes monitor the hosts of all targets, and targets on a host whose probe fails are not requested: add a "
            "target on a host that no probe monitors"
        )
        yield _build_config_section_warning(sources, "connectivity", message)


# --- receivers and routes


def _find_alert_receiver_warnings(config: Config, sources: MergedConfigSources) -> Iterator[ConfigProblem]:
    if not config.receivers:
        message = "no `receivers`: no alert is sent when a probe fails; add one, such as `oncall: {slack: ...}`"
        yield _build_config_section_warning(sources, "receivers", message)
    if not config.routes:
        return
    used = {name for route in config.routes for name in route.to_notification_route().list_all_receivers()}
    for name in config.receivers.keys() - used:
        node = sources.receivers[name]
        message = "no route names this receiver, so it is never notified: add it to a route, or remove it"
        yield ConfigProblem(*node.key_location, node.path, message)


def _find_notification_route_warnings(
    config: Config, sources: MergedConfigSources, probes: Sequence[_ProbeWithYamlNode]
) -> Iterator[ConfigProblem]:
    """Routes that match no probe or are never reached, and probes that no route matches."""
    if not config.routes:
        return
    routes = [route.to_notification_route() for route in config.routes]
    applied: dict[int, list[str]] = defaultdict(list)
    """Index of a route -> the ids of the probes that it applies to."""
    ends: dict[str, int] = {}
    """Probe -> the index of the route that applies to it and does not continue."""
    for written in probes:
        for index, mismatch in list_evaluated_routes_with_mismatches(routes, written.info):
            if not mismatch:
                applied[index].append(written.info.id)
                if routes[index].stops_route_evaluation(""):
                    ends[written.info.id] = index
    for index, (route, node) in enumerate(zip(routes, sources.routes, strict=True)):
        matched = [written for written in probes if not route.match.describe_mismatch(written.info)]
        names_own_probe = (
            route.match.probe == service.WATCHDOG_SELF_PROBE_ID or route.match.kind == service.WATCHDOG_SELF_PROBE_KIND
        )
        if not matched and not names_own_probe:
            yield from _find_match_without_probe_warnings(
                "this route matches no probe", config.routes[index].match, node, probes
            )
        elif matched and index not in applied:
            earlier = sorted({ends[written.info.id] for written in matched})
            yield _build_yaml_node_warning(node, _describe_unreachable_notification_route(earlier, sources.routes))
    matched_ids = {probe_id for ids in applied.values() for probe_id in ids}
    for written in probes:
        if written.info.id not in matched_ids:
            name = written.node.mapping_entries["name"]
            hint = _format_nearly_matching_notification_route_hint(written, config.routes)
            yield _build_yaml_node_warning(
                name,
                f"no route matches probe '{written.name}', so no one is notified of its incidents{hint}: change a "
                "route, or add a last route without `match`",
            )


def _describe_unreachable_notification_route(earlier: Sequence[int], nodes: Sequence[YamlNode]) -> str:
    places = " and ".join(f"the route at {nodes[i].location}" for i in earlier)
    match_first = "match its probes first and do" if len(earlier) > 1 else "matches its probes first and does"
    return (
        f"this route is never reached, because {places} {match_first} not continue: move it up, or set "
        "`continue: true` above it"
    )


def _find_match_without_probe_warnings(
    subject: str, match: ProbeMatchSettings, owner: YamlNode, probes: Sequence[_ProbeWithYamlNode]
) -> Iterator[ConfigProblem]:
    """Why a match fits no probe: a warning for each value that no probe has, else one for the combination."""
    node = owner.mapping_entries.get("match", owner)
    unknown = list(_find_match_values_that_no_probe_has(match, node, probes))
    for value, message in unknown:
        yield _build_yaml_node_warning(value, f"{subject}: {message}")
    if not unknown:
        yield _build_yaml_node_warning(
            node, f"{subject}: no probe fits all of its fields; change or remove one of them"
        )


def _find_match_values_that_no_probe_has(
    match: ProbeMatchSettings, node: YamlNode, probes: Sequence[_ProbeWithYamlNode]
) -> Iterator[tuple[YamlNode, str]]:
    """(node, message) for each value of a match that no probe has."""
    tags = _index_raw_yaml_text_by_value(item for written in probes for item in _list_tag_nodes_of_probe(written.node))
    groups = _index_raw_yaml_text_by_value(
        entry for written in probes if (entry := written.node.mapping_entries.get("group"))
    )
    candidates = [(tag, "tag", tags) for tag in _list_tag_nodes_of_probe(node)]
    if match.group:
        candidates.append((node.mapping_entries["group"], "group", groups))
    for value, field, known_texts in candidates:
        if str(value.value).strip() not in known_texts:
            yield (
                value,
                f"no probe has the {field} '{_get_raw_yaml_text(value)}'"
                f"{_format_similar_value_hint(value, known_texts)}",
            )
    if match.kind and match.kind not in {written.info.kind for written in probes}:
        yield node.mapping_entries["kind"], f"no probe is of kind {match.kind}"
    if match.severity is not None and match.severity not in {written.info.severity for written in probes}:
        yield node.mapping_entries["severity"], f"no probe has alert.severity {match.severity}"


def _list_tag_nodes_of_probe(node: YamlNode) -> list[YamlNode]:
    tags = node.mapping_entries.get("tags")
    return [] if tags is None else tags.list_items


def _index_raw_yaml_text_by_value(nodes: Iterable[YamlNode]) -> dict[str, str]:
    """Value -> as written, of nodes with text."""
    return {str(node.value).strip(): _get_raw_yaml_text(node) for node in nodes}


def _format_similar_value_hint(value: YamlNode, known_texts: Mapping[str, str]) -> str:
    """The suffix that names the most similar value, or all of a few."""
    literals = [text for text, written in known_texts.items() if text == written.strip()]
    if value.interpolated_text is None and (hint := build_did_you_mean_suffix(str(value.value), literals)):
        return hint
    return f"; defined: {', '.join(known_texts.values())}" if 0 < len(known_texts) <= 8 else ""


def _format_nearly_matching_notification_route_hint(
    written: _ProbeWithYamlNode, routes: Sequence[NotificationRouteSettings]
) -> str:
    """Which route nearly matches the probe."""
    for number, route in enumerate(routes, 1):
        match = route.match
        wanted = {text.lower() for text in match.tags}
        for tag in _list_tag_nodes_of_probe(written.node):
            text = str(tag.value).strip()
            if text.lower() in wanted and text not in match.tags:
                return f" (route {number} spells the tag '{_get_raw_yaml_text(tag)}' with different capitalization)"
    return ""


# --- maintenance


def _find_maintenance_warnings(
    config: Config, sources: MergedConfigSources, probes: Sequence[_ProbeWithYamlNode]
) -> Iterator[ConfigProblem]:
    section = sources.root.get("maintenance")
    for window, node in zip(config.maintenance, section.list_items if section is not None else (), strict=True):
        matcher = window.match.to_probe_matcher()
        selects_watchdog = matcher.probe == service.WATCHDOG_SELF_PROBE_ID
        if not selects_watchdog and all(matcher.describe_mismatch(written.info) for written in probes):
            yield from _find_match_without_probe_warnings("the window has no effect", window.match, node, probes)


# --- needs and inhibit


def _find_too_late_muting_by_needs_warnings(config: Config, sources: MergedConfigSources) -> Iterator[ConfigProblem]:
    """Probes that notice an outage so late that the alerts which they would mute have been sent by then."""
    for probe, needed, item in iter_needs_with_nodes(config, sources):
        if probe.schedule or needed.schedule or {probe.kind, needed.kind} & PROBE_KINDS_WITHOUT_FAILURE_THRESHOLD:
            continue
        opened_ms = probe.every + _compute_confirmation_ms(probe) + probe.run_time_limit_ms
        sent_ms, muted_ms = opened_ms + MAX_WAIT_FOR_MUTING_PROBE_MS, _compute_confirmation_ms(needed)
        if muted_ms > sent_ms:
            name = _get_raw_yaml_text(item)
            yield _build_yaml_node_warning(
                item,
                f"an incident of '{name}' opens {format_config_duration(muted_ms)} or more after a failure, but the "
                f"alerts of this probe are sent within {format_config_duration(sent_ms)}, so they are not muted: "
                f"reduce `every` or `alert.failure_threshold` of '{name}', or set its `retry_interval`",
            )


def _compute_confirmation_ms(probe: Probe) -> int:
    """How long after the first failed run its incident opens."""
    return (probe.alert.failure_threshold - 1) * (probe.retry_interval or probe.every)


def _find_inhibit_warnings(
    config: Config, sources: MergedConfigSources, probes: Sequence[_ProbeWithYamlNode]
) -> Iterator[ConfigProblem]:
    """Rules that mute nothing."""
    infos = [written.info for written in probes]
    for number, (rule, node) in enumerate(zip(config.inhibit, list_inhibit_rule_nodes(sources), strict=True), 1):
        muting_ids, muted_ids = find_probes_of_inhibit_rule(rule, infos)
        for field, match, ids in (("when", rule.when, muting_ids), ("mute", rule.mute, muted_ids)):
            if not ids:
                subject = f"inhibit rule {number} has no effect, because `{field}` matches no probe"
                yield from _find_match_without_probe_warnings(subject, match, node.mapping_entries[field], probes)
        if muting_ids and muting_ids == muted_ids:  # the only probe of both: several would mute one another
            yield _build_yaml_node_warning(
                node,
                f"inhibit rule {number} has no effect, because `when` and `mute` match the same probe alone, and no "
                "probe mutes itself: change one of them",
            )


# --- the status page


def _find_status_page_warnings(
    config: Config, sources: MergedConfigSources, probes: Sequence[_ProbeWithYamlNode]
) -> Iterator[ConfigProblem]:
    page, node = config.status_page, sources.root.get("status_page")
    if node is None:
        return
    matcher: ProbeMatcher = page.match.to_probe_matcher()
    included = [written for written in probes if not matcher.describe_mismatch(written.info)]
    if not included:
        yield from _find_match_without_probe_warnings("the status page is empty", page.match, node, probes)
        return
    groups = _index_raw_yaml_text_by_value(
        entry for written in included if (entry := written.node.mapping_entries.get("group"))
    )
    listed = node.mapping_entries.get("groups")
    for item in listed.list_items if listed is not None else ():
        if str(item.value).strip() not in groups:
            hint = _format_similar_value_hint(item, groups)
            yield _build_yaml_node_warning(
                item, f"no probe on the status page has the group '{_get_raw_yaml_text(item)}'{hint}"
            )
