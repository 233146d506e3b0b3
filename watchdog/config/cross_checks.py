"""Checks across sections: unique names and ids, references that must exist, sections that require others."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from watchdog.config.maintenance import MaintenanceWindowSettings
from watchdog.config.matchers import ProbeMatchSettings
from watchdog.config.models import Config, InhibitSettings
from watchdog.config.muting import list_inhibit_rule_nodes, replace_needed_probe_names_with_ids, report_invalid_muting
from watchdog.config.problems import build_did_you_mean_suffix
from watchdog.config.sources import MergedConfigSources
from watchdog.config.yaml_tree import YamlNode, format_yaml_key_for_message
from watchdog.config_types import Secret
from watchdog.config_values import describe_missing_package_extra, slugify
from watchdog.domain.rules import service
from watchdog.notifiers import SlackNotifier
from watchdog.probes import HeartbeatProbe

INCLUDABLE_SECTIONS = ("probes", "receivers", "routes", "include", "version")
"""The sections that an included file can hold."""


def cross_validate_config_and_resolve_references(config: Config, sources: MergedConfigSources) -> Config:
    """The configuration with its references resolved. Problems are added to those of the sources."""
    _report_main_file_sections_in_includes(sources)
    _report_duplicate_probe_names_and_ids(sources)
    _check_unique_heartbeat_tokens(config, sources)
    _check_receiver_name_syntax_and_references(sources)
    _report_differing_app_tokens_of_one_slack_app(config, sources)
    _report_duplicate_maintenance_names(sources)
    _check_api_keys_required(config, sources)
    _report_missing_postgres_driver(config, sources)
    probe_ids = {probe.name: probe.id for probe in config.probes} | {probe.id: probe.id for probe in config.probes}
    probe_ids[service.WATCHDOG_SELF_PROBE_ID] = service.WATCHDOG_SELF_PROBE_ID
    routes = config.routes
    if len(routes) == len(sources.routes):
        routes = tuple(
            route.model_copy(
                update={
                    "match": _resolve_probe_name_in_match_settings(
                        route.match, probe_ids, _get_yaml_value_of_first_present_key(node, "match"), sources
                    )
                }
            )
            for route, node in zip(routes, sources.routes, strict=True)
        )
    match = _resolve_probe_name_in_match_settings(
        config.status_page.match,
        probe_ids,
        _get_yaml_value_of_first_present_key(sources.root.get("status_page"), "match"),
        sources,
    )
    resolved: dict[str, Any] = {
        "probes": replace_needed_probe_names_with_ids(config, probe_ids, sources),
        "inhibit": _resolve_probe_names_of_inhibit_rules(config, probe_ids, sources),
        "receivers": _apply_default_mail_server(config, sources),
        "routes": routes,
        "maintenance": _replace_probe_names_with_ids_in_maintenance(config, probe_ids, sources),
        "status_page": config.status_page.model_copy(update={"match": match}),
    }
    config = config.model_copy(update=resolved)
    report_invalid_muting(config, sources)
    return config


def _report_main_file_sections_in_includes(sources: MergedConfigSources) -> None:
    """Report sections of included files that only the main file can hold."""
    for tree in sources.trees[1:]:
        for name, node in tree.mapping_entries.items():
            if name in Config.model_fields and name not in INCLUDABLE_SECTIONS:
                sections = ", ".join(INCLUDABLE_SECTIONS)
                message = f"`{name}` is allowed only in the main file; included files can contain {sections}"
                sources.add_problem(node.key_location, node.path, message)
            elif name not in INCLUDABLE_SECTIONS:
                suffix = build_did_you_mean_suffix(name, INCLUDABLE_SECTIONS)
                message = f"unknown section '{format_yaml_key_for_message(name)}'{suffix}"
                sources.add_problem(node.key_location, node.path, message)
            elif name == "version" and node.value != 1:
                sources.add_problem(node.location, node.path, "expected 1")


def _report_duplicate_probe_names_and_ids(sources: MergedConfigSources) -> None:
    names: dict[str, YamlNode] = {}
    ids: dict[str, tuple[str, YamlNode]] = {}
    for probe in sources.probes:
        name = probe.mapping_entries.get("name")
        if name is None or not isinstance(name.value, str) or name.invalid:
            continue
        if (first := names.setdefault(name.value, name)) is not name:
            sources.add_problem(name.location, name.path, f"duplicate name: another probe uses it at {first.location}")
            continue
        node = probe.mapping_entries.get("id", name)
        id = slugify(name.value) if node is name else str(node.value)
        if id == service.WATCHDOG_SELF_PROBE_ID:
            message = f"the id '{id}' is reserved for Watchdog's own probe: set another id"
            sources.add_problem(node.location, node.path, message)
            continue
        other_name, other_node = ids.setdefault(id, (str(name.raw_value), node))
        if other_node is not node and id:
            from_variable = name.interpolated_text is not None or node.interpolated_text is not None
            remedy = ": set id to distinguish them" if node is name else ""
            shown_id = "" if from_variable else f" '{id}'"
            message = f"duplicate id{shown_id}: probe '{other_name}' uses it at {other_node.location}{remedy}"
            sources.add_problem(node.location, node.path, message)


def _check_unique_heartbeat_tokens(config: Config, sources: MergedConfigSources) -> None:
    if len(config.probes) != len(sources.probes):
        return  # invalid probes have been reported already
    first: dict[str, YamlNode] = {}
    for probe, node in zip(config.probes, sources.probes, strict=True):
        token = _get_yaml_value_of_first_present_key(node.mapping_entries.get(probe.kind), "token", "token_file")
        if isinstance(probe, HeartbeatProbe) and token is not None:
            other = first.setdefault(probe.heartbeat.token.get_secret_value(), token)
            if other is not token:
                message = f"duplicate token: another heartbeat uses it at {other.location}"
                sources.add_problem(token.location, token.path, message)


def _check_receiver_name_syntax_and_references(sources: MergedConfigSources) -> None:
    for name, receiver in sources.receivers.items():
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or len(name) > 64:
            message = "expected a receiver name of up to 64 letters, digits, '-', '_' and '.'"
            sources.add_problem(receiver.key_location, receiver.path, message)
    for route in sources.routes:
        _check_unknown_receivers(route, sources)
        steps = route.mapping_entries.get("escalate")
        notified = {item.value for item in _list_receiver_reference_nodes(route)}
        for step in steps.list_items if steps else ():
            _check_unknown_receivers(step, sources)
            for item in _list_receiver_reference_nodes(step):
                if item.value in notified:
                    message = (
                        f"receiver '{item.raw_value}' is already notified by this route or by an earlier step, and each"
                        " is notified once: remove it here"
                    )
                    sources.add_problem(item.location, item.path, message)
                notified.add(item.value)


def _report_differing_app_tokens_of_one_slack_app(config: Config, sources: MergedConfigSources) -> None:
    """A bot token belongs to one app, whose clicks reach only the receivers with the app token of the connection."""
    first: dict[tuple[Secret | None, str], tuple[SlackNotifier, YamlNode]] = {}
    for name, receiver in config.receivers.items():
        slack = getattr(receiver, "slack", None)
        if not isinstance(slack, SlackNotifier) or not slack.receives_clicks:
            continue
        node = sources.receivers[name].mapping_entries["slack"]
        place = _get_yaml_value_of_first_present_key(node, "app_token", "app_token_file") or node
        other, other_place = first.setdefault((slack.bot_token, slack.api_url), (slack, place))
        if other.app_token != slack.app_token:
            message = (
                f"another receiver has the same bot_token, but not the same app_token, at {other_place.location}: "
                "Slack sends each click over one connection of the app, so give all its receivers the same app_token"
            )
            sources.add_problem(place.location, place.path, message)


def _check_unknown_receivers(node: YamlNode, sources: MergedConfigSources) -> None:
    """`node`: a route or a step of its escalation."""
    for item in _list_receiver_reference_nodes(node):
        if item.value not in sources.receivers:
            hint = build_did_you_mean_suffix(str(item.value), sources.receivers)
            hint = hint or f"; defined receivers: {', '.join(sources.receivers) or 'none'}"
            sources.add_problem(item.location, item.path, f"unknown receiver '{item.raw_value}'{hint}")


def _list_receiver_reference_nodes(node: YamlNode) -> list[YamlNode]:
    """The names under `receivers`, without those that are no valid text."""
    receivers = node.mapping_entries.get("receivers")
    items = receivers.list_items if receivers else ()
    return [item for item in items if isinstance(item.value, str) and not item.invalid]


def _report_duplicate_maintenance_names(sources: MergedConfigSources) -> None:
    first: dict[str, YamlNode] = {}
    section = sources.root.get("maintenance")
    for window in section.list_items if section is not None else ():
        name = window.mapping_entries.get("name")
        if name is not None and isinstance(name.value, str) and not name.invalid:
            other = first.setdefault(name.value, name)
            if other is not name:
                message = f"duplicate name: another window has it at {other.location}"
                sources.add_problem(name.location, name.path, message)


def _replace_probe_names_with_ids_in_maintenance(
    config: Config, probe_ids: Mapping[str, str], sources: MergedConfigSources
) -> tuple[MaintenanceWindowSettings, ...]:
    section = sources.root.get("maintenance")
    nodes = section.list_items if section is not None else []
    if len(nodes) != len(config.maintenance):
        return config.maintenance  # invalid windows have been reported already
    return tuple(
        window.model_copy(
            update={
                "match": _resolve_probe_name_in_match_settings(
                    window.match, probe_ids, _get_yaml_value_of_first_present_key(node, "match"), sources
                )
            }
        )
        for window, node in zip(config.maintenance, nodes, strict=True)
    )


def _apply_default_mail_server(config: Config, sources: MergedConfigSources) -> Mapping[str, Any]:
    """The receivers, with the SMTP server of the section `email` in every email notifier that has none."""
    receivers = dict(config.receivers)
    for name, receiver in config.receivers.items():
        email = getattr(receiver, "email", None)
        if email is None or email.server is not None:
            continue
        if config.email is not None:
            with_server = email.model_copy(update={"server": config.email})
            receivers[name] = receiver.model_copy(update={"email": with_server})
        elif "email" not in sources.root:
            node = sources.receivers[name].mapping_entries["email"]
            message = "no SMTP server: add a section `email: {host: smtp.example.com, from: watchdog@example.com}`"
            sources.add_problem(node.key_location, node.path, message)
    return receivers


def _check_api_keys_required(config: Config, sources: MergedConfigSources) -> None:
    if not config.server.listens_beyond_loopback or config.access.api_keys or "access" in sources.root:
        return
    listen = _get_yaml_value_of_first_present_key(sources.root.get("server"), "listen")
    if listen is not None:
        message = "an address other than loopback requires access.api_keys: add one, or listen on 127.0.0.1:8080"
        sources.add_problem(listen.location, listen.path, message)


def _report_missing_postgres_driver(config: Config, sources: MergedConfigSources) -> None:
    url = _get_yaml_value_of_first_present_key(sources.root.get("storage"), "url", "url_file")
    if url is not None and config.storage.url.startswith("postgresql") and find_spec("psycopg") is None:
        sources.add_problem(
            url.location, url.path, f"PostgreSQL requires an extra: {describe_missing_package_extra('postgres')}"
        )


def _resolve_probe_name_in_match_settings(
    match: ProbeMatchSettings, probe_ids: Mapping[str, str], node: YamlNode | None, sources: MergedConfigSources
) -> ProbeMatchSettings:
    """The match, with the id of its probe in place of the name. `probe_ids`: name or id -> id."""
    entry = _get_yaml_value_of_first_present_key(node, "probe")
    if entry is None or not match.probe:
        return match
    if match.probe not in probe_ids:
        literal_names = [
            name.value
            for probe in sources.probes
            if (name := probe.mapping_entries.get("name")) and name.interpolated_text is None
        ]
        hint = build_did_you_mean_suffix(match.probe, [name for name in probe_ids if name in literal_names])
        sources.add_problem(entry.location, entry.path, f"no probe has this id or name{hint}")
        return match
    return match.model_copy(update={"probe": probe_ids[match.probe]})


def _resolve_probe_names_of_inhibit_rules(
    config: Config, probe_ids: Mapping[str, str], sources: MergedConfigSources
) -> tuple[InhibitSettings, ...]:
    """The rules, with the ids of probes in place of their names."""
    nodes = list_inhibit_rule_nodes(sources)
    if len(nodes) != len(config.inhibit):
        return config.inhibit  # an invalid section has been reported already
    return tuple(
        rule.model_copy(
            update={
                field: _resolve_probe_name_in_match_settings(
                    getattr(rule, field), probe_ids, node.mapping_entries.get(field), sources
                )
                for field in ("when", "mute")
            }
        )
        for rule, node in zip(config.inhibit, nodes, strict=True)
    )


def _get_yaml_value_of_first_present_key(node: YamlNode | None, *names: str) -> YamlNode | None:
    """The first entry that has one of these names."""
    return next(
        (node.mapping_entries[name] for name in names if node is not None and name in node.mapping_entries), None
    )
