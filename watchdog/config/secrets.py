"""The secrets of a configuration: which values are masked, and how problems are reported without them.

Masking by value replaces a secret wherever it occurs. It is safe only for values that occur nowhere else: a short
secret, or one that is a word of Watchdog's own messages, would garble them and reveal itself. Such a secret is masked
where the configuration has it (in URLs, headers and fields), and is a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, unquote

from pydantic import BaseModel, SecretStr

from watchdog.config.models import Config, MatchSettings
from watchdog.config.problems import ConfigProblem
from watchdog.config.references import replace_references
from watchdog.config.sources import MergedSources
from watchdog.config.yaml_tree import YamlNode
from watchdog.config_types import LoadContext
from watchdog.domain.model import Json
from watchdog.net.redact import MASK_PLACEHOLDER, SecretMask
from watchdog.resources import resource_path

ModelT = TypeVar("ModelT", bound=BaseModel)

MIN_MASKED_CHARS = 8
"""Secrets are masked by value from this length on. Shorter ones would mask parts of ordinary words."""
SECRET_NAME_PATTERN = re.compile(
    r"authorization|cookie|token|secret|passw|bearer|webhook|api[-_]?key|credential|private[-_]?key", re.IGNORECASE
)
"""Matches the names of fields, headers and environment variables that hold secrets."""
_TARGET_KEYS = frozenset({"queue", "schema", "table", "prefix", "host", "port", "channel", "tool", "job", "vhost"})
"""Fields that say what is monitored. Their values are visible, also if they come from a variable."""
_LINK_KEYS = frozenset({"runbook", "public_url"})
"""URLs for people: no targets."""
_URL_PATTERN = re.compile(
    r"(?P<scheme>[^:/?#\s]+)://(?:(?P<user>[^/?#@:]*)(?::(?P<password>[^/?#@]*))?@)?(?P<address>[^/?#]*)"
    r"(?P<path>[^?#]*)(?P<query>.*)",
    re.DOTALL,
)
_OWN_WORD_PATTERN = re.compile(r"[A-Za-z][A-Za-z ,.:'_-]*")
"""What Watchdog's own messages consist of. Only such a secret is looked up in them."""


@dataclass
class _Uses:
    """Where the values of a configuration are used."""

    secret: list[tuple[str, YamlNode]] = field(default_factory=list)
    """Declared secrets: in a secret field or header, as the password or in the query of a URL, or of a variable with
    the name of a secret."""
    in_path: set[str] = field(default_factory=set)
    """Declared secrets inside the path of a URL."""
    visible: set[str] = field(default_factory=set)
    """Values of variables that say what is monitored."""
    other: set[str] = field(default_factory=set)
    """All other values of variables."""

    def add_secrets(self, values: Iterable[str], node: YamlNode) -> None:
        self.secret += [(value, node) for value in values if value]

    @property
    def secret_values(self) -> set[str]:
        return {value for value, _ in self.secret}


class CollectedSecrets(NamedTuple):
    by_value: frozenset[str]
    """Masked wherever they occur."""
    in_path: frozenset[str]
    """Masked inside the paths of URLs alone."""
    warnings: tuple[ConfigProblem, ...]


def collect_secrets(sources: MergedSources, load_contexts: Iterable[LoadContext], config: Config) -> CollectedSecrets:
    """What to mask, and a warning for each secret that cannot be masked by value."""
    uses = _find_uses(sources)
    files = {text for context in load_contexts for secret in context.secrets for text in (secret, secret.strip())}
    values = {*_model_secrets(config), *uses.secret_values, *(text for text in files if "://" not in text)}
    values |= {text for url in files if "://" in url for text in _url_secrets(url)}
    values |= {text for text in uses.other - uses.visible if len(text) >= MIN_MASKED_CHARS}
    by_value = frozenset(value for value in values if is_masked_by_value(value))
    warnings = [
        ConfigProblem(
            *node.location,
            node.path,
            "this secret is too short, or a word of Watchdog's own messages: it is masked in URLs and fields, but not "
            f"where a target repeats it; choose one of at least {MIN_MASKED_CHARS} characters that is no word",
        )
        for value, node in uses.secret
        if value and value not in by_value
    ]
    return CollectedSecrets(by_value, frozenset(uses.in_path), tuple(dict.fromkeys(warnings)))


def is_masked_by_value(secret: str) -> bool:
    """Whether the value can be replaced wherever it occurs without garbling Watchdog's own sentences."""
    if len(secret) < MIN_MASKED_CHARS:
        return False
    return not (_OWN_WORD_PATTERN.fullmatch(secret) and secret in _own_text())


