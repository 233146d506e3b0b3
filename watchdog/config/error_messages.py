"""From what pydantic found to problems that a person can act on: where, which field, what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from watchdog.config.later import NOT_SUPPORTED_MESSAGE, PLANNED_FIELDS
from watchdog.config.problems import EMPTY_VALUE_MESSAGE, ConfigProblem, did_you_mean, equivalent_name
from watchdog.config.scalars import parse_plain_scalar
from watchdog.config.yaml_tree import YamlNode, format_key
from watchdog.config_types import ConfigModel, FieldPath, FieldValidationError, file_backed_fields
from watchdog.domain.model import Scalar


def translate_errors(
    error: ValidationError, model: type[ConfigModel], node: YamlNode, section: str = ""
) -> list[ConfigProblem]:
    """What is wrong with `node`, which was read as `model` and is held by the field `section`."""
    found = [
        spotted
        for details in error.errors(include_url=False, include_input=False)
        for spotted in _locate_problems(details, model, node, section)
    ]
    return [spotted.problem for spotted in _keep_closest_union_branch(found)]


def coerce_variables(error: ValidationError, node: YamlNode) -> bool:
    """Take what a variable holds as what is wanted. False: nothing is to be taken otherwise.

    A password may look like a number, and a number or a switch may stand in quotes, as it must inside of { }.
    """
    changed = False
    for details in error.errors(include_url=False, include_context=False, include_input=False):
        target, _ = _find_node(node, details["loc"])
        if target.interpolated_text is None or (wanted := _COERCIBLE_TYPES.get(details["type"])) is None:
            continue
        value = target.interpolated_text if wanted is str else _parse_scalar_or_text(target.interpolated_text)
        if isinstance(value, wanted) and not isinstance(target.value, wanted):
            target.value, changed = value, True
    return changed


_COERCIBLE_TYPES: dict[str, type[str | int]] = {"string_type": str, "int_type": int, "bool_type": bool}


def _parse_scalar_or_text(text: str) -> Scalar:
    try:
        return parse_plain_scalar(text.strip())
    except ValueError:
        return text


class _LocatedProblem(NamedTuple):
    problem: ConfigProblem
    error_type: str
    union_branch: tuple[int, str] | None
    """Of a value that may be one thing or another: the value's id, and as which of them it was read."""


def _locate_problems(
    details: ErrorDetails, model: type[ConfigModel], node: YamlNode, section: str
) -> Iterator[_LocatedProblem]:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "default_factory_not_called":
        return
    cause = context.get("error")
    wrong: Sequence[tuple[FieldPath, str]] = [((), str(cause))]
    if isinstance(cause, FieldValidationError):
        wrong = cause.errors
    for where, said in wrong:
        path = (*details["loc"], *where)
        missing = str(path[-1]) if kind == "missing" else ""
        target, reading = _find_node(node, path[:-1] if missing else path)
        if kind != "extra_forbidden" and _is_consequence(kind, target):
            continue
        if kind == "extra_forbidden":
            message = _describe_unknown_field(str(path[-1]), model, path[:-1], section)
            yield _LocatedProblem(ConfigProblem(*target.key_location, target.path, message), kind, reading)
            continue
        message = said if kind == "value_error" else _format_error_message(kind, context, details["msg"], target)
        if target.variables and not any(value and value in message for value in target.variables.values()):
            message += f" (from {' and '.join(f'${{{name}}}' for name in target.variables)})"
        path_shown = f"{target.path}.{missing}".lstrip(".") if missing else target.path
        yield _LocatedProblem(ConfigProblem(*target.location, path_shown, message), kind, reading)


def _is_consequence(error_type: str, target: YamlNode) -> bool:
    """Whether a value that has been complained about already is what this one is about."""
    return target.invalid or (error_type == "value_error" and any(node.invalid for node in target.walk()))


def _find_node(node: YamlNode, path: Iterable[str | int]) -> tuple[YamlNode, tuple[int, str] | None]:
    """The node that pydantic means; and when its path names a reading of a value, that value and the reading."""
    reading = None
    for part in path:
        if isinstance(part, int) and part < len(node.items):
            node = node.items[part]
        elif (below := node.entries.get(str(part)) or node.entries.get(f"{part}_file")) is not None:
            node = below
        else:
            reading = reading or (id(node), str(part))
    return node, reading


def _keep_closest_union_branch(problems: list[_LocatedProblem]) -> Iterator[_LocatedProblem]:
    """Where a value may be one thing or another, tell what is wrong with it as the thing that it resembles most."""
    values: dict[int, list[_LocatedProblem]] = {}
    for spotted in problems:
        if spotted.union_branch:
            values.setdefault(spotted.union_branch[0], []).append(spotted)
    told = set()
    for spotted in problems:
        value = spotted.union_branch[0] if spotted.union_branch else 0
        group = values.get(value, [])
        if len({one.union_branch for one in group}) < 2:
            yield spotted
        elif resembling := [one for one in group if one.error_type not in _TYPE_MISMATCH_ERRORS]:
            if spotted in resembling:
                yield spotted
        elif value not in told:
            told.add(value)
            expected = dict.fromkeys(re.sub(r"^expected |, found .*", "", one.problem.message) for one in group)
            yield spotted._replace(problem=spotted.problem._replace(message=f"expected {' or '.join(expected)}"))


# --- fields that do not exist


