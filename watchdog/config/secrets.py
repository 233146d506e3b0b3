"""What of a configuration must never be shown, and how its problems are told without it."""

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
"""Characters: what comes from outside is masked from this length on; anything shorter would hide half of every text."""
_SECRET_NAME_PATTERN = re.compile(r"authorization|cookie|token|secret|passw|api[-_]?key|credential", re.IGNORECASE)
"""Names of headers and environment variables that hold secrets."""
_URL_PASSWORD_PATTERN = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s:]*:([^/@\s]+)@", re.IGNORECASE)


def collect_secrets(sources: MergedSources, load_contexts: Iterable[LoadContext], config: Config) -> Iterator[str]:
    """Every value to mask: secret fields of any length, and long ones that come from variables and files."""
    yield from _model_secrets(config)
    yield from _external_secrets(sources, load_contexts)


def mask_config(config: Config, mask: SecretMask) -> Config:
    """The configuration, masked in what is said of its probes: in them, and in what is matched against them.

    Keys are identities, and stay.
    """

    def masked(model: ModelT, *fields: str) -> ModelT:
        told = {field: getattr(model, field) for field in fields}
        hidden = {name: mask(text) if isinstance(text, str) else tuple(map(mask, text)) for name, text in told.items()}
        return model if hidden == told else model.model_copy(update=hidden)

    keys = {probe.id for probe in config.probes}

    def matching(match: MatchSettings) -> MatchSettings:
        return masked(match, "tags", "group", *(() if match.probe in keys else ("probe",)))

    page = masked(config.status_page, "title", "groups")
    return config.model_copy(
        update={
            "probes": tuple(masked(probe, "name", "group", "tags", "runbook") for probe in config.probes),
            "routes": tuple(route.model_copy(update={"match": matching(route.match)}) for route in config.routes),
            "status_page": page.model_copy(update={"match": matching(page.match)}),
        }
    )


def redact_problems(sources: MergedSources, load_contexts: Iterable[LoadContext]) -> list[ConfigProblem]:
    """The problems in the order of reading, each once, with `${NAME}` in the place of what a variable holds."""
    named: dict[str, str] = {}
    for node in _interpolated_nodes(sources):
        named |= {value: f"${{{name}}}" for name, value in node.variables.items() if value}
        if node.interpolated_text:
            named.setdefault(node.interpolated_text, str(node.raw_value))
    mask = SecretMask(_external_secrets(sources, load_contexts))
    nodes = {(*node.location, node.path): node for node in _interpolated_nodes(sources)}
    order = {file: i for i, file in enumerate(sources.base_folders)}

    def told(problem: ConfigProblem) -> ConfigProblem:
        here = nodes.get(problem[:4])
        hidden = [v for v in named if len(v) > 3 or (here and v in (here.interpolated_text, *here.variables.values()))]
        message = problem.message
        if hidden:
            longest_first = "|".join(map(re.escape, sorted(hidden, key=len, reverse=True)))
            message = re.sub(longest_first, lambda found: named[found[0]], message)
        one_line = "".join(c if c.isprintable() else "�" for c in mask(message))
        return problem._replace(message=one_line)

    ordered = sorted(set(sources.problems), key=lambda p: (order.get(p.file, -1), p.line, p.column))
    return list(dict.fromkeys(map(told, ordered)))


def _interpolated_nodes(sources: MergedSources) -> Iterator[YamlNode]:
    return (node for tree in sources.trees for node in tree.walk() if node.variables)


def _external_secrets(sources: MergedSources, load_contexts: Iterable[LoadContext]) -> Iterator[str]:
    outside = [secret for reading in load_contexts for secret in reading.secrets]
    for tree in sources.trees:
        for node in tree.walk():
            outside += node.variables.values()
            if isinstance(node.value, str) and (found := _URL_PASSWORD_PATTERN.match(node.value)):
                yield from {found[1], unquote(found[1])}
            for name, below in node.entries.items():
                if _SECRET_NAME_PATTERN.search(name) and isinstance(below.value, str) and not name.endswith("_file"):
                    outside += _header_credentials(below)
    for value in outside:
        yield from (text for text in {value, value.strip()} if len(text) >= MIN_MASKED_CHARS)


def _header_credentials(node: YamlNode) -> list[str]:
    """What a header such as `Authorization: Bearer abc` holds, whole and without its scheme."""
    return [] if node.variables else [str(node.value), str(node.value).partition(" ")[2]]


def _model_secrets(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        yield from _model_secrets(value.__dict__)
    elif isinstance(value, dict):
        for below in value.values():
            yield from _model_secrets(below)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _model_secrets(below)
