"""Compares two alternatives of a schema keyword by keyword: bounds, patterns, elements, properties."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from watchdog.domain.mcp_contract.schema_alternatives import (
    REFERENCE_KEYWORDS,
    SchemaAlternative,
    SchemaTooComplexError,
)
from watchdog.domain.mcp_contract.schema_differences import (
    ADDED,
    ADDED_TO_CLOSED,
    CLOSED,
    NARROWED,
    OPENED,
    REFUSED,
    REFUSED_REQUIRED,
    UNDECIDED,
    UNLISTED,
    UNLISTED_REQUIRED,
    WIDENED,
    SchemaDifference,
    SubschemaComparer,
    format_schema_value,
)
from watchdog.domain.model import Json

_UNDECIDABLE_KEYWORDS_BY_TYPE = {
    "string": ("pattern", "format", "contentEncoding", "contentMediaType", "contentSchema"),
    "array": ("contains", "minContains", "maxContains", "unevaluatedItems"),
    "object": (
        "patternProperties", "propertyNames", "dependentRequired", "dependentSchemas", "dependencies",
        "unevaluatedProperties",
    ),
}  # fmt: skip
_UNDECIDABLE_KEYWORDS = ("not", "if", "then", "else", *REFERENCE_KEYWORDS)
_CERTAIN_IF_ADDED = ("pattern",)
"""Such a keyword refuses values, however it is set."""
_LENGTH_KEYWORDS_BY_TYPE = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}


def compare_keywords_of_type(
    comparer: SubschemaComparer, type_: str, old: SchemaAlternative, new: SchemaAlternative, depth: int
) -> Iterator[SchemaDifference]:
    if type_ == "number":
        yield from _compare_number_bounds(old, new)
        yield from _compare_divisors(old, new)
    if lengths := _LENGTH_KEYWORDS_BY_TYPE.get(type_):
        yield from _compare_lengths(old, new, *lengths)
    if type_ == "array":
        yield from _compare_uniqueness(old, new)
        yield from _compare_elements(comparer, old, new, depth)
    if type_ == "object":
        yield from _compare_properties(comparer, old, new, depth)
    for keyword in (*_UNDECIDABLE_KEYWORDS_BY_TYPE.get(type_, ()), *_UNDECIDABLE_KEYWORDS):
        yield from _compare_undecidable_keyword(comparer, keyword, old, new)


def _compare_undecidable_keyword(
    comparer: SubschemaComparer, keyword: str, old: SchemaAlternative, new: SchemaAlternative
) -> Iterator[SchemaDifference]:
    before, after = old.list_values_of_keyword(keyword), new.list_values_of_keyword(keyword)
    if not (before or after) or comparer.are_conditions_equal({keyword: before}, {keyword: after}):
        return
    effect, text = UNDECIDED, f"has another {keyword}"
    if not before:
        effect, text = (NARROWED if keyword in _CERTAIN_IF_ADDED else UNDECIDED), f"has a new {keyword}"
    elif not after:
        effect, text = WIDENED, f"has no {keyword} any more"
    yield SchemaDifference(effect, "", text, *map(_format_conditions, (before, after)))


def _format_conditions(values: list[Json]) -> str:
    return ", ".join(map(format_schema_value, values))


class _Bound(NamedTuple):
    """A lower bound; an upper bound is that of the negative number. A tighter one is greater."""

    value: float
    is_exclusive: bool = False


def _compare_number_bounds(old: SchemaAlternative, new: SchemaAlternative) -> Iterator[SchemaDifference]:
    for name, sign in (("minimum", 1), ("maximum", -1)):
        before, after = _find_number_bound(old, name, sign), _find_number_bound(new, name, sign)
        yield from _compare_bounds(name, before, after, sign)


def _find_number_bound(alternative: SchemaAlternative, name: str, sign: int) -> _Bound | None:
    """Of whole numbers, an exclusive bound is stated as the next inclusive one."""
    exclusive_name = f"exclusive{name.capitalize()}"
    # up to draft 4, the keyword for exclusive bounds is true or false
    is_exclusive = True in alternative.list_values_of_keyword(exclusive_name)
    bounds = [_Bound(sign * number, is_exclusive) for number in alternative.list_numbers_of_keyword(name)]
    bounds += [_Bound(sign * number, True) for number in alternative.list_numbers_of_keyword(exclusive_name)]
    if alternative.is_integer:
        bounds = [
            _Bound(math.floor(bound.value) + 1 if bound.is_exclusive else math.ceil(bound.value)) for bound in bounds
        ]
    return max(bounds, default=None)


def _compare_lengths(
    old: SchemaAlternative, new: SchemaAlternative, min_keyword: str, max_keyword: str
) -> Iterator[SchemaDifference]:
    for keyword, sign in ((min_keyword, 1), (max_keyword, -1)):
        before, after = (_find_length_bound(each, keyword, sign) for each in (old, new))
        yield from _compare_bounds(keyword, before, after, sign)


def _find_length_bound(alternative: SchemaAlternative, keyword: str, sign: int) -> _Bound | None:
    bound = max((_Bound(sign * number) for number in alternative.list_numbers_of_keyword(keyword)), default=None)
    return None if sign == 1 and bound == _Bound(0) else bound  # a length of at least 0 is no restriction


def _compare_bounds(name: str, before: _Bound | None, after: _Bound | None, sign: int) -> Iterator[SchemaDifference]:
    if before == after:
        return
    texts = [_format_bound(bound, sign) for bound in (before, after)]
    if before is None:
        yield SchemaDifference(NARROWED, "", f"has a new {name}", *texts)
    elif after is None:
        yield SchemaDifference(WIDENED, "", f"has no {name} any more", *texts)
    else:
        effect, adjective = (NARROWED, "tighter") if after > before else (WIDENED, "looser")
        yield SchemaDifference(effect, "", f"has a {adjective} {name}", *texts)


def _format_bound(bound: _Bound | None, sign: int) -> str:
    if bound is None:
        return ""
    comparison = ("more than " if sign == 1 else "less than ") if bound.is_exclusive else ""
    return comparison + format_schema_value(sign * bound.value)


def _compare_divisors(old: SchemaAlternative, new: SchemaAlternative) -> Iterator[SchemaDifference]:
    before, after = ([n for n in each.list_numbers_of_keyword("multipleOf") if n > 0] for each in (old, new))
    if before == after:
        return
    texts = _format_conditions([*before]), _format_conditions([*after])
    narrows, widens = _has_new_divisor(before, after), _has_new_divisor(after, before)
    effect = NARROWED if not widens else WIDENED if not narrows else UNDECIDED
    yield SchemaDifference(effect, "", "has another multipleOf", *texts)


def _has_new_divisor(before: list[float], after: list[float]) -> bool:
    """Whether a multiple of all numbers before may not be a multiple of all numbers after."""
    return any(all(Fraction(number) % Fraction(divisor) for number in before) for divisor in after)


def _compare_uniqueness(old: SchemaAlternative, new: SchemaAlternative) -> Iterator[SchemaDifference]:
    before, after = (True in each.list_values_of_keyword("uniqueItems") for each in (old, new))
    if before != after:
        effect, text = (NARROWED, "refuses equal elements") if after else (WIDENED, "accepts equal elements")
        yield SchemaDifference(effect, "", text)


def _compare_elements(
    comparer: SubschemaComparer, old: SchemaAlternative, new: SchemaAlternative, depth: int
) -> Iterator[SchemaDifference]:
    old_first, old_rest = _split_elements(comparer, old)
    new_first, new_rest = _split_elements(comparer, new)
    for number in range(max(len(old_first), len(new_first))):
        before = old_first[number] if number < len(old_first) else old_rest
        after = new_first[number] if number < len(new_first) else new_rest
        yield from comparer.compare(before, after, f"[{number}]", depth + 1)
    yield from comparer.compare(old_rest, new_rest, "[]", depth + 1)


def _split_elements(comparer: SubschemaComparer, alternative: SchemaAlternative) -> tuple[list[Json], Json]:
    """The schemas of the first elements, and the schema of all others."""
    items = alternative.list_values_of_keyword("items")
    first = [each for each in (*alternative.list_values_of_keyword("prefixItems"), *items) if isinstance(each, list)]
    if len(first) > 1:
        raise SchemaTooComplexError
    rest = [each for each in items if not isinstance(each, list)]
    if any(isinstance(each, list) for each in items):  # up to draft 2019-09
        rest = alternative.list_values_of_keyword("additionalItems")
    return (first[0] if first else []), comparer.combine(rest)


class _Properties(NamedTuple):
    """The properties of objects."""

    schemas: dict[str, Json]
    required: frozenset[str]
    others: Json
    """The schema of properties that are not listed; False: they are refused."""

    @property
    def are_others_refused(self) -> bool:
        return self.others is False


def _read_properties(comparer: SubschemaComparer, alternative: SchemaAlternative) -> _Properties:
    schemas: dict[str, list[Json]] = {}
    for properties in alternative.list_values_of_keyword("properties"):
        for name, schema in properties.items() if isinstance(properties, dict) else ():
            schemas.setdefault(name, []).append(schema)
    required = frozenset(
        name
        for names in alternative.list_values_of_keyword("required")
        for name in (names if isinstance(names, list) else ())
        if isinstance(name, str)
    )
    others = alternative.list_values_of_keyword("additionalProperties")
    are_refused = any(schema is False for schema in others)
    return _Properties(
        {name: comparer.combine(each) for name, each in schemas.items()},
        required,
        False if are_refused else comparer.combine(others),
    )


def _compare_properties(
    comparer: SubschemaComparer, old: SchemaAlternative, new: SchemaAlternative, depth: int
) -> Iterator[SchemaDifference]:
    before, after = _read_properties(comparer, old), _read_properties(comparer, new)
    has_patterns = bool(new.list_values_of_keyword("patternProperties"))
    for name in sorted({*before.schemas, *after.schemas, *before.required, *after.required}):
        if name in before.schemas and name not in after.schemas:
            yield from _describe_removed_property(comparer, name, before, after, depth)
            if has_patterns:
                yield SchemaDifference(UNDECIDED, name, "was removed, and may match a pattern")
        elif name in after.schemas and name not in before.schemas:
            if name in after.required and name not in before.required:
                yield SchemaDifference(NARROWED, name, "was added and is required")
            else:
                effect = ADDED_TO_CLOSED if before.are_others_refused else ADDED
                yield SchemaDifference(effect, name, "was added")
        else:
            yield from _describe_changed_necessity(name, before, after)
            if name in before.schemas:
                yield from comparer.compare(before.schemas[name], after.schemas[name], name, depth + 1)
    if before.are_others_refused != after.are_others_refused:
        effect, verb = (CLOSED, "refuses") if after.are_others_refused else (OPENED, "accepts")
        yield SchemaDifference(effect, "", f"{verb} fields that are not listed")
    elif not after.are_others_refused:
        yield from comparer.compare(before.others, after.others, "*", depth + 1)


def _describe_changed_necessity(name: str, before: _Properties, after: _Properties) -> Iterator[SchemaDifference]:
    if name in after.required and name not in before.required:
        yield SchemaDifference(NARROWED, name, "is now required")
    elif name in before.required and name not in after.required:
        yield SchemaDifference(WIDENED, name, "is no longer required")


def _describe_removed_property(
    comparer: SubschemaComparer, name: str, before: _Properties, after: _Properties, depth: int
) -> Iterator[SchemaDifference]:
    if name in after.required and name not in before.required:
        yield SchemaDifference(NARROWED, name, "is now required")
    was_required = name in before.required
    if after.are_others_refused:
        yield SchemaDifference(REFUSED_REQUIRED if was_required else REFUSED, name, "was removed, and is refused")
        return
    yield SchemaDifference(UNLISTED_REQUIRED if was_required else UNLISTED, name, "is no longer listed")
    differences = comparer.compare(before.schemas[name], after.others, name, depth + 1)
    yield from (difference for difference in differences if difference.effect.narrows)
