"""What of a configuration must never be shown, and how its problems are told without it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar
from urllib.parse import unquote

from pydantic import BaseModel, SecretStr

from watchdog.config.document import Node
from watchdog.config.gather import Sources
from watchdog.config.models import Config, Match
from watchdog.config.problems import Problem
from watchdog.fields import Reading
from watchdog.wire.redact import Mask

M = TypeVar("M", bound=BaseModel)

WORTH_MASKING = 8
"""Characters: what comes from outside is masked from this length on; anything shorter would hide half of every text."""
_TELLING = re.compile(r"authorization|cookie|token|secret|passw|api[-_]?key|credential", re.IGNORECASE)
"""Names of headers and environment variables that hold secrets."""
_USERINFO = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s:]*:([^/@\s]+)@", re.IGNORECASE)


def secrets_of(sources: Sources, readings: Iterable[Reading], config: Config) -> Iterator[str]:
    """Every value to mask: secret fields of any length, and long ones that come from variables and files."""
    yield from _of_models(config)
    yield from _of_files(sources, readings)


def conceal(config: Config, mask: Mask) -> Config:
    """The configuration, masked in what is said of its probes: in them, and in what is matched against them.

    Keys are identities, and stay.
    """

    def masked(model: M, *fields: str) -> M:
        told = {field: getattr(model, field) for field in fields}
        hidden = {name: mask(text) if isinstance(text, str) else tuple(map(mask, text)) for name, text in told.items()}
        return model if hidden == told else model.model_copy(update=hidden)

    keys = {probe.key for probe in config.probes}

    def matching(match: Match) -> Match:
        return masked(match, "tags", "group", *(() if match.probe in keys else ("probe",)))

    page = masked(config.status_page, "title", "groups")
    return config.model_copy(
        update={
            "probes": tuple(masked(probe, "name", "group", "tags", "runbook") for probe in config.probes),
            "routes": tuple(route.model_copy(update={"match": matching(route.match)}) for route in config.routes),
            "status_page": page.model_copy(update={"show": matching(page.show)}),
        }
    )


def veil(sources: Sources, readings: Iterable[Reading]) -> list[Problem]:
    """The problems in the order of reading, each once, with `${NAME}` in the place of what a variable holds."""
    named: dict[str, str] = {}
    for node in _drawn(sources):
        named |= {value: f"${{{name}}}" for name, value in node.variables.items() if value}
        if node.text:
            named.setdefault(node.text, str(node.written))
    mask = Mask(_of_files(sources, readings))
    nodes = {(*node.mark, node.path): node for node in _drawn(sources)}
    order = {file: i for i, file in enumerate(sources.folders)}

    def told(problem: Problem) -> Problem:
        here = nodes.get(problem[:4])
        hidden = [v for v in named if len(v) > 3 or (here and v in (here.text, *here.variables.values()))]
        message = problem.message
        if hidden:
            longest_first = "|".join(map(re.escape, sorted(hidden, key=len, reverse=True)))
            message = re.sub(longest_first, lambda found: named[found[0]], message)
        one_line = "".join(c if c.isprintable() else "�" for c in mask(message))
        return problem._replace(message=one_line)

    ordered = sorted(set(sources.problems), key=lambda p: (order.get(p.file, -1), p.line, p.column))
    return list(dict.fromkeys(map(told, ordered)))


def _drawn(sources: Sources) -> Iterator[Node]:
    return (node for tree in sources.trees for node in tree.walk() if node.variables)


def _of_files(sources: Sources, readings: Iterable[Reading]) -> Iterator[str]:
    outside = [secret for reading in readings for secret in reading.secrets]
    for tree in sources.trees:
        for node in tree.walk():
            outside += node.variables.values()
            if isinstance(node.value, str) and (found := _USERINFO.match(node.value)):
                yield from {found[1], unquote(found[1])}
            for name, below in node.entries.items():
                if _TELLING.search(name) and isinstance(below.value, str) and not name.endswith("_file"):
                    outside += _credentials(below)
    for value in outside:
        yield from (text for text in {value, value.strip()} if len(text) >= WORTH_MASKING)


def _credentials(node: Node) -> list[str]:
    """What a header such as `Authorization: Bearer abc` holds, whole and without its scheme."""
    return [] if node.variables else [str(node.value), str(node.value).partition(" ")[2]]


def _of_models(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        yield from _of_models(value.__dict__)
    elif isinstance(value, dict):
        for below in value.values():
            yield from _of_models(below)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _of_models(below)
