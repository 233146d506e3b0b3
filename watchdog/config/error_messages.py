"""Turns pydantic's validation errors into problems for people: which line, which field, what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from watchdog.config.problems import (
    EMPTY_CONFIG_VALUE_MESSAGE,
    ConfigProblem,
    build_did_you_mean_suffix,
    find_equivalent_config_name,
)
from watchdog.config.scalars import parse_plain_yaml_scalar
from watchdog.config.yaml_tree import YamlNode, format_yaml_key_for_message
from watchdog.config_types import ConfigModel, FieldPath, MultiFieldValidationError, list_fields_readable_from_file
from watchdog.domain.model import JsonScalar
from watchdog.notifiers import NOTIFIER_KINDS
from watchdog.probes import PROBE_KINDS

MAX_VALID_FIELDS_IN_MESSAGE = 12
"""A model with more fields than this is not listed in a message."""


def translate_validation_errors(
    error: ValidationError, model: type[ConfigModel], node: YamlNode, section: str = ""
) -> list[ConfigProblem]:
    """The problems of `node`, which was validated as `model`. `section`: the field that holds the node."""
    problems = [
        problem
        for details in error.errors(include_url=False, include_input=False)
        for problem in _locate_validation_problems(details, model, node, section)
    ]
    return [located.problem for located in _keep_closest_union_branch(problems)]


def retype_variable_values_after_validation_error(error: ValidationError, node: YamlNode) -> bool:
    """Convert the values of variables to the types that the failed fields expect. False: nothing was converted.

    A password may look like a number, and inside { } a number or a switch from a variable must be quoted.
    """
    changed = False
    for details in error.errors(include_url=False, include_context=False, include_input=False):
        target, _ = _find_yaml_node_of_error(node, details["loc"])
        expected_type = _COERCED_TYPE_BY_VALIDATION_ERROR.get(details["type"])
        if target.interpolated_text is None or expected_type is None:
            continue
        value = (
            target.interpolated_text if expected_type is str else _parse_yaml_scalar_or_text(target.interpolated_text)
        )
        if isinstance(value, expected_type) and not isinstance(target.value, expected_type):
            target.value, changed = value, True
    return changed


_COERCED_TYPE_BY_VALIDATION_ERROR: dict[str, type[str | int]] = {"string_type": str, "int_type": int, "bool_type": bool}


def _parse_yaml_scalar_or_text(text: str) -> JsonScalar:
    try:
        return parse_plain_yaml_scalar(text.strip())
    except ValueError:
        return text


class _ValidationProblemWithUnionBranch(NamedTuple):
    problem: ConfigProblem
    error_type: str
    union_branch: tuple[int, str] | None
    """For a value that may have one of several types: the id of its node, and the type that it was validated as."""


def _locate_validation_problems(
    details: ErrorDetails, model: type[ConfigModel], node: YamlNode, section: str
) -> Iterator[_ValidationProblemWithUnionBranch]:
    error_type, context = details["type"], details.get("ctx", {})
    if error_type == "default_factory_not_called":
        return
    cause = context.get("error")
    errors: Sequence[tuple[FieldPath, str]] = [((), str(cause))]
    if isinstance(cause, MultiFieldValidationError):
        errors = cause.errors
    for subpath, text in errors:
        path = (*details["loc"], *subpath)
        missing = str(path[-1]) if error_type == "missing" else ""
        target, branch = _find_yaml_node_of_error(node, path[:-1] if missing else path)
        if error_type == "extra_forbidden":
            message = _describe_unknown_field(str(path[-1]), model, path[:-1], section)
            yield _ValidationProblemWithUnionBranch(
                ConfigProblem(*target.key_location, target.path, message), error_type, branch
            )
            continue
        if _follows_from_reported_config_problem(error_type, target):
            continue
        message = (
            text
            if error_type == "value_error"
            else _format_validation_error(error_type, context, details["msg"], target)
            + _suggest_receiver_indentation(target.path)
        )
        if target.variables and not any(value and value in message for value in target.variables.values()):
            message += f" (from {' and '.join(f'${{{name}}}' for name in target.variables)})"
        shown_path = f"{target.path}.{missing}".lstrip(".") if missing else target.path
        yield _ValidationProblemWithUnionBranch(
            ConfigProblem(*target.location, shown_path, message), error_type, branch
        )


def _follows_from_reported_config_problem(error_type: str, target: YamlNode) -> bool:
    """Whether the error follows from a value for which a problem has been reported already."""
    return target.invalid or (error_type == "value_error" and any(node.invalid for node in target.walk()))


def _find_yaml_node_of_error(node: YamlNode, path: Iterable[str | int]) -> tuple[YamlNode, tuple[int, str] | None]:
    """The node that pydantic means. If its path names a branch of a union, also the union's node and the branch."""
    branch = None
    for part in path:
        if isinstance(part, int) and part < len(node.list_items):
            node = node.list_items[part]
        elif (child := node.mapping_entries.get(str(part)) or node.mapping_entries.get(f"{part}_file")) is not None:
            node = child
        else:
            branch = branch or (id(node), str(part))
    return node, branch


