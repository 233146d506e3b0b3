"""What shows only when sections are seen together: names that meet, names that lead nowhere, what needs another."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from watchdog.config.document import Node
from watchdog.config.gather import Sources
from watchdog.config.models import Config, Match
from watchdog.config.problems import did_you_mean
from watchdog.fields import slug
from watchdog.probes import HeartbeatProbe

EXTRA = "pip install 'watchdog-monitor[postgres]'"


def look_across(config: Config, sources: Sources) -> Config:
    """The configuration with its references resolved. What is wrong goes to the sources' problems."""
    _names_are_distinct(sources)
    _check_ins_are_told_apart(config, sources)
    _receivers_are_known(sources)
    _pages_are_guarded(config, sources)
    _database_is_reachable(config, sources)
    keys = {probe.name: probe.key for probe in config.probes} | {probe.key: probe.key for probe in config.probes}
    routes = config.routes
    if len(routes) == len(sources.routes):
        routes = tuple(
            route.model_copy(update={"match": _by_key(route.match, keys, _at(node, "match"), sources)})
            for route, node in zip(routes, sources.routes, strict=True)
        )
    show = _by_key(config.status_page.show, keys, _at(sources.root.get("status_page"), "show"), sources)
    resolved: dict[str, Any] = {
        "receivers": _with_mail_server(config, sources),
        "routes": routes,
        "status_page": config.status_page.model_copy(update={"show": show}),
    }
    return config.model_copy(update=resolved)


def _names_are_distinct(sources: Sources) -> None:
    names: dict[str, Node] = {}
    keys: dict[str, tuple[str, Node]] = {}
    for probe in sources.probes:
        name = probe.entries.get("name")
        if name is None or not isinstance(name.value, str) or name.broken:
            continue
        if (first := names.setdefault(name.value, name)) is not name:
            sources.complain(name.mark, name.path, f"another probe has this name, at {first.mark}")
            continue
        key = probe.entries.get("key", name)
        value = str(key.value) if key is not name else slug(name.value)
        other, taken = keys.setdefault(value, (str(name.written), key))
        if taken is not key and value:
            why = f"the key '{value}'" if name.text is None and key.text is None else "its key"
            remedy = "" if key is not name else ": give this one a key of its own"
            sources.complain(key.mark, key.path, f"{why} belongs to the probe '{other}', at {taken.mark}{remedy}")


def _check_ins_are_told_apart(config: Config, sources: Sources) -> None:
    if len(config.probes) != len(sources.probes):
        return  # some are wrong in themselves, and told to be
    first: dict[str, Node] = {}
    for probe, node in zip(config.probes, sources.probes, strict=True):
        key = _at(node.entries.get(probe.kind), "key", "key_file")
        if isinstance(probe, HeartbeatProbe) and key is not None:
            other = first.setdefault(probe.heartbeat.key.get_secret_value(), key)
            if other is not key:
                sources.complain(key.mark, key.path, f"another heartbeat has this key, at {other.mark}")


def _receivers_are_known(sources: Sources) -> None:
    for name, receiver in sources.receivers.items():
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or len(name) > 64:
            why = "expected a name of letters, digits, '-', '_' and '.': destinations are called oncall/slack"
            sources.complain(receiver.key, receiver.path, why)
    for route in sources.routes:
        told = route.entries.get("receivers")
        for item in told.items if told else ():
            if isinstance(item.value, str) and item.value not in sources.receivers and not item.broken:
                hint = did_you_mean(item.value, sources.receivers)
                hint = hint or f"; known: {', '.join(sources.receivers) or 'none'}"
                sources.complain(item.mark, item.path, f"no receiver '{item.written}'{hint}")


def _with_mail_server(config: Config, sources: Sources) -> Mapping[str, Any]:
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
            sources.complain(node.key, node.path, why)
    return receivers


def _pages_are_guarded(config: Config, sources: Sources) -> None:
    if not config.server.beyond_loopback or config.access.keys or "access" in sources.root:
        return
    listen = _at(sources.root.get("server"), "listen")
    if listen is not None:
        why = "beyond this machine the operators' pages need access.keys: add one, or listen on 127.0.0.1:8080"
        sources.complain(listen.mark, listen.path, why)


def _database_is_reachable(config: Config, sources: Sources) -> None:
    url = _at(sources.root.get("storage"), "url", "url_file")
    if url is not None and config.storage.url.startswith("postgresql") and find_spec("psycopg") is None:
        sources.complain(url.mark, url.path, f"PostgreSQL needs an extra: {EXTRA}")


def _by_key(match: Match, keys: Mapping[str, str], node: Node | None, sources: Sources) -> Match:
    """The match with its probe named by key."""
    probe = _at(node, "probe")
    if probe is None or not match.probe:
        return match
    if match.probe not in keys:
        names = [name.value for one in sources.probes if (name := one.entries.get("name")) and name.text is None]
        hint = did_you_mean(match.probe, [name for name in keys if name in names])
        sources.complain(probe.mark, probe.path, f"no probe has this key or name{hint}")
        return match
    return match.model_copy(update={"probe": keys[match.probe]})


def _at(node: Node | None, *names: str) -> Node | None:
    """The entry of one of these names."""
    return next((node.entries[name] for name in names if node is not None and name in node.entries), None)
