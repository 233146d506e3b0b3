"""The secrets of a configuration: which values are masked, and how problems are reported without them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar
from urllib.parse import unquote

from pydantic import BaseModel, SecretStr

from watchdog.config.models import Config, MatchSettings
from watchdog.config.problems import ConfigProblem
from watchdog.config.sources import MergedSources
from watchdog.config.yaml_tree import YamlNode
from watchdog.config_types import LoadContext
from watchdog.net.redact import SecretMask

ModelT = TypeVar("ModelT", bound=BaseModel)

MIN_MASKED_CHARS = 8
"""Values of variables and files are masked from this length on. Shorter ones would mask parts of ordinary words."""
SECRET_NAME_PATTERN = re.compile(r"authorization|cookie|token|secret|passw|api[-_]?key|credential", re.IGNORECASE)
"""Matches the names of headers and environment variables that hold secrets."""
_URL_PASSWORD_PATTERN = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s:]*:([^/@\s]+)@", re.IGNORECASE)


def collect_secrets(sources: MergedSources, load_contexts: Iterable[LoadContext], config: Config) -> Iterator[str]:
    """All values to mask: secret fields of any length, and values of variables and files from MIN_MASKED_CHARS on."""
    yield from _model_secrets(config)
    yield from _external_secrets(sources, load_contexts)


def collect_secret_names(sources: MergedSources, load_contexts: Iterable[LoadContext]) -> dict[str, str]:
    """Value -> where it is from, as written: `${NAME}`, or the path of a file."""
    names: dict[str, str] = {}
    for node in _interpolated_nodes(sources):
        names |= {value: f"${{{name}}}" for name, value in node.variables.items() if value}
        if node.interpolated_text:
            names.setdefault(node.interpolated_text, str(node.raw_value))
    for context in load_contexts:
        names |= context.secret_files
    return names


def mask_config(config: Config, mask: SecretMask) -> Config:
    """The configuration with masked names, groups and tags, in probes as well as in what is matched against them.

    Ids of probes identify them in URLs and in the database, so they are not masked.
    """

    def masked(model: ModelT, *fields: str) -> ModelT:
        original = {field: getattr(model, field) for field in fields}
        update = {
            name: mask(value) if isinstance(value, str) else tuple(map(mask, value)) for name, value in original.items()
        }
        return model if update == original else model.model_copy(update=update)

    probe_ids = {probe.id for probe in config.probes}

    def masked_match(match: MatchSettings) -> MatchSettings:
        return masked(match, "tags", "group", *(() if match.probe in probe_ids else ("probe",)))

    page = masked(config.status_page, "title", "groups")
    return config.model_copy(
        update={
            "probes": tuple(masked(probe, "name", "group", "tags", "runbook") for probe in config.probes),
            "routes": tuple(route.model_copy(update={"match": masked_match(route.match)}) for route in config.routes),
            "status_page": page.model_copy(update={"match": masked_match(page.match)}),
        }
    )


def redact_problems(sources: MergedSources, load_contexts: Iterable[LoadContext]) -> list[ConfigProblem]:
    """The problems in reading order, without duplicates, with `${NAME}` instead of the value of a variable."""
    placeholders: dict[str, str] = {}
    for node in _interpolated_nodes(sources):
        placeholders |= {value: f"${{{name}}}" for name, value in node.variables.items() if value}
        if node.interpolated_text:
            placeholders.setdefault(node.interpolated_text, str(node.raw_value))
    mask = SecretMask(_external_secrets(sources, load_contexts))
    nodes = {(*node.location, node.path): node for node in _interpolated_nodes(sources)}
    file_order = {file: i for i, file in enumerate(sources.base_folders)}

    def redacted(problem: ConfigProblem) -> ConfigProblem:
        node = nodes.get(problem[:4])
        own_values = (node.interpolated_text, *node.variables.values()) if node else ()
        values = [value for value in placeholders if len(value) > 3 or value in own_values]
        message = problem.message
        if values:
            longest_first = "|".join(map(re.escape, sorted(values, key=len, reverse=True)))
            message = re.sub(longest_first, lambda value: placeholders[value[0]], message)
        one_line = "".join(c if c.isprintable() else "�" for c in mask(message))
        return problem._replace(message=one_line)

    ordered = sorted(set(sources.problems), key=lambda p: (file_order.get(p.file, -1), p.line, p.column))
    return list(dict.fromkeys(map(redacted, ordered)))


def _interpolated_nodes(sources: MergedSources) -> Iterator[YamlNode]:
    return (node for tree in sources.trees for node in tree.walk() if node.variables)


def _external_secrets(sources: MergedSources, load_contexts: Iterable[LoadContext]) -> Iterator[str]:
    values = [secret for context in load_contexts for secret in context.secrets]
    for tree in sources.trees:
        for node in tree.walk():
            values += node.variables.values()
            if isinstance(node.value, str) and (password := _URL_PASSWORD_PATTERN.match(node.value)):
                yield from {password[1], unquote(password[1])}
            for name, entry in node.entries.items():
                if SECRET_NAME_PATTERN.search(name) and isinstance(entry.value, str) and not name.endswith("_file"):
                    values += _header_credentials(entry)
    for value in values:
        yield from (text for text in {value, value.strip()} if len(text) >= MIN_MASKED_CHARS)


def _header_credentials(node: YamlNode) -> list[str]:
    """The value of a header such as `Authorization: Bearer abc`, with and without its scheme."""
    return [] if node.variables else [str(node.value), str(node.value).partition(" ")[2]]


def _model_secrets(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        yield from _model_secrets(value.__dict__)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _model_secrets(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _model_secrets(item)