def _describe_unknown_field(name: str, model: type[ConfigModel], path: FieldPath, section: str) -> str:
    models, holder = _models_at(model, path, section)
    if name in PLANNED_FIELDS.get(holder, ()):
        return NOT_SUPPORTED_MESSAGE
    known = [field for one in models for field in field_names(one)]
    if name.removesuffix("_file") != name and name.removesuffix("_file") in known:
        return f"'{name.removesuffix('_file')}' is no secret, and only secrets are read from files"
    below = [(field, field_names(within)) for one in models for field, within in _nested_models(one)]
    inside = next(
        (f"; did you mean '{field}.{near}'?" for field, names in below if (near := equivalent_name(name, names))), ""
    )
    hint = inside if inside and not equivalent_name(name, known) else did_you_mean(name, known)
    if not hint and 0 < len(known) <= 12:
        hint = f": expected {', '.join(known)}"
    return f"unknown {'field' if holder else 'section'} '{format_key(name)}'{hint}"


def field_names(model: type[ConfigModel]) -> list[str]:
    """The names that a mapping may hold, as they are written."""
    names = [info.alias or name for name, info in model.model_fields.items()]
    return names + [f"{name}_file" for name in file_backed_fields(model)]


def _models_at(model: type[ConfigModel], path: FieldPath, section: str) -> tuple[list[type[ConfigModel]], str]:
    """The models that stand at the path, and the field that holds them."""
    models = [model]
    for part in path:
        for one in models:
            info = next((info for name, info in one.model_fields.items() if part in (info.alias or name, name)), None)
            if info is not None:
                models, section = list(_models_in_annotation(info.annotation)), str(part)
                break
    return models, section


def _models_in_annotation(annotation: Any) -> Iterator[type[ConfigModel]]:
    if isinstance(annotation, type) and issubclass(annotation, ConfigModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in_annotation(part)


def _nested_models(model: type[ConfigModel]) -> Iterator[tuple[str, type[ConfigModel]]]:
    for name, info in model.model_fields.items():
        for below in _models_in_annotation(info.annotation):
            yield info.alias or name, below


# --- words

_TYPE_NAMES = ((bool, "true/false"), (int | float, "a number"), (str, "text"), (dict, "a mapping"), (list, "a list"))


def _describe_type(node: YamlNode) -> str:
    return next((noun for kind, noun in _TYPE_NAMES if isinstance(node.value, kind)), "nothing")


_TYPE_MISMATCH_ERRORS = (
    *("string_type", "int_type", "float_type", "bool_type", "tuple_type", "list_type", "dict_type", "mapping_type"),
    *("model_type", "model_attributes_type", "literal_error", "enum", "none_required"),
)
_EXPECTED_TYPE_NAMES = {
    "string_type": "text",
    "int_type": "a whole number", "float_type": "a number", "bool_type": "true or false",
    "tuple_type": "a list, such as [one, two]", "list_type": "a list, such as [one, two]",
    "dict_type": "a mapping, such as {name: value}", "mapping_type": "a mapping, such as {name: value}",
    "model_type": "a mapping of fields", "model_attributes_type": "a mapping of fields",
}  # fmt: skip
_BOUND_MESSAGES = {
    "greater_than_equal": ("at least {ge}", "ge"), "less_than_equal": ("at most {le}", "le"),
    "greater_than": ("more than {gt}", "gt"), "less_than": ("less than {lt}", "lt"),
    "string_too_short": ("at least {min_length} characters", "min_length"),
    "string_too_long": ("at most {max_length} characters", "max_length"),
    "too_short": ("at least {min_length} of them", "min_length"),
    "too_long": ("at most {max_length} of them", "max_length"),
}  # fmt: skip


_BOOLEAN_SPELLINGS = {
    **dict.fromkeys(("yes", "on", "y", "true"), "true"),
    **dict.fromkeys(("no", "off", "n", "false"), "false"),
}


def _suggest_spelling(error_type: str, node: YamlNode) -> str:
    """How to write the same as what is wanted."""
    if error_type == "string_type" and isinstance(node.value, int | float):
        return ": put it in quotes"
    if node.interpolated_text is not None or not isinstance(node.value, str):
        return ""
    if error_type == "bool_type" and (meant := _BOOLEAN_SPELLINGS.get(node.value.lower())):
        return f": write {meant}"
    return (
        ": write it without quotes"
        if error_type == "int_type" and isinstance(_parse_scalar_or_text(node.value), int)
        else ""
    )


def _format_error_message(error_type: str, context: dict[str, Any], message: str, node: YamlNode) -> str:
    if error_type == "missing":
        return "is missing"
    if node.value is None:
        return EMPTY_VALUE_MESSAGE
    if error_type in _EXPECTED_TYPE_NAMES:
        expected = _EXPECTED_TYPE_NAMES[error_type]
        return f"expected {expected}, found {_describe_type(node)}{_suggest_spelling(error_type, node)}"
    if error_type in _BOUND_MESSAGES:
        bound = _BOUND_MESSAGES[error_type][0].format(**context)
        return "expected at least one" if bound == "at least 1 of them" else f"expected {bound}"
    if error_type in ("literal_error", "enum"):
        known = re.findall(r"'([^']*)'", str(context["expected"]))
        hint = did_you_mean(node.value, known) if isinstance(node.value, str) and node.interpolated_text is None else ""
        return f"expected {context['expected'].replace(chr(39), '')}{hint}"
    if error_type == "string_pattern_mismatch":
        if str(context["pattern"]).startswith("^https?://"):
            return "expected a URL that starts with http:// or https://"
        return f"expected text of the form {context['pattern']}"
    return message[:1].lower() + message[1:]
