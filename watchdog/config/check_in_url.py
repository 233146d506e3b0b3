"""The check-in address of a heartbeat, read without validating the rest of the configuration.

`watchdog exec` starts with every run of a cron job; loading all models would take it several times as long.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from watchdog.config.sources import MergedConfigSources, read_and_merge_config_files
from watchdog.config_values import DEFAULT_LISTEN_ADDRESS, build_check_in_url, read_secret_file, slugify

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from watchdog.config.yaml_tree import YamlNode


def load_heartbeat_check_in_url_from_raw_config(path: Path, name_or_id: str, env: Mapping[str, str]) -> str:
    """The address of the heartbeat with this name or id. Empty if there is none, or if a field that is part of the
    address is invalid; `load_check_in_url_from_validated_config` explains both. Problems of other fields do not
    matter."""
    sources = read_and_merge_config_files(path, None, env)
    for probe in sources.probes:
        try:
            if "heartbeat" in probe.mapping_entries and name_or_id in _read_yaml_probe_name_and_id(probe):
                return _build_check_in_url_from_raw_config(sources, probe)
        except ValueError:
            continue
    return ""


def load_check_in_url_from_validated_config(path: Path, name_or_id: str, env: Mapping[str, str]) -> str:
    """The same, but of the whole configuration, validated. Raises LookupError that explains the first problem."""
    from watchdog.config.load import load_config
    from watchdog.config.problems import ConfigError
    from watchdog.probes.heartbeat import HeartbeatProbe

    try:
        config = load_config(path, env=env).config
    except ConfigError as e:
        raise LookupError(e.problems[0]) from None
    heartbeats = [probe for probe in config.probes if isinstance(probe, HeartbeatProbe)]
    for probe in heartbeats:
        if name_or_id in (probe.name, probe.id):
            token = probe.heartbeat.token.get_secret_value()
            return build_check_in_url(config.server.listen, config.server.public_url, token)
    names = ", ".join(probe.name for probe in heartbeats) or "none"
    raise LookupError(f"no heartbeat is named {name_or_id!r}; heartbeats: {names}")


def _read_yaml_probe_name_and_id(probe: YamlNode) -> tuple[str, str]:
    name = _read_yaml_text_field_or_raise(probe, "name").strip()
    return name, _read_yaml_text_field_or_raise(probe, "id", slugify(name))


def _build_check_in_url_from_raw_config(sources: MergedConfigSources, probe: YamlNode) -> str:
    listen, public_url = DEFAULT_LISTEN_ADDRESS, ""
    if (server := sources.root.get("server")) is not None:
        listen, public_url = (
            _read_yaml_text_field_or_raise(server, "listen", listen),
            _read_yaml_text_field_or_raise(server, "public_url", public_url),
        )
    if not re.fullmatch(r"(https?://[^\s\x00-\x1f\x7f]+)?", public_url):
        raise ValueError("public_url is not a link")
    heartbeat = probe.mapping_entries["heartbeat"]
    if "token_file" in heartbeat.mapping_entries:
        token = read_secret_file(
            sources.base_folders[probe.location.file] / _read_yaml_text_field_or_raise(heartbeat, "token_file")
        )
    else:
        token = _read_yaml_text_field_or_raise(heartbeat, "token")
    if not re.fullmatch(r"[A-Za-z0-9_-]{16,}", token):
        raise ValueError("the token is too short, or contains characters that a URL cannot contain")
    return build_check_in_url(listen, public_url, token)


def _read_yaml_text_field_or_raise(node: YamlNode, field: str, default: str | None = None) -> str:
    """The value of a field. Raises ValueError if it is missing and has no default, or is not text."""
    value = node.mapping_entries.get(field)
    if value is None and default is not None:
        return default
    text = None if value is None else value.value if value.interpolated_text is None else value.interpolated_text
    if value is None or value.invalid or not isinstance(text, str):
        raise ValueError(f"{node.path}.{field} is not text")
    return text
