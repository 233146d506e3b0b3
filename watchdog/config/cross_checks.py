"""What shows only when sections are seen together: names that meet, names that lead nowhere, what needs another."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from watchdog.config.models import Config, MatchSettings
from watchdog.config.problems import did_you_mean
from watchdog.config.sources import MergedSources
from watchdog.config.yaml_tree import YamlNode
from watchdog.config_values import slugify
from watchdog.probes import HeartbeatProbe

INCLUDABLE_SECTIONS = ("probes", "receivers", "routes", "include", "version")
"""Sections that an included file may hold."""
POSTGRES_INSTALL_COMMAND = "pip install 'watchdog-monitor[postgres]'"


def cross_validate(config: Config, sources: MergedSources) -> Config:
    """The configuration with its references resolved. What is wrong goes to the sources' problems."""
    _check_included_sections(sources)
    _check_unique_probe_names_and_ids(sources)
    _check_unique_heartbeat_tokens(config, sources)
    _check_receivers_exist(sources)
    _check_access_keys_required(config, sources)
    _check_postgres_driver_installed(config, sources)
    keys = {probe.name: probe.id for probe in config.probes} | {probe.id: probe.id for probe in config.probes}
    routes = config.routes
    if len(routes) == len(sources.routes):
        routes = tuple(
            route.model_copy(
                update={"match": _resolve_probe_reference(route.match, keys, _find_entry(node, "match"), sources)}
            )
            for route, node in zip(routes, sources.routes, strict=True)
        )
    match = _resolve_probe_reference(
        config.status_page.match, keys, _find_entry(sources.root.get("status_page"), "match"), sources
    )
    resolved: dict[str, Any] = {
        "receivers": _apply_default_mail_server(config, sources),
        "routes": routes,
        "status_page": config.status_page.model_copy(update={"match": match}),
    }
    return config.model_copy(update=resolved)


def _check_included_sections(sources: MergedSources) -> None:
    """An included file holds shared sections only."""
    for tree in sources.trees[1:]:
        for name, node in tree.entries.items():
            if name in Config.model_fields and name not in INCLUDABLE_SECTIONS:
                sources.add_problem(
                    node.key_location,
                    node.path,
                    f"'{name}' belongs in the main file; here stand probes, receivers, routes",
                )
            elif name not in INCLUDABLE_SECTIONS:
                why = f"unknown section{did_you_mean(name, INCLUDABLE_SECTIONS)}"
                sources.add_problem(node.key_location, node.path, why)
            elif name == "version" and node.value != 1:
                sources.add_problem(node.location, node.path, "expected 1")


def _check_unique_probe_names_and_ids(sources: MergedSources) -> None:
    names: dict[str, YamlNode] = {}
    keys: dict[str, tuple[str, YamlNode]] = {}
    for probe in sources.probes:
        name = probe.entries.get("name")
        if name is None or not isinstance(name.value, str) or name.invalid:
            continue
        if (first := names.setdefault(name.value, name)) is not name:
            sources.add_problem(name.location, name.path, f"another probe has this name, at {first.location}")
            continue
        key = probe.entries.get("id", name)
        value = str(key.value) if key is not name else slugify(name.value)
        other, taken = keys.setdefault(value, (str(name.raw_value), key))
        if taken is not key and value:
            why = f"the id '{value}'" if name.interpolated_text is None and key.interpolated_text is None else "its id"
            remedy = "" if key is not name else ": give this one an id of its own"
            sources.add_problem(
                key.location, key.path, f"{why} belongs to the probe '{other}', at {taken.location}{remedy}"
            )


def _check_unique_heartbeat_tokens(config: Config, sources: MergedSources) -> None:
    if len(config.probes) != len(sources.probes):
        return  # some are wrong in themselves, and told to be
    first: dict[str, YamlNode] = {}
    for probe, node in zip(config.probes, sources.probes, strict=True):
        key = _find_entry(node.entries.get(probe.kind), "token", "token_file")
        if isinstance(probe, HeartbeatProbe) and key is not None:
            other = first.setdefault(probe.heartbeat.token.get_secret_value(), key)
            if other is not key:
                sources.add_problem(key.location, key.path, f"another heartbeat has this token, at {other.location}")


def _check_receivers_exist(sources: MergedSources) -> None:
    for name, receiver in sources.receivers.items():
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or len(name) > 64:
            why = "expected a name of letters, digits, '-', '_' and '.': destinations are called oncall/slack"
            sources.add_problem(receiver.key_location, receiver.path, why)
    for route in sources.routes:
        told = route.entries.get("receivers")
        for item in told.items if told else ():
            if isinstance(item.value, str) and item.value not in sources.receivers and not item.invalid:
                hint = did_you_mean(item.value, sources.receivers)
                hint = hint or f"; known: {', '.join(sources.receivers) or 'none'}"
                sources.add_problem(item.location, item.path, f"no receiver '{item.raw_value}'{hint}")


def _apply_default_mail_server(config: Config, sources: MergedSources) -> Mapping[str, Any]:
    receivers = dict(config.receivers)
    for name, receiver in config.receivers.items():
        email = getattr(receiver, "email", None)
        if email is None or email.server is not None:
            continue
        if config.email is not None:
            with_server = email.model_copy(update={"server": config.email})
            receivers[name] = receiver.model_copy(update={"email": with_server})
        elif "email" not in sources.root:
            node = sources.receivers[name].entries["email"]
            why = "no mail server: add a section 'email: {host: smtp.example.com, from: watchdog@example.com}'"
            sources.add_problem(node.key_location, node.path, why)
    return receivers


def _check_access_keys_required(config: Config, sources: MergedSources) -> None:
    if not config.server.listens_beyond_loopback or config.access.api_keys or "access" in sources.root:
        return
    listen = _find_entry(sources.root.get("server"), "listen")
    if listen is not None:
        why = "beyond this machine the operators' pages need access.api_keys: add one, or listen on 127.0.0.1:8080"
        sources.add_problem(listen.location, listen.path, why)


def _check_postgres_driver_installed(config: Config, sources: MergedSources) -> None:
    url = _find_entry(sources.root.get("storage"), "url", "url_file")
    if url is not None and config.storage.url.startswith("postgresql") and find_spec("psycopg") is None:
        sources.add_problem(url.location, url.path, f"PostgreSQL needs an extra: {POSTGRES_INSTALL_COMMAND}")


def _resolve_probe_reference(
    match: MatchSettings, probe_ids: Mapping[str, str], node: YamlNode | None, sources: MergedSources
) -> MatchSettings:
    """The match with its probe named by key."""
    probe = _find_entry(node, "probe")
    if probe is None or not match.probe:
        return match
    if match.probe not in probe_ids:
        names = [
            name.value for one in sources.probes if (name := one.entries.get("name")) and name.interpolated_text is None
        ]
        hint = did_you_mean(match.probe, [name for name in probe_ids if name in names])
        sources.add_problem(probe.location, probe.path, f"no probe has this id or name{hint}")
        return match
    return match.model_copy(update={"probe": probe_ids[match.probe]})


def _find_entry(node: YamlNode | None, *names: str) -> YamlNode | None:
    """The entry of one of these names."""
    return next((node.entries[name] for name in names if node is not None and name in node.entries), None)
