"""A JSON Schema as a list of alternatives, each without `anyOf`, `oneOf`, `allOf` and `$ref`: so two spellings of one
schema, such as a list of types and an `anyOf`, are compared alike. Never crashes on a schema that is invalid."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain, product

from watchdog.domain.model import Json

MAX_SCHEMA_ALTERNATIVES = 24
"""Of one schema; a schema with more is compared as a whole."""
MAX_CONTRACT_COMPARISON_STEPS = 20_000
"""Subschemas that one comparison of two contracts visits."""
SCHEMA_WIDTH_PER_STEP = 200
"""A subschema of this width takes one step more."""
NULL_TYPE = "null"
JSON_SCHEMA_TYPES = frozenset(("array", "boolean", NULL_TYPE, "number", "object", "string"))
"""`integer` is a number with a restriction."""
REFERENCE_KEYWORDS = ("$ref", "$dynamicRef", "$recursiveRef")
_COMBINING_KEYWORDS = ("$ref", "allOf", "anyOf", "oneOf")
_PERCENT_ENCODED_BYTES_PATTERN = re.compile(r"(?:%[0-9A-Fa-f]{2})+")

Conjunction = list[dict[str, Json]]
"""Schemas that all apply, without combining keywords."""


class SchemaTooComplexError(Exception):
    """A schema has too many alternatives, or too many levels."""


class ComparisonBudgetExceededError(Exception):
    """Two contracts are too large to be compared."""


class ComparisonBudget:
    """How many steps a comparison may still take."""

    def __init__(self, steps: int = MAX_CONTRACT_COMPARISON_STEPS) -> None:
        self._remaining_steps = steps

    def spend_step(self) -> None:
        """Raises ComparisonBudgetExceededError."""
        self._spend(1)

    def spend_width(self, width: int) -> None:
        """For what is wider than usual, because it may be visited again for each reference to it. `width`: as of
        `measure_schema_width`. Raises ComparisonBudgetExceededError."""
        self._spend(width // SCHEMA_WIDTH_PER_STEP)

    def _spend(self, steps: int) -> None:
        self._remaining_steps -= steps
        if self._remaining_steps < 0:
            raise ComparisonBudgetExceededError


def measure_schema_width(schema: dict[str, Json]) -> int:
    """About how much there is to look at in a schema, without those below it: keywords, names, listed values and the
    characters of texts."""
    return len(schema) + sum(len(value) for value in schema.values() if isinstance(value, str | list | dict))


class SchemaAlternative:
    """One alternative of a schema: a value is valid if it satisfies every schema of a conjunction."""

    def __init__(self, conjunction: Conjunction) -> None:
        self.conjunction = conjunction
        self.width = sum(map(measure_schema_width, conjunction))
        self.types = JSON_SCHEMA_TYPES
        self.is_integer = False
        """Its numbers are whole numbers."""
        self.enumerated_values: dict[str, Json] | None = None
        """The only valid values, by their text as JSON; None: there is no such list."""
        for schema in conjunction:
            types, is_integer = _read_schema_types(schema)
            self.types, self.is_integer = self.types & types, self.is_integer or is_integer
        for values in chain.from_iterable(map(_iter_enumerations, conjunction)):
            self._restrict_to_values({encode_canonical_json(value): value for value in values})

    def _restrict_to_values(self, listed: dict[str, Json]) -> None:
        before = self.enumerated_values
        self.enumerated_values = {
            text: value for text, value in listed.items()
            if (before is None or text in before) and get_json_schema_type_of_value(value) in self.types
        }  # fmt: skip
        self.types = frozenset(map(get_json_schema_type_of_value, self.enumerated_values.values()))

    def list_values_of_keyword(self, keyword: str) -> list[Json]:
        """Each different value that the keyword has in the conjunction."""
        values: list[Json] = []
        for schema in self.conjunction:
            if keyword in schema and schema[keyword] not in values:
                values.append(schema[keyword])
        return values

    def list_numbers_of_keyword(self, keyword: str) -> list[float]:
        return [value for value in self.list_values_of_keyword(keyword) if is_finite_number(value)]


def is_finite_number(value: Json) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and value not in (float("inf"), float("-inf")) and value == value


def list_schema_alternatives(schema: Json, root: Json, budget: ComparisonBudget) -> list[SchemaAlternative]:
    """Those that some value can satisfy. Lists of values are joined to one. `root`: the schema that references are
    about. Raises SchemaTooComplexError and ComparisonBudgetExceededError."""
    alternatives = [SchemaAlternative(each) for each in _expand_schema(schema, root, budget, ())]
    enumerations = [each for each in alternatives if each.enumerated_values is not None and each.types]
    others = [each for each in alternatives if each.enumerated_values is None and each.types]
    if len(enumerations) < 2:
        return [*others, *enumerations]
    values = [value for each in enumerations for value in (each.enumerated_values or {}).values()]
    return [*others, SchemaAlternative([{"enum": values}])]


def _expand_schema(schema: Json, root: Json, budget: ComparisonBudget, trail: tuple[str, ...]) -> list[Conjunction]:
    """A disjunction of conjunctions. `trail`: the references that led here, to stop at a cycle."""
    budget.spend_step()
    if schema is False:
        return []
    if not isinstance(schema, dict):
        return [[{}]]
    budget.spend_width(measure_schema_width(schema))
    plain = {keyword: value for keyword, value in schema.items() if keyword not in _COMBINING_KEYWORDS}
    alternatives: list[Conjunction] = [[plain]]
    if isinstance(reference := schema.get("$ref"), str) and reference not in trail:
        for target in resolve_schema_reference(reference, root):
            alternatives = _combine_conjunctions(
                alternatives, _expand_schema(target, root, budget, (*trail, reference)), budget
            )
            break
        else:
            plain["$ref"] = reference
    for member in _get_list(schema, "allOf"):
        alternatives = _combine_conjunctions(alternatives, _expand_schema(member, root, budget, trail), budget)
    for keyword in ("anyOf", "oneOf"):
        if members := _get_list(schema, keyword):
            choices = [choice for member in members for choice in _expand_schema(member, root, budget, trail)]
            alternatives = _combine_conjunctions(alternatives, choices, budget)
    return alternatives


def _combine_conjunctions(
    first: list[Conjunction], second: list[Conjunction], budget: ComparisonBudget
) -> list[Conjunction]:
    if len(first) * len(second) > MAX_SCHEMA_ALTERNATIVES:
        raise SchemaTooComplexError
    budget.spend_width(len(second) * sum(map(len, first)) + len(first) * sum(map(len, second)))
    return [[*a, *b] for a, b in product(first, second)]


def resolve_schema_reference(reference: str, root: Json) -> Iterator[Json]:
    """The schema that a reference within the root is about; nothing if there is none."""
    if reference == "#":
        yield root
        return
    if not reference.startswith("#/"):
        return
    for pointer in dict.fromkeys((reference[2:], _decode_percent_encoding(reference[2:]))):
        node = root
        for part in pointer.split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and name in node:
                node = node[name]
            elif isinstance(node, list) and re.fullmatch("[0-9]{1,9}", name) and int(name) < len(node):
                node = node[int(name)]
            else:
                break
        else:
            yield node
            return


def _decode_percent_encoding(text: str) -> str:
    return _PERCENT_ENCODED_BYTES_PATTERN.sub(
        lambda match: bytes.fromhex(match[0].replace("%", "")).decode(errors="replace"), text
    )


def _get_list(schema: dict[str, Json], keyword: str) -> list[Json]:
    value = schema.get(keyword)
    return value if isinstance(value, list) else []


def _read_schema_types(schema: dict[str, Json]) -> tuple[frozenset[str], bool]:
    """The types that `type` allows, and whether numbers have to be whole."""
    stated = schema.get("type")
    names = {name for name in (stated if isinstance(stated, list) else [stated]) if isinstance(name, str)}
    is_integer = "integer" in names and "number" not in names
    types = {"number" if name == "integer" else name for name in names} & JSON_SCHEMA_TYPES
    if not types:
        return JSON_SCHEMA_TYPES, False
    return frozenset(types | ({NULL_TYPE} if schema.get("nullable") is True else set())), is_integer


def _iter_enumerations(schema: dict[str, Json]) -> Iterator[list[Json]]:
    if isinstance(values := schema.get("enum"), list):
        yield values
    if "const" in schema:
        yield [schema["const"]]


def get_json_schema_type_of_value(value: Json) -> str:
    match value:
        case None:
            return NULL_TYPE
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def encode_canonical_json(value: Json) -> str:
    """The same text for values that are equal by JSON Schema: the order of members does not count, nor do 1 and 1.0
    differ."""
    return json.dumps(_replace_whole_floats(value), sort_keys=True, ensure_ascii=False)


def _replace_whole_floats(value: Json) -> Json:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {str(name): _replace_whole_floats(inner) for name, inner in value.items()}
    return [_replace_whole_floats(inner) for inner in value] if isinstance(value, list) else value