def _keep_closest_union_branch(
    problems: list[_ValidationProblemWithUnionBranch],
) -> Iterator[_ValidationProblemWithUnionBranch]:
    """For a value of several possible types, keep the problems of the type that it resembles most.

    If it resembles none, one problem names all types: "expected off or a mapping of fields".
    """
    by_value: dict[int, list[_ValidationProblemWithUnionBranch]] = {}
    for located in problems:
        if located.union_branch:
            by_value.setdefault(located.union_branch[0], []).append(located)
    reported = set()
    for located in problems:
        value = located.union_branch[0] if located.union_branch else 0
        alternatives = by_value.get(value, [])
        if len({other.union_branch for other in alternatives}) < 2:
            yield located
        elif closest := [other for other in alternatives if other.error_type not in _TYPE_MISMATCH_VALIDATION_ERRORS]:
            if located in closest:
                yield located
        elif value not in reported:
            reported.add(value)
            expected = dict.fromkeys(
                re.sub(r"^expected |, found .*", "", other.problem.message) for other in alternatives
            )
            yield located._replace(problem=located.problem._replace(message=f"expected {' or '.join(expected)}"))


# --- unknown fields


def _describe_unknown_field(name: str, model: type[ConfigModel], path: FieldPath, section: str) -> str:
    models, section = _find_config_models_at_path(model, path, section)
    valid_names = [field for candidate in models for field in list_yaml_field_names(candidate)]
    base_name = name.removesuffix("_file")
    if base_name != name and base_name in valid_names:
        return f"'{base_name}' cannot be read from a file: only secrets can"
    if section == "probes" and (
        owners := [k for k, kind in PROBE_KINDS.items() if name in list_yaml_field_names(kind)]
    ):
        return f"not supported by this kind of probe: only {' and '.join(owners)} probes have {name}; remove it"
    hint = ""
    if not find_equivalent_config_name(name, valid_names):
        hint = _suggest_nested_config_field(name, models)
    hint = hint or build_did_you_mean_suffix(name, valid_names)
    noun = "field" if section else "section"
    if not hint and 0 < len(valid_names) <= MAX_VALID_FIELDS_IN_MESSAGE:
        hint = f"; valid {noun}s: {', '.join(valid_names)}"
    return f"unknown {noun} '{format_yaml_key_for_message(name)}'{hint}"


def _suggest_nested_config_field(name: str, models: Iterable[type[ConfigModel]]) -> str:
    """The suffix "; did you mean 'alert.severity'?" for a field that belongs one level deeper; empty: none."""
    for model in models:
        for field, nested in _list_nested_config_models(model):
            if equivalent := find_equivalent_config_name(name, list_yaml_field_names(nested)):
                return f"; did you mean '{field}.{equivalent}'?"
    return ""


def list_yaml_field_names(model: type[ConfigModel]) -> list[str]:
    """The names that a mapping of this model may hold, as they are written in YAML."""
    names = [info.alias or name for name, info in model.model_fields.items()]
    return names + [f"{name}_file" for name in list_fields_readable_from_file(model)]


def _find_config_models_at_path(
    model: type[ConfigModel], path: FieldPath, section: str
) -> tuple[list[type[ConfigModel]], str]:
    """The models that a value at the path may have, and the field that holds it."""
    models = [model]
    for part in path:
        for candidate in models:
            fields = candidate.model_fields.items()
            info = next((info for name, info in fields if part in (info.alias or name, name)), None)
            if info is not None:
                models, section = list(_find_config_models_in_annotation(info.annotation)), str(part)
                break
    return models, section


def _find_config_models_in_annotation(annotation: Any) -> Iterator[type[ConfigModel]]:
    if isinstance(annotation, type) and issubclass(annotation, ConfigModel):
        yield annotation
    for part in get_args(annotation):
        yield from _find_config_models_in_annotation(part)


def _list_nested_config_models(model: type[ConfigModel]) -> Iterator[tuple[str, type[ConfigModel]]]:
    for name, info in model.model_fields.items():
        for nested in _find_config_models_in_annotation(info.annotation):
            yield info.alias or name, nested


# --- messages

