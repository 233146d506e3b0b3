"""The text of one probe as a person enters it: what it may not contain, and how its secrets are masked and restored."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

import yaml

from watchdog.config.managed_file import parse_probe_text_into_yaml_node
from watchdog.config.references import (
    list_config_variable_names,
    replace_config_variables_with_defaults,
)
from watchdog.config.secrets import mask_yaml_tree
from watchdog.config.sources import has_no_yaml_content
from watchdog.config.yaml_tree import YamlNode, compose_yaml_node
from watchdog.domain.model import Json, JsonScalar
from watchdog.net.redact import MASK_PLACEHOLDER, SecretMask

MAX_PROBE_YAML_CHARS = 65_536
_FIELDS_WITH_FREE_KEYS = frozenset({"json", "payload", "arguments", "args", "headers", "params", "watch", "tasks"})
"""Below these, keys are not Watchdog's: `json: {command: stop}` starts no command."""
_FILE_PARAMETER_PATTERN = re.compile(r"\w*file|ssl_?\w*(cert|key|ca|crl)\w*", re.IGNORECASE)
_FIELDS_THAT_CHOOSE_THE_SERVER = frozenset({"host", "port", "target", "tls", "server_name", "verify", "allow_legacy"})
"""Beside the URL: host and port that are no URL, and the headers and TLS options that decide which server, of many at
one address, gets what is sent, and who else can read it."""
_EDIT_BY_HAND = "edit the managed file by hand"
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


class ProbeTextProblem(NamedTuple):
    """What is not valid in the text of a probe. Contains no secrets."""

    path: str
    """The field, such as `http.url`; empty: it concerns the whole text."""
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def find_forbidden_content_in_probe_yaml(text: str, variables: Collection[str]) -> list[ProbeTextProblem]:
    """Why a text may not be entered: it is no mapping, shares values, or reaches into the machine that Watchdog runs
    on. `variables`: the names of those that it may use."""
    if has_no_yaml_content(text):
        return [ProbeTextProblem("", "enter the fields of a probe, such as `name: API`")]
    node, problems = parse_probe_text_into_yaml_node(text)
    if node is None:
        return [ProbeTextProblem(p.path, f"line {p.line}: {p.message}" if p.line else p.message) for p in problems]
    if any(getattr(event, "anchor", None) is not None for event in yaml.parse(text, yaml.CBaseLoader)):
        return [
            ProbeTextProblem("", f"anchors (&) and aliases (*) cannot be entered: repeat the value, or {_EDIT_BY_HAND}")
        ]
    return [problem for each in node.walk() for problem in _find_forbidden_uses_of_node(each, variables)]


def _find_forbidden_uses_of_node(node: YamlNode, variables: Collection[str]) -> Iterator[ProbeTextProblem]:
    *above, key = node.path.split(".")
    if _FIELDS_WITH_FREE_KEYS.isdisjoint(above):
        if key.endswith("_file") or key == "cwd":
            yield ProbeTextProblem(node.path, f"a file of this machine cannot be named here: {_EDIT_BY_HAND}")
        if key == "command":
            yield ProbeTextProblem(node.path, f"a command cannot be entered here: {_EDIT_BY_HAND}")
    if not isinstance(node.raw_value, str):
        return
    texts = node.raw_value, replace_config_variables_with_defaults(node.raw_value)  # a variable may be empty
    if any(text.strip().lower().startswith("sqlite:") for text in texts):
        yield ProbeTextProblem(node.path, f"a database of this machine cannot be named here: {_EDIT_BY_HAND}")
    if any(map(_has_file_parameter, texts)):
        yield ProbeTextProblem(node.path, f"a file of this machine cannot be named in a URL here: {_EDIT_BY_HAND}")
    for name in dict.fromkeys(list_config_variable_names(node.raw_value)):
        if name not in variables:
            message = f"the variable {name} may not be used here: list it in `managed.variables`, or {_EDIT_BY_HAND}"
            yield ProbeTextProblem(node.path, message)
        elif node.path in ("id", "name"):
            yield ProbeTextProblem(node.path, "a probe that is entered cannot have variables in its id and name")


def _has_file_parameter(text: str) -> bool:
    """Whether it is the URL of a server with a parameter that names a file, such as `sslkey` and `passfile`."""
    try:
        parts = urlsplit(text.strip(), allow_fragments=False)  # drivers know no fragments
    except ValueError:
        return False
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    return parts.scheme not in ("http", "https", "ws", "wss") and any(map(_FILE_PARAMETER_PATTERN.fullmatch, names))


# --- secrets


class _SecretScalar(NamedTuple):
    """A scalar that holds a secret."""

    start: int
    end: int
    value: str
    """As written, without quotes."""
    masked: str


def mask_probe_text(text: str) -> str:
    """The text as it may be shown: literal secrets are replaced where a configuration is expected to have them."""
    for scalar in sorted({scalar for _, scalar in _list_secret_scalars_with_field_paths(text)}, reverse=True):
        text = text[: scalar.start] + double_quote_yaml_scalar(scalar.masked) + text[scalar.end :]
    return text


