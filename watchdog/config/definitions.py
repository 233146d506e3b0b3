"""Digests of a loaded configuration: equal if two processes mean the same, however their files are written.

Values of variables count; secrets count by their name, so that a rotated secret is no other configuration. How a
process listens, stores and protects its pages does not count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, SecretStr

from watchdog.config.secret_uses import (
    FIELD_NAMES_THAT_ONLY_LOOK_SECRET,
    MIN_MASKED_SECRET_CHARS,
    mask_literal_secret_url_parameters,
)
from watchdog.domain.config_changes import ConfigSectionSnapshot
from watchdog.domain.text import map_json_strings
from watchdog.net.redact import MASK_PLACEHOLDER, SECRET_NAME_PATTERN

if TYPE_CHECKING:
    from watchdog.config.load import LoadedConfig
    from watchdog.domain.model import Json

CONFIG_SECTIONS_OF_ONE_PROCESS = frozenset(
    {"server", "storage", "access", "connectivity", "dead_mans_switch", "network", "reload"}
)
SECTIONS_NOT_IN_CONFIG_DIGEST = CONFIG_SECTIONS_OF_ONE_PROCESS | {"version", "include", "managed", "defaults"}
"""Sections that concern one process, or that others already contain."""
_URL_CREDENTIALS_PATTERN = re.compile(r"(?<=://)[^/@\s]*@")
_UNNAMED_SECRET_PLACEHOLDER = "secret"


class ConfigDigests:
    """The digests of a configuration and of its parts."""

    def __init__(self, loaded_config: LoadedConfig):
        self._config, self._secret_names = loaded_config.config, loaded_config.secret_names
        self._mask = loaded_config.mask
        secret_values = [
            value
            for value, name in self._secret_names.items()
            if len(value) >= MIN_MASKED_SECRET_CHARS and SECRET_NAME_PATTERN.search(name)
        ]
        longest_first = sorted(secret_values, key=len, reverse=True)
        self._secret_values = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    @property
    def digest(self) -> str:
        """Of the whole configuration. The order of probes means nothing; that of routes does."""
        names = type(self._config).model_fields.keys() - SECTIONS_NOT_IN_CONFIG_DIGEST - {"probes"}
        sections = {name: self._to_secretless_json(getattr(self._config, name), name) for name in names}
        return digest_json(sections | {"probes": self.compute_probe_digests()})

    def compute_probe_digests(self) -> dict[str, str]:
        """Probe id -> digest of the probe."""
        return {probe.id: digest_json(self._to_secretless_json(probe)) for probe in self._config.probes}

    def build_config_section_snapshots(self, *, of_one_process: bool) -> dict[str, ConfigSectionSnapshot]:
        """The sections that concern this process alone, or all others except for the probes."""
        names = type(self._config).model_fields.keys() - {"probes"}
        names = names & CONFIG_SECTIONS_OF_ONE_PROCESS if of_one_process else names - SECTIONS_NOT_IN_CONFIG_DIGEST
        sections = {name: self._to_secretless_json(getattr(self._config, name), name) for name in sorted(names)}
        snapshots = {}
        for name, value in sections.items():
            fields = dict(_iter_leaf_fields(map_json_strings(value, self._mask_value), name))
            if isinstance(value, list | dict):
                fields.pop(name, None)  # the section is empty
            snapshots[name] = ConfigSectionSnapshot(digest_json(value), fields)
        return snapshots

    def _mask_value(self, text: str) -> str:
        masked = self._mask(text)
        return mask_literal_secret_url_parameters(masked, MASK_PLACEHOLDER) if "://" in masked else masked

    def compute_destination_digests(self) -> dict[str, str]:
        """Destination -> digest of how it is notified."""
        return {
            destination: digest_json([self._to_secretless_json(notifier), receiver.send_resolved])
            for name, receiver in self._config.receivers.items()
            for destination, notifier in receiver.build_notifiers_by_destination(name).items()
        }

    def _to_secretless_json(self, value: Any, name: str = "") -> Json:
        """A value as JSON, without fields that have their default, and without the values of secrets."""
        if isinstance(value, SecretStr):
            return self._secret_names.get(value.get_secret_value(), _UNNAMED_SECRET_PLACEHOLDER)
        if isinstance(value, BaseModel):
            fields = type(value).model_fields
            set_values = {
                key: getattr(value, key) for key, field in fields.items() if getattr(value, key) != field.default
            }
            return {
                "": type(value).__name__,
                **{key: self._to_secretless_json(item, key) for key, item in set_values.items()},
            }
        if isinstance(value, Mapping):
            return {str(key): self._to_secretless_json(item, str(key)) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            items = [self._to_secretless_json(item, name) for item in value]
            return items if isinstance(value, list | tuple) else sorted(items, key=repr)
        if isinstance(value, Enum):
            return value.value
        return self._remove_secrets(value, name) if isinstance(value, str) else repr(value)

    def _remove_secrets(self, text: str, name: str) -> str:
        if SECRET_NAME_PATTERN.search(name) and name not in FIELD_NAMES_THAT_ONLY_LOOK_SECRET:
            return self._secret_names.get(text, _UNNAMED_SECRET_PLACEHOLDER)
        if self._secret_values is not None:
            text = self._secret_values.sub(lambda match: self._secret_names[match[0]], text)
        return _URL_CREDENTIALS_PATTERN.sub("", text)


def digest_json(value: Json) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=16).hexdigest()


def parse_yaml_values_by_field_path(text: str) -> dict[str, str]:
    """The fields of YAML that Watchdog has written: path, such as `alert.severity` -> value."""
    return dict(_iter_leaf_fields(yaml.load(text, yaml.CSafeLoader)))


def _iter_leaf_fields(value: Json, path: str = "") -> Iterator[tuple[str, str]]:
    """Every scalar inside a value with its path. An empty key names a type, and is no field."""
    if not isinstance(value, dict | list):
        yield path, str(value)
        return
    entries = [entry for entry in (value.items() if isinstance(value, dict) else enumerate(value)) if entry[0] != ""]
    if not entries and path:
        yield path, "{}" if isinstance(value, dict) else "[]"
    for key, item in entries:
        yield from _iter_leaf_fields(item, f"{path}.{key}".lstrip("."))