@cache
def _own_text() -> str:
    """The sources and templates: what messages are composed of. Read only for secrets that consist of words."""
    files = [*Path(__file__).parents[1].rglob("*.py"), *resource_path("templates").rglob("*.j2")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def _find_uses(sources: MergedSources) -> _Uses:
    uses = _Uses()
    for tree in sources.trees:
        for node in tree.walk():
            if not isinstance(node.value, dict | list):
                _classify_scalar(node, node.path.rpartition(".")[2], uses)
    return uses


def _classify_scalar(node: YamlNode, key: str, uses: _Uses) -> None:
    text = node.interpolated_text if node.interpolated_text is not None else node.value
    if not isinstance(text, str) or (key.endswith("_file") and not node.variables):
        return
    if SECRET_NAME_PATTERN.search(key) and not key.endswith("_file"):
        values = list(node.variables.values()) or [text, text.partition(" ")[2]]  # with and without "Bearer"
        uses.add_secrets(values, node)
    elif "://" in text and key not in _LINK_KEYS:
        _classify_url(node, text, uses)
    else:
        for name, value in node.variables.items():
            is_shown = key in _TARGET_KEYS
            _classify_variable(name, value, node, uses, uses.visible if is_shown else uses.other)


def _classify_url(node: YamlNode, text: str, uses: _Uses) -> None:
    """A target's scheme, address and path are shown. The password of any URL, and what variables put into its query,
    are secrets. The path of a receiver's URL often is one, too."""
    password = match["password"] if (match := _URL_PATTERN.match(text)) else ""
    uses.add_secrets({password or "", unquote(password or "")}, node)
    if not node.variables:
        return
    names, visible = list(node.variables), uses.visible if node.path.startswith("probes.") else uses.other
    written = _URL_PATTERN.match(replace_references(str(node.raw_value), lambda name: f"\0{names.index(name)}\0"))
    for index, (name, value) in enumerate(node.variables.items()):
        marker = f"\0{index}\0"
        if "://" in value:
            uses.add_secrets(_url_secrets(value), node)
            visible.add(value)
        elif written is None or marker in f"{written['password'] or ''} {written['query']}":
            uses.add_secrets([value], node)
        elif marker in (written["user"] or ""):
            _classify_variable(name, value, node, uses, uses.other)
        else:
            is_secret = _classify_variable(name, value, node, uses, visible)
            if is_secret and marker in written["path"]:
                uses.in_path.add(value)


def _classify_variable(name: str, value: str, node: YamlNode, uses: _Uses, otherwise: set[str]) -> bool:
    """Whether its name declares it as a secret. If not, the value is added to `otherwise`. An URL is never one as a
    whole."""
    if "://" in value:
        uses.add_secrets(_url_secrets(value), node)
    elif SECRET_NAME_PATTERN.search(name):
        uses.add_secrets([value], node)
        return True
    else:
        otherwise |= {value, value.strip()}
    return False


def _url_secrets(url: str) -> Iterator[str]:
    """The password, and the values of the query that are long enough to be secrets."""
    if match := _URL_PATTERN.match(url.strip()):
        password = match["password"] or ""
        yield from {password, unquote(password)} - {""}
        query = match["query"].removeprefix("?").partition("#")[0]
        yield from (value for _, value in parse_qsl(query) if len(value) >= MIN_MASKED_CHARS)


def mask_tree(node: YamlNode, mask: SecretMask) -> Json:
    """A node as written, with literal secrets replaced where they are: in secret fields, headers and URLs."""
    if isinstance(node.value, dict):
        return {key: mask_tree(entry, mask) for key, entry in node.value.items()}
    if isinstance(node.value, list):
        return [mask_tree(item, mask) for item in node.value]
    key = node.path.rpartition(".")[2]
    is_literal_secret = isinstance(node.value, str) and not node.variables and not key.endswith("_file")
    if is_literal_secret and SECRET_NAME_PATTERN.search(key):
        return MASK_PLACEHOLDER
    return mask(node.raw_value) if isinstance(node.raw_value, str) else node.raw_value


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


def mask_displayed_fields(config: Config, mask: SecretMask) -> Config:
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
    contents = {text for context in load_contexts for secret in context.secrets for text in (secret, secret.strip())}
    uses = _find_uses(sources)
    hidden = {*contents, *uses.secret_values, *uses.visible, *uses.other}
    mask = SecretMask(value for value in hidden if is_masked_by_value(value))
    nodes = {(*node.location, node.path): node for node in _interpolated_nodes(sources)}
    file_order = {file: i for i, file in enumerate(sources.base_folders)}

    def redacted(problem: ConfigProblem) -> ConfigProblem:
        node = nodes.get(problem[:4])
        own_values = (node.interpolated_text, *node.variables.values()) if node else ()
        values = [value for value in placeholders if value in own_values or is_masked_by_value(value)]
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
