"""The secrets of a configuration: which values are masked, and how problems are reported without them.

Masking by value replaces a secret wherever it occurs. It is safe only for values that occur nowhere else: a short
secret, or one that is a word in Watchdog's own messages, would garble them and reveal itself. Such a secret is masked
where the configuration has it (in URLs, headers and fields), and is a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, SecretStr

from watchdog.config.matchers import ProbeMatchSettings
from watchdog.config.models import Config
from watchdog.config.problems import ConfigProblem
from watchdog.config.secret_uses import (
    MIN_MASKED_SECRET_CHARS,
    classify_config_values_by_sensitivity,
    find_argument_nodes_with_secret_spans,
    find_embedded_secret_spans,
    get_yaml_text_as_written,
    is_command_line_field,
    is_field_named_like_secret,
    mask_literal_secret_url_parameters,
)
from watchdog.config.sources import MergedConfigSources
from watchdog.config.yaml_tree import YamlNode
from watchdog.config_types import ConfigFileValidationContext
from watchdog.domain.model import Json
from watchdog.net.redact import MASK_PLACEHOLDER, SecretMask
from watchdog.net.secret_fields import Span, replace_spans_with_placeholder
from watchdog.resources import find_resource_folder

ModelT = TypeVar("ModelT", bound=BaseModel)
MatchT = TypeVar("MatchT", bound=ProbeMatchSettings)

_WORDS_ONLY_SECRET_PATTERN = re.compile(r"[A-Za-z][A-Za-z ,.:'_-]*")
"""What Watchdog's own messages consist of. Only such a secret is looked up in them."""


UNMASKABLE_SECRET_WARNING = (
    "this secret is too short, or a word in Watchdog's own messages: it is masked in URLs and fields, but not "
    f"in responses that contain it; choose a secret of at least {MIN_MASKED_SECRET_CHARS} characters that is not a word"
)
SECRET_IN_TARGET_WARNING = "this secret is also part of a target, and targets are shown: choose another one"


class CollectedSecrets(NamedTuple):
    by_value: frozenset[str]
    """Masked wherever they occur."""
    in_target: frozenset[str]
    """Masked inside the paths of URLs, and in commands, alone."""
    warnings: tuple[ConfigProblem, ...]


def collect_secrets(
    sources: MergedConfigSources, load_contexts: Iterable[ConfigFileValidationContext], config: Config
) -> CollectedSecrets:
    """What to mask, and a warning for each secret that cannot be masked by value."""
    uses = classify_config_values_by_sensitivity(sources.trees, _group_secrets_by_file_path(load_contexts))
    values = {*_find_config_model_secrets(config), *uses.secret_values}
    values |= {text for text in uses.other - uses.visible if len(text) >= MIN_MASKED_SECRET_CHARS}
    by_value = frozenset(value for value in values if can_mask_secret_everywhere(value))
    in_target = frozenset(uses.secret_values_in_target)
    targets = "\n".join(SecretMask((), in_target).mask_target(probe.target) for probe in config.probes)
    warnings = [
        ConfigProblem(*node.location, node.path, text)
        for value, node in uses.secret
        if (
            text := UNMASKABLE_SECRET_WARNING
            if value not in by_value
            else SECRET_IN_TARGET_WARNING
            if value in targets
            else ""
        )
    ]
    return CollectedSecrets(by_value, in_target, tuple(dict.fromkeys(warnings)))


def build_mask_of_invalid_config(
    sources: MergedConfigSources,
    load_contexts: Iterable[ConfigFileValidationContext],
    *,
    masks_visible_values: bool = False,
) -> SecretMask:
    """Masks what is a secret as it is written: there is no model of the configuration. `masks_visible_values`: also the
    values of variables that would be shown, such as in names."""
    load_contexts = list(load_contexts)
    contents = {text for context in load_contexts for secret in context.secrets for text in (secret, secret.strip())}
    uses = classify_config_values_by_sensitivity(sources.trees, _group_secrets_by_file_path(load_contexts))
    others = uses.visible | uses.other if masks_visible_values else uses.other - uses.visible
    hidden = {*contents, *uses.secret_values, *others}
    return SecretMask(value for value in hidden if can_mask_secret_everywhere(value))


def _group_secrets_by_file_path(load_contexts: Iterable[ConfigFileValidationContext]) -> dict[str, list[str]]:
    """Path as written -> what the files with this path hold."""
    contents: dict[str, list[str]] = {}
    for context in load_contexts:
        for secret, path in context.secret_files.items():
            contents.setdefault(path, []).append(secret)
    return contents


def can_mask_secret_everywhere(secret: str) -> bool:
    """Whether the value can be replaced wherever it occurs without garbling Watchdog's own sentences."""
    if len(secret) < MIN_MASKED_SECRET_CHARS:
        return False
    return not (_WORDS_ONLY_SECRET_PATTERN.fullmatch(secret) and secret in concatenate_watchdog_sources_and_templates())


