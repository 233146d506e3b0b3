"""From what pydantic found to problems that a person can act on: where, which field, what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from watchdog.config.document import Node, shown
from watchdog.config.later import LATER, NOT_YET
from watchdog.config.problems import NOTHING, Problem, did_you_mean, same
from watchdog.config.scalars import resolve
from watchdog.fields import FieldsError, Model, Where, from_files
from watchdog.model import Scalar


def explain(error: ValidationError, model: type[Model], node: Node, section: str = "") -> list[Problem]:
    """What is wrong with `node`, which was read as `model` and is held by the field `section`."""
    found = [
        spotted
        for details in error.errors(include_url=False, include_input=False)
        for spotted in _spotted(details, model, node, section)
    ]
    return [spotted.problem for spotted in _nearest_reading(found)]


def reread(error: ValidationError, node: Node) -> bool:
    """Take what a variable holds as what is wanted. False: nothing is to be taken otherwise.

    A password may look like a number, and a number or a switch may stand in quotes, as it must inside of { }.
    """
    changed = False
    for details in error.errors(include_url=False, include_context=False, include_input=False):
        target, _ = _locate(node, details["loc"])
        if target.text is None or (wanted := _WANTED.get(details["type"])) is None:
            continue
        value = target.text if wanted is str else _plain(target.text)
        if isinstance(value, wanted) and not isinstance(target.value, wanted):
            target.value, changed = value, True
    return changed


_WANTED: dict[str, type[str | int]] = {"string_type": str, "int_type": int, "bool_type": bool}


def _plain(text: str) -> Scalar:
    try:
        return resolve(text.strip())
    except ValueError:
        return text


class _Spotted(NamedTuple):
    problem: Problem
    kind: str
    reading: tuple[int, str] | None
    """Of a value that may be one thing or another: the value's id, and as which of them it was read."""


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
        target, reading = _locate(node, path[:-1] if missing else path)
        if kind != "extra_forbidden" and _follows_from_another(kind, target):
            continue
        if kind == "extra_forbidden":
            message = _unknown(str(path[-1]), model, path[:-1], section)
            yield _Spotted(Problem(*target.key, target.path, message), kind, reading)
            continue
        message = said if kind == "value_error" else _reworded(kind, context, details["msg"], target)
        if target.variables and not any(value and value in message for value in target.variables.values()):
            message += f" (from {' and '.join(f'${{{name}}}' for name in target.variables)})"
        path_shown = f"{target.path}.{missing}".lstrip(".") if missing else target.path
        yield _Spotted(Problem(*target.mark, path_shown, message), kind, reading)


def _follows_from_another(kind: str, target: Node) -> bool:
    """Whether a value that has been complained about already is what this one is about."""
    return target.broken or (kind == "value_error" and any(node.broken for node in target.walk()))


def _locate(node: Node, path: Iterable[str | int]) -> tuple[Node, tuple[int, str] | None]:
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


def _nearest_reading(found: list[_Spotted]) -> Iterator[_Spotted]:
    """Where a value may be one thing or another, tell what is wrong with it as the thing that it resembles most."""
    values: dict[int, list[_Spotted]] = {}
    for spotted in found:
        if spotted.reading:
            values.setdefault(spotted.reading[0], []).append(spotted)
    told = set()
    for spotted in found:
        value = spotted.reading[0] if spotted.reading else 0
        group = values.get(value, [])
        if len({one.reading for one in group}) < 2:
            yield spotted
        elif resembling := [one for one in group if one.kind not in _OF_ANOTHER_KIND]:
            if spotted in resembling:
                yield spotted
        elif value not in told:
            told.add(value)
            expected = dict.fromkeys(re.sub(r"^expected |, found .*", "", one.problem.message) for one in group)
            yield spotted._replace(problem=spotted.problem._replace(message=f"expected {' or '.join(expected)}"))


# --- fields that do not exist


def _unknown(name: str, model: type[Model], path: Where, section: str) -> str:
    models, holder = _models_at(model, path, section)
    if name in LATER.get(holder, ()):
        return NOT_YET
    known = [field for one in models for field in fields(one)]
    if name.removesuffix("_file") != name and name.removesuffix("_file") in known:
        return f"'{name.removesuffix('_file')}' is no secret, and only secrets are read from files"
    below = [(field, fields(within)) for one in models for field, within in _submodels(one)]
    inside = next((f"; did you mean '{field}.{near}'?" for field, names in below if (near := same(name, names))), "")
    hint = inside if inside and not same(name, known) else did_you_mean(name, known)
    if not hint and 0 < len(known) <= 12:
        hint = f": expected {', '.join(known)}"
    return f"unknown {'field' if holder else 'section'} '{shown(name)}'{hint}"


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


_OF_ANOTHER_KIND = (
    *("string_type", "int_type", "float_type", "bool_type", "tuple_type", "list_type", "dict_type", "mapping_type"),
    *("model_type", "model_attributes_type", "literal_error", "enum", "none_required"),
)
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number", "float_type": "a number", "bool_type": "true or false",
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


_MEANT = {**dict.fromkeys(("yes", "on", "y", "true"), "true"), **dict.fromkeys(("no", "off", "n", "false"), "false")}


def _remedy(kind: str, node: Node) -> str:
    """How to write the same as what is wanted."""
    if kind == "string_type" and isinstance(node.value, int | float):
        return ": put it in quotes"
    if node.text is not None or not isinstance(node.value, str):
        return ""
    if kind == "bool_type" and (meant := _MEANT.get(node.value.lower())):
        return f": write {meant}"
    return ": write it without quotes" if kind == "int_type" and isinstance(_plain(node.value), int) else ""


def _reworded(kind: str, context: dict[str, Any], message: str, node: Node) -> str:
    if kind == "missing":
        return "is missing"
    if node.value is None:
        return NOTHING
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, found {_noun(node)}{_remedy(kind, node)}"
    if kind in _BOUNDS:
        bound = _BOUNDS[kind][0].format(**context)
        return "expected at least one" if bound == "at least 1 of them" else f"expected {bound}"
    if kind in ("literal_error", "enum"):
        known = re.findall(r"'([^']*)'", str(context["expected"]))
        hint = did_you_mean(node.value, known) if isinstance(node.value, str) and node.text is None else ""
        return f"expected {context['expected'].replace(chr(39), '')}{hint}"
    if kind == "string_pattern_mismatch":
        if str(context["pattern"]).startswith("^https?://"):
            return "expected a URL that starts with http:// or https://"
        return f"expected text of the form {context['pattern']}"
    return message[:1].lower() + message[1:]