def restore_masked_secrets(text: str, stored: str) -> tuple[str, list[ProbeTextProblem]]:
    """The text with the secrets of the stored one in place of `•••`. A section with another address does not get them:
    they would be sent there. Nor does one whose server is chosen or verified in another way."""
    node, _ = parse_probe_text_into_yaml_node(text)
    if node is None or MASK_PLACEHOLDER not in text:
        return text, []
    stored_secrets, before = (
        _list_secret_scalars_with_field_paths(stored) if stored else [],
        parse_probe_text_into_yaml_node(mask_probe_text(stored))[0],
    )
    count_by_path = Counter(path for path, _ in stored_secrets)  # keys with dots: two fields may have one path
    secrets = {path: secret for path, secret in stored_secrets if count_by_path[path] == 1}
    spans, problems, restored = _find_scalar_spans(text), [], []
    for each in node.walk():
        if not isinstance(each.raw_value, str) or MASK_PLACEHOLDER not in each.raw_value:
            continue
        secret, span = secrets.get(each.path), spans.get(each.location[1:])
        if secret is None or span is None or secret.masked != each.raw_value:
            message = f"{MASK_PLACEHOLDER} stands for a secret that is not stored here: enter it"
            problems.append(ProbeTextProblem(each.path, message))
        elif _map_section_addresses_by_field_path(node, each.path) != _map_section_addresses_by_field_path(
            before, each.path
        ):
            message = (
                "an address beside this secret, or how its server is verified, has changed: enter the secret again"
            )
            problems.append(ProbeTextProblem(each.path, message))
        else:
            restored.append((*span, _quote_unmasked_secret_for_yaml(secret, stored)))
    for start, end, value in sorted(restored, reverse=True):
        text = text[:start] + value + text[end:]
    return text, problems


def _quote_unmasked_secret_for_yaml(secret: _SecretScalar, stored: str) -> str:
    """As it is written in the stored text, if it means the same in any place."""
    written = stored[secret.start : secret.end]
    is_portable = "\n" not in written and (written[0] in "'\"" or set(written).isdisjoint(",[]{}"))
    return written if is_portable else double_quote_yaml_scalar(secret.value)


def _map_section_addresses_by_field_path(node: YamlNode | None, path: str) -> dict[str, JsonScalar]:
    """Of the section that a field is in, by field: all URLs, all texts with variables, which may be one, and all that
    chooses the server otherwise."""
    section = None if node is None else node.mapping_entries.get(path.partition(".")[0])
    scalars = () if section is None else section.walk()
    return {each.path: each.raw_value for each in scalars if _may_choose_server(each)}


def _may_choose_server(node: YamlNode) -> bool:
    if node.path.rpartition(".")[2].lower() in _FIELDS_THAT_CHOOSE_THE_SERVER:
        return True
    return isinstance(node.raw_value, str) and ("://" in node.raw_value or "${" in node.raw_value)


def _list_secret_scalars_with_field_paths(text: str) -> list[tuple[str, _SecretScalar]]:
    """Each with the path of its field."""
    node, _ = parse_probe_text_into_yaml_node(text)
    if node is None:
        return []
    spans, masked = _find_scalar_spans(text), mask_yaml_tree(node, SecretMask(()))
    return [
        (each.path, _SecretScalar(*spans[each.location[1:]], str(each.raw_value), str(masked_value)))
        for each, masked_value in _iter_scalar_nodes_with_masked_values(node, masked)
        if masked_value != each.raw_value and each.location[1:] in spans
    ]


def _iter_scalar_nodes_with_masked_values(node: YamlNode, masked: Json) -> Iterator[tuple[YamlNode, Json]]:
    """Every scalar with what is shown of it."""
    if isinstance(node.value, dict):
        for key, entry in node.value.items():
            yield from _iter_scalar_nodes_with_masked_values(entry, masked[key])
    elif isinstance(node.value, list):
        for item, masked_item in zip(node.value, masked, strict=True):
            yield from _iter_scalar_nodes_with_masked_values(item, masked_item)
    else:
        yield node, masked


def _find_scalar_spans(text: str) -> dict[tuple[int, int], tuple[int, int]]:
    """Line and column, from 1 -> start and end of each scalar that is a value."""
    pending, spans = [compose_yaml_node(text)], {}
    while pending:
        node = pending.pop()
        if isinstance(node, yaml.ScalarNode):
            start = node.start_mark
            end = node.end_mark.index  # of a block scalar: behind its line break
            spans[start.line + 1, start.column + 1] = start.index, start.index + len(text[start.index : end].rstrip())
        elif isinstance(node, yaml.MappingNode):
            pending += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            pending += node.value
    return spans


def double_quote_yaml_scalar(text: str) -> str:
    """A text as YAML in double quotes, on one line."""
    return '"' + "".join(map(_escape_character, text)) + '"'


def _escape_character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if character.isprintable() else f"\\U{ord(character):08x}"
