"""From a file to a configuration: read, merge, validate, look across; every problem told at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from watchdog.config.across import look_across
from watchdog.config.document import Node, shown
from watchdog.config.explain import explain, fields, reread
from watchdog.config.gather import Sources, gather
from watchdog.config.later import LATER, NOT_YET
from watchdog.config.models import Config, Receiver, Route
from watchdog.config.problems import ConfigError, did_you_mean
from watchdog.config.secrecy import conceal, secrets_of, veil
from watchdog.fields import Model, Reading
from watchdog.probes import KINDS, Probe
from watchdog.wire.redact import Mask

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, ready to be run."""

    config: Config
    specs: Mapping[str, str]
    """Probe key -> its configuration as written, in YAML: variables not filled in, defaults merged."""
    mask: Mask
    """Hides every secret that the configuration holds."""
    files: tuple[Path, ...]
    """What was read."""


def load(path: Path | None, text: str | None = None, env: Mapping[str, str] = os.environ) -> Loaded:
    """Read a file, or the text in its stead (`path` then names it). Raises ConfigError with all that is wrong."""
    sources = gather(path, text, env)
    reader = _Reader(sources)
    probes = {probe.key: (node, probe) for node in sources.probes if (probe := reader.probe(node)) is not None}
    sections = {name: value for name in sources.root if (value := reader.section(name)) is not None}
    sections["probes"] = tuple(probe for _, probe in probes.values())
    sections["receivers"] = {name: value for name in sources.receivers if (value := reader.receiver(name)) is not None}
    sections["routes"] = tuple(route for node in sources.routes if (route := reader.model(Route, node, "routes")))
    config = look_across(Config.model_construct(**sections), sources)
    if sources.problems:
        raise ConfigError(veil(sources, reader.readings.values()))
    mask = Mask(secrets_of(sources, reader.readings.values(), config))
    specs = {key: mask(_yaml(node.as_written())) for key, (node, _) in probes.items()}
    return Loaded(conceal(config, mask), specs, mask, tuple(sources.files))


def _yaml(spec: Any) -> str:
    return str(yaml.dump(spec, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=120))


class _Reader:
    """Makes models of trees, and keeps what is wrong with them."""

    def __init__(self, sources: Sources):
        self.sources = sources
        self.readings = {file: Reading(folder) for file, folder in sources.folders.items()}

    def model(self, model: type[M], node: Node, section: str) -> M | None:
        """`section`: the field that holds such models."""
        while True:
            try:
                return model.model_validate(node.plain(), context=self.readings[node.mark.file])
            except ValidationError as e:
                if not reread(e, node):
                    self.sources.problems += explain(e, model, node, section)
                    return None

    def section(self, name: str) -> Any:
        """The value of one of the main file's sections; those that files share come from elsewhere."""
        if name in ("probes", "receivers", "routes"):
            return None
        node = self.sources.root[name]
        config = self.model(Config, Node({name: node}, node.key, "", node.key), "")
        return config and getattr(config, name)

    def receiver(self, name: str) -> Any:
        return self.model(Receiver, self.sources.receivers[name], "receivers")

    def probe(self, node: Node) -> Probe | None:
        if not isinstance(node.value, dict):
            if not node.broken:
                self.sources.complain(node.mark, node.path, "expected a probe: a mapping with a name and a kind")
            return None
        kinds = [kind for kind in KINDS if kind in node.entries]
        if len(kinds) == 1:
            return self.model(KINDS[kinds[0]], node, "probes")
        if kinds:
            second = node.entries[kinds[1]]
            self.sources.complain(second.key, second.path, f"a probe has one kind; this one is {kinds[0]} already")
        else:
            self.without_kind(node)
        return None

    def without_kind(self, node: Node) -> None:
        """Say what is missing, and still check the fields that every kind has."""
        common = fields(Probe)
        strangers = [name for name in node.entries if name not in common]
        for name in strangers:
            found = node.entries[name]
            hint = did_you_mean(name, [*common, *KINDS]) or f"; the kinds of probes are {' and '.join(KINDS)}"
            message = NOT_YET if name in LATER["probes"] else f"unknown field '{shown(name)}'{hint}"
            self.sources.complain(found.key, found.path, message)
        if not strangers:
            self.sources.complain(node.mark, node.path, f"no kind: add {' or '.join(f'{kind}:' for kind in KINDS)}")
        kind, model = next(iter(KINDS.items()))
        judged = {name: below for name, below in node.entries.items() if name in {*common} - {"expect", "prefer"}}
        ours = f"{node.path}.{kind}"
        before = len(self.sources.problems)
        self.model(model, Node(judged, node.mark, node.path, node.key), "probes")
        self.sources.problems[before:] = [p for p in self.sources.problems[before:] if p.path != ours]