_YAML_TYPE_DISPLAY_NAMES = (
    (bool, "true/false"),
    (int, "a number"),
    (float, "a decimal number"),
    (str, "text"),
    (dict, "a mapping"),
    (list, "a list"),
)


def _describe_yaml_node_type(node: YamlNode) -> str:
    return next((name for type_, name in _YAML_TYPE_DISPLAY_NAMES if isinstance(node.value, type_)), "nothing")


_TYPE_MISMATCH_VALIDATION_ERRORS = (
    *("string_type", "int_type", "float_type", "bool_type", "tuple_type", "list_type", "dict_type", "mapping_type"),
    *("model_type", "model_attributes_type", "literal_error", "enum", "none_required"),
)
_EXPECTED_TYPE_BY_VALIDATION_ERROR = {
    "string_type": "text",
    "int_type": "a whole number", "float_type": "a number", "bool_type": "true or false",
    "tuple_type": "a list, such as [one, two]", "list_type": "a list, such as [one, two]",
    "dict_type": "a mapping, such as {name: value}", "mapping_type": "a mapping, such as {name: value}",
    "model_type": "a mapping of fields", "model_attributes_type": "a mapping of fields",
}  # fmt: skip
_LIMIT_TEXT_BY_VALIDATION_ERROR = {
    "greater_than_equal": "at least {ge}", "less_than_equal": "at most {le}",
    "greater_than": "more than {gt}", "less_than": "less than {lt}",
    "string_too_short": "at least {min_length} characters", "string_too_long": "at most {max_length} characters",
    "too_short": "at least {min_length} entries", "too_long": "at most {max_length} entries",
}  # fmt: skip
_SUGGESTED_BOOLEAN_TEXT_BY_YAML_SPELLING = {
    **dict.fromkeys(("yes", "on", "y", "true"), "true"),
    **dict.fromkeys(("no", "off", "n", "false"), "false"),
}


def _suggest_yaml_value_spelling(error_type: str, node: YamlNode) -> str:
    """A suffix that shows how to write the value so that it has the expected type; empty: no suggestion."""
    if error_type == "string_type" and isinstance(node.value, int | float):
        return ": put it in quotes"
    if node.interpolated_text is not None or not isinstance(node.value, str):
        return ""
    if error_type == "bool_type" and (spelling := _SUGGESTED_BOOLEAN_TEXT_BY_YAML_SPELLING.get(node.value.lower())):
        return f": write {spelling}"
    if error_type == "int_type" and isinstance(_parse_yaml_scalar_or_text(node.value), int):
        return ": write it without quotes"
    return ""


def _suggest_receiver_indentation(path: str) -> str:
    """A suffix for a notifier that is written where the name of a receiver belongs; empty: it is not."""
    section, _, below = path.partition(".")
    name, _, field = below.partition(".")
    if section == "receivers" and field and name in NOTIFIER_KINDS:
        return f"; `{name}` is at the level of the receivers: indent it below the name of a receiver"
    return ""


def _format_validation_error(error_type: str, context: dict[str, Any], message: str, node: YamlNode) -> str:
    if error_type == "missing":
        return "required field is missing"
    if node.value is None:
        return EMPTY_CONFIG_VALUE_MESSAGE
    if error_type in _EXPECTED_TYPE_BY_VALIDATION_ERROR:
        expected = _EXPECTED_TYPE_BY_VALIDATION_ERROR[error_type]
        type_name = _describe_yaml_node_type(node)
        return f"expected {expected}, found {type_name}{_suggest_yaml_value_spelling(error_type, node)}"
    if error_type in _LIMIT_TEXT_BY_VALIDATION_ERROR:
        bound = _LIMIT_TEXT_BY_VALIDATION_ERROR[error_type].format(**context)
        is_literal_number = isinstance(node.value, int | float) and node.interpolated_text is None
        actual = f", found {node.value}" if is_literal_number else ""
        message = f"expected {bound}{actual}".replace("at least 1 entries", "at least one entry")
        return message.replace("at least 1 characters", "at least one character")
    if error_type in ("literal_error", "enum"):
        choices = re.findall(r"'([^']*)'", str(context["expected"]))
        is_literal_text = isinstance(node.value, str) and node.interpolated_text is None
        hint = build_did_you_mean_suffix(str(node.value), choices) if is_literal_text else ""
        return f"expected {context['expected'].replace(chr(39), '')}{hint}"
    if error_type == "string_pattern_mismatch":
        if str(context["pattern"]).startswith("^https?://"):
            return "expected a URL that starts with http:// or https://"
        return f"expected text that matches {context['pattern']}"
    return message[:1].lower() + message[1:]