@cache
def concatenate_watchdog_sources_and_templates() -> str:
    """The sources and templates: what messages are composed of. Read only for secrets that consist of words."""
    files = [*Path(__file__).parents[1].rglob("*.py"), *find_resource_folder("templates").rglob("*.j2")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def mask_yaml_tree(node: YamlNode, mask: SecretMask) -> Json:
    """A node as written, with literal secrets replaced where they are: in secret fields, headers and URLs."""
    if isinstance(node.value, dict):
        return {key: mask_yaml_tree(entry, mask) for key, entry in node.value.items()}
    if isinstance(node.value, list):
        arguments = node.value if is_command_line_field(node.path) else ()
        in_arguments = {id(item): spans for item, spans in find_argument_nodes_with_secret_spans(arguments)}
        return [_mask_yaml_scalar(item, in_arguments.get(id(item), []), mask) for item in node.value]
    return _mask_yaml_scalar(node, find_embedded_secret_spans(node), mask)


def _mask_yaml_scalar(node: YamlNode, secrets: list[Span], mask: SecretMask) -> Json:
    """`secrets`: where its text holds some."""
    if isinstance(node.value, dict | list):
        return mask_yaml_tree(node, mask)
    if isinstance(node.value, str) and not node.variables and is_field_named_like_secret(node.path):
        return MASK_PLACEHOLDER
    if not isinstance(node.raw_value, str):
        return node.raw_value
    written = get_yaml_text_as_written(node) if secrets else node.raw_value
    literals = [span for span in secrets if "${" not in written[slice(*span)]]
    text = mask(replace_spans_with_placeholder(written, literals, MASK_PLACEHOLDER))
    return mask_literal_secret_url_parameters(text, MASK_PLACEHOLDER) if "://" in text else text


def collect_placeholders_by_secret(
    sources: MergedConfigSources, load_contexts: Iterable[ConfigFileValidationContext]
) -> dict[str, str]:
    """Value -> where it is from, as written: `${NAME}`, or the path of a file."""
    names: dict[str, str] = {}
    for node in _find_yaml_nodes_with_variables(sources):
        names |= {value: f"${{{name}}}" for name, value in node.variables.items() if value}
        if node.interpolated_text:
            names.setdefault(node.interpolated_text, str(node.raw_value))
    for context in load_contexts:
        names |= context.secret_files
    return names


def mask_secrets_in_displayed_config_fields(config: Config, mask: SecretMask) -> Config:
    """The configuration with masked names, groups and tags, in probes as well as in what is matched against them.

    Ids of probes identify them in URLs and in the database, so they are not masked.
    """

    def copy_with_masked_fields(model: ModelT, *fields: str) -> ModelT:
        original = {field: getattr(model, field) for field in fields}
        update = {
            name: mask(value) if isinstance(value, str) else tuple(map(mask, value)) for name, value in original.items()
        }
        return model if update == original else model.model_copy(update=update)

    probe_ids = {probe.id for probe in config.probes}

    def mask_probe_match_settings(match: MatchT) -> MatchT:
        return copy_with_masked_fields(match, "tags", "group", *(() if match.probe in probe_ids else ("probe",)))

    page = copy_with_masked_fields(config.status_page, "title", "groups")
    windows = [
        window.model_copy(update={"match": mask_probe_match_settings(window.match)}) for window in config.maintenance
    ]
    return config.model_copy(
        update={
            "probes": tuple(
                copy_with_masked_fields(probe, "name", "group", "tags", "runbook") for probe in config.probes
            ),
            "routes": tuple(
                route.model_copy(update={"match": mask_probe_match_settings(route.match)}) for route in config.routes
            ),
            "maintenance": tuple(copy_with_masked_fields(window, "name") for window in windows),
            "inhibit": tuple(
                rule.model_copy(
                    update={"when": mask_probe_match_settings(rule.when), "mute": mask_probe_match_settings(rule.mute)}
                )
                for rule in config.inhibit
            ),
            "status_page": page.model_copy(update={"match": mask_probe_match_settings(page.match)}),
        }
    )


def redact_config_problems(
    sources: MergedConfigSources, load_contexts: Iterable[ConfigFileValidationContext]
) -> list[ConfigProblem]:
    """The problems in reading order, without duplicates, with `${NAME}` instead of the value of a variable."""
    placeholders: dict[str, str] = {}
    for node in _find_yaml_nodes_with_variables(sources):
        placeholders |= {value: f"${{{name}}}" for name, value in node.variables.items() if value}
        if node.interpolated_text:
            placeholders.setdefault(node.interpolated_text, str(node.raw_value))
    mask = build_mask_of_invalid_config(sources, load_contexts, masks_visible_values=True)
    nodes = {(*node.location, node.path): node for node in _find_yaml_nodes_with_variables(sources)}
    file_order = {file: i for i, file in enumerate(sources.base_folders)}

    def redact_config_problem(problem: ConfigProblem) -> ConfigProblem:
        node = nodes.get(problem[:4])
        own_values = (node.interpolated_text, *node.variables.values()) if node else ()
        values = [value for value in placeholders if value in own_values or can_mask_secret_everywhere(value)]
        message = problem.message
        if values:
            longest_first = "|".join(map(_build_redaction_pattern, sorted(values, key=len, reverse=True)))
            message = re.sub(longest_first, lambda value: placeholders[value[0]], message)
        one_line = "".join(c if c.isprintable() else "�" for c in mask(message))
        return problem._replace(message=one_line)

    ordered = sorted(set(sources.problems), key=lambda p: (file_order.get(p.file, -1), p.line, p.column))
    return list(dict.fromkeys(map(redact_config_problem, ordered)))


def _build_redaction_pattern(value: str) -> str:
    """Matches a value where a message quotes it. A short one may also be a word of the message itself."""
    pattern = re.escape(value)
    return (
        pattern if can_mask_secret_everywhere(value) else rf"(?<=['\"`/=:]){pattern}(?!\w)|(?<=found ){pattern}(?!\w)"
    )


def _find_yaml_nodes_with_variables(sources: MergedConfigSources) -> Iterator[YamlNode]:
    return (node for tree in sources.trees for node in tree.walk() if node.variables)


def _find_config_model_secrets(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        yield from _find_config_model_secrets(value.__dict__)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _find_config_model_secrets(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _find_config_model_secrets(item)
