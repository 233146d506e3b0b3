"""From what pydantic found to problems that a person can act on: where, which field, what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from watchdog.config.document import Node, shown
from watchdog.config.later import LATER, NOT_YET
from watchdog.config.problems import Problem, did_you_mean
from watchdog.fields import FieldsError, Model, Where, from_files


def explain(error: ValidationError, model: type[Model], node: Node, section: str = "") -> list[Problem]:
    """What is wrong with `node`, which was read as `model` and is held by the field `section`."""
    found = [
        spotted
        for details in error.errors(include_url=False, include_input=False)
        for spotted in _spotted(details, model, node, section)
    ]
    return [spotted.problem for spotted in _one_reading(found)]


def reread(error: ValidationError, node: Node) -> bool:
    """Take what a variable holds as text where text is wanted: a password may look like a number. False: no such."""
    changed = False
    for details in error.errors(include_url=False, include_context=False, include_input=False):
        target, _ = _locate(node, details["loc"])
        if details["type"] == "string_type" and target.text is not None and not isinstance(target.value, str):
            target.value, changed = target.text, True
    return changed


class _Spotted(NamedTuple):
    problem: Problem
    target: int
    reading: tuple[tuple[int, str], ...]
    """Of a field that may be one thing or another: the value, and as which of them it was read."""


def _spotted(details: ErrorDetails, model: type[Model], node: Node, section: str) -> Iterator[_Spotted]:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "default_factory_not_called":
        return
    cause = context.get("error")
    wrong: Sequence[tuple[Where, str]] = [((), str(cause))]
    if isinstance(cause, FieldsError):
        wrong = cause.wrong
    for where, said in wrong:
        path = (*details["loc"], *where)
        missing = str(path[-1]) if kind == "missing" else ""
        target, left = _locate(node, path[:-1] if missing else path)
        if target.broken and kind != "extra_forbidden":
            continue
        mark = target.key if kind == "extra_forbidden" else target.mark
        if kind == "extra_forbidden":
            message = _unknown(str(path[-1]), model, path[:-1], section)
        else:
            message = said if kind == "value_error" else _reworded(kind, context, details["msg"], target)
        if target.variables:
            message += f" (from {' and '.join(f'${{{name}}}' for name in target.variables)})"
        path_shown = f"{target.path}.{missing}".lstrip(".") if missing else target.path
        reading = tuple((id(target), part) for part in left)
        yield _Spotted(Problem(*mark, path_shown, message), id(target), reading)


def _locate(node: Node, path: Iterable[str | int]) -> tuple[Node, list[str]]:
    """The node that pydantic means, and the parts of its path that are no part of the file."""
    left = []
    for part in path:
        if isinstance(part, int) and part < len(node.items):
            node = node.items[part]
        elif (below := node.entries.get(str(part)) or node.entries.get(f"{part}_file")) is not None:
            node = below
        else:
            left.append(str(part))
    return node, left


def _one_reading(found: list[_Spotted]) -> Iterator[_Spotted]:
    """Where a value may be one thing or another, tell what is wrong with it as the thing that it resembles most."""
    by_target: dict[int, list[_Spotted]] = {}
    for spotted in found:
        by_target.setdefault(spotted.target, []).append(spotted)
    for group in by_target.values():
        readings = [spotted for spotted in group if spotted.reading]
        if len(readings) < 2:
            yield from group
            continue
        expected = [s.problem.message for s in readings if s.problem.message.startswith("expected ")]
        told = readings[0].problem
        if expected:
            words = dict.fromkeys(re.sub(r", found .*", "", m).removeprefix("expected ") for m in expected)
            told = told._replace(message=f"expected {' or '.join(words)}")
        yield readings[0]._replace(problem=told)


# --- fields that do not exist


def _unknown(name: str, model: type[Model], path: Where, section: str) -> str:
    models, holder = _models_at(model, path, section)
    if name in LATER.get(holder, ()):
        return NOT_YET
    known = [field for one in models for field in fields(one)]
    inside = [f"{field}.{name}" for one in models for field, below in _submodels(one) if name in fields(below)]
    hint = did_you_mean(name, known) or (f"; did you mean '{inside[0]}'?" if inside else "")
    if not hint and 0 < len(known) <= 12:
        hint = f": expected {', '.join(known)}"
    return f"unknown field '{shown(name)}'{hint}"


def fields(model: type[Model]) -> list[str]:
    """The names that a mapping may hold, as they are written."""
    names = [info.alias or name for name, info in model.model_fields.items()]
    return names + [f"{name}_file" for name in from_files(model)]


def _models_at(model: type[Model], path: Where, section: str) -> tuple[list[type[Model]], str]:
    """The models that stand at the path, and the field that holds them."""
    models = [model]
    for part in path:
        for one in models:
            info = next((info for name, info in one.model_fields.items() if part in (info.alias or name, name)), None)
            if info is not None:
                models, section = list(_models_in(info.annotation)), str(part)
                break
    return models, section


def _models_in(annotation: Any) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _submodels(model: type[Model]) -> Iterator[tuple[str, type[Model]]]:
    for name, info in model.model_fields.items():
        for below in _models_in(info.annotation):
            yield info.alias or name, below


# --- words

_NOUNS = ((bool, "true/false"), (int | float, "a number"), (str, "text"), (dict, "a mapping"), (list, "a list"))


def _noun(node: Node) -> str:
    return next((noun for kind, noun in _NOUNS if isinstance(node.value, kind)), "nothing")


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "float_parsing": "a number",
    "bool_type": "true or false", "bool_parsing": "true or false",
    "tuple_type": "a list, such as [one, two]", "list_type": "a list, such as [one, two]",
    "dict_type": "a mapping, such as {name: value}", "mapping_type": "a mapping, such as {name: value}",
    "model_type": "a mapping of fields", "model_attributes_type": "a mapping of fields",
}  # fmt: skip
_BOUNDS = {
    "greater_than_equal": ("at least {ge}", "ge"), "less_than_equal": ("at most {le}", "le"),
    "greater_than": ("more than {gt}", "gt"), "less_than": ("less than {lt}", "lt"),
    "string_too_short": ("at least {min_length} characters", "min_length"),
    "string_too_long": ("at most {max_length} characters", "max_length"),
    "too_short": ("at least {min_length} of them", "min_length"),
    "too_long": ("at most {max_length} of them", "max_length"),
}  # fmt: skip


def _reworded(kind: str, context: dict[str, Any], message: str, node: Node) -> str:
    if kind == "missing":
        return "is missing"
    if node.value is None:
        return "nothing is given: fill it in, or leave the field out"
    if kind in _EXPECTED:
        quotes = ": put it in quotes" if kind == "string_type" and isinstance(node.value, int | float) else ""
        return f"expected {_EXPECTED[kind]}, found {_noun(node)}{quotes}"
    if kind in _BOUNDS:
        bound = _BOUNDS[kind][0].format(**context)
        return "expected at least one" if bound == "at least 1 of them" else f"expected {bound}"
    if kind in ("literal_error", "enum"):
        known = re.findall(r"'([^']*)'", str(context["expected"]))
        hint = did_you_mean(node.value, known) if isinstance(node.value, str) and node.text is None else ""
        return f"expected {context['expected'].replace(chr(39), '')}{hint}"
    if kind == "string_pattern_mismatch":
        if str(context["pattern"]).startswith("^https?://"):
            return "expected a URL that starts with https:// or http://"
        return f"expected text of the form {context['pattern']}"
    return message[:1].lower() + message[1:]
