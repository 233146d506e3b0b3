"""Compares two JSON Schemas: which values that were valid are refused now, and which are valid only now.

What cannot be decided, such as a changed pattern, counts as a restriction that is not certain. Bounded in time by a
budget of steps; never crashes on a schema that is invalid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from watchdog.domain.mcp_contract.changes import MAX_CHANGED_TEXT_EXCERPT_CHARS
from watchdog.domain.mcp_contract.keyword_comparison import compare_keywords_of_type
from watchdog.domain.mcp_contract.schema_alternatives import (
    JSON_SCHEMA_TYPES,
    REFERENCE_KEYWORDS,
    ComparisonBudget,
    SchemaAlternative,
    SchemaTooComplexError,
    encode_canonical_json,
    get_json_schema_type_of_value,
    list_schema_alternatives,
    resolve_schema_reference,
)
from watchdog.domain.mcp_contract.schema_differences import (
    NARROWED,
    UNDECIDED,
    WIDENED,
    SchemaDifference,
    describe_text_change,
)
from watchdog.domain.model import Json
from watchdog.domain.text import truncate_with_ellipsis

MAX_SCHEMA_DEPTH = 40
MAX_DIFFERENCES_PER_SCHEMA = 200
MAX_COMPARED_ALTERNATIVE_PAIRS = 64
MAX_RESTRICTIONS_OF_SAME_ALTERNATIVE = 2
"""An alternative with more of them is another one."""


class SchemaComparison:
    """Compares the schemas of one tool before and after a change. Results are remembered, and a cycle of references is
    followed once. Raises ComparisonBudgetExceededError."""

    def __init__(self, old_root: Json, new_root: Json, budget: ComparisonBudget) -> None:
        self._old_root, self._new_root, self._budget = old_root, new_root, budget
        self._differences: dict[tuple[int, int], list[SchemaDifference]] = {}
        """By the identities of two schemas, which live as long as the comparison."""
        self._combined: list[Json] = []
        self._has_equal_definitions = all(
            _get_member(old_root, name) == _get_member(new_root, name) for name in ("$defs", "definitions")
        )

    def compare_roots(self) -> list[SchemaDifference]:
        return self.compare(self._old_root, self._new_root, "", 0)

    def compare(self, old: Json, new: Json, path: str, depth: int) -> list[SchemaDifference]:
        """The differences of two parts of the schemas, which are at `path` of the compared one."""
        old, new = (
            self._follow_plain_references(old, self._old_root),
            self._follow_plain_references(new, self._new_root),
        )
        key = (id(old), id(new))
        if key not in self._differences:
            self._differences[key] = []  # for a cycle: if there is a difference, the other parts show it
            self._differences[key] = self._compare_unless_too_complex(old, new, depth)[:MAX_DIFFERENCES_PER_SCHEMA]
        return [difference.move_into(path) for difference in self._differences[key]]

    def combine(self, schemas: list[Json]) -> Json:
        """One schema for several that all apply."""
        if len(schemas) < 2:
            return schemas[0] if schemas else True
        self._combined.append({"allOf": schemas})  # its identity must not be used again
        return self._combined[-1]

    def are_conditions_equal(self, old: Json, new: Json) -> bool:
        """Whether two parts are certain to mean the same."""
        return old == new and (self._has_equal_definitions or not _has_reference(old))

    def _follow_plain_references(self, schema: Json, root: Json) -> Json:
        """The target of a schema that is nothing but a reference, so that a cycle leads to the same schema."""
        for _ in range(MAX_SCHEMA_DEPTH):
            if not isinstance(schema, dict) or schema.keys() != {"$ref"} or not isinstance(schema["$ref"], str):
                break
            self._budget.spend_width(len(schema["$ref"]))
            target = next(resolve_schema_reference(schema["$ref"], root), schema)
            if target is schema:
                break
            schema = target
        return schema

    def _compare_unless_too_complex(self, old: Json, new: Json, depth: int) -> list[SchemaDifference]:
        self._budget.spend_step()
        try:
            if depth > MAX_SCHEMA_DEPTH:
                raise SchemaTooComplexError
            old_alternatives = list_schema_alternatives(old, self._old_root, self._budget)
            new_alternatives = list_schema_alternatives(new, self._new_root, self._budget)
            differences = list(_compare_types(old_alternatives, new_alternatives))
            for type_ in sorted(JSON_SCHEMA_TYPES):
                olds = [each for each in old_alternatives if type_ in each.types]
                news = [each for each in new_alternatives if type_ in each.types]
                if olds and news:
                    differences += self._compare_alternatives_of_type(type_, olds, news, depth)
        except SchemaTooComplexError:
            is_equal = self.are_conditions_equal(old, new)
            differences = (
                [] if is_equal else [SchemaDifference(UNDECIDED, "", "is too complex to be compared, and has changed")]
            )
        return [*dict.fromkeys(differences), *self._compare_texts(old, new)]

    def _compare_alternatives_of_type(
        self, type_: str, olds: list[SchemaAlternative], news: list[SchemaAlternative], depth: int
    ) -> Iterator[SchemaDifference]:
        """Compares each alternative with the one that is most like it. One that another alternative covers has no
        difference."""
        if len(olds) * len(news) > MAX_COMPARED_ALTERNATIVE_PAIRS:
            raise SchemaTooComplexError
        pairs = [[list(self._compare_pair(type_, old, new, depth)) for new in news] for old in olds]
        if len(olds) == len(news) == 1:
            yield from pairs[0][0]
            return
        matched = set()
        for row in pairs:
            restrictions = [[each for each in differences if each.effect.narrows] for differences in row]
            best = min(range(len(row)), key=lambda number: len(restrictions[number]))
            if len(restrictions[best]) > MAX_RESTRICTIONS_OF_SAME_ALTERNATIVE:
                yield SchemaDifference(NARROWED, "", f"no longer accepts one of its alternatives of type {type_}")
            elif restrictions[best]:
                matched.add(best)
                yield from restrictions[best]
        for number in range(len(news)):
            column = [[each for each in row[number] if each.effect.widens] for row in pairs]
            if all(column) and number in matched:
                yield from min(column, key=len)
            elif all(column):
                yield SchemaDifference(WIDENED, "", f"accepts another alternative of type {type_}")

    def _compare_pair(
        self, type_: str, old: SchemaAlternative, new: SchemaAlternative, depth: int
    ) -> Iterator[SchemaDifference]:
        self._budget.spend_width(old.width + new.width)
        yield from _compare_enumerations(type_, old, new)
        yield from compare_keywords_of_type(self, type_, old, new, depth)

    def _compare_texts(self, old: Json, new: Json) -> Iterator[SchemaDifference]:
        for keyword in ("title", "description", "default"):
            before, after = (
                self._find_annotation(schema, root, keyword)
                for schema, root in ((old, self._old_root), (new, self._new_root))
            )
            if before != after:
                self._budget.spend_width(len(before) + len(after))
                yield describe_text_change(keyword, before, after)

    @staticmethod
    def _find_annotation(schema: Json, root: Json, keyword: str) -> str:
        """As text; empty: there is none. A reference has that of its target, unless it has one itself."""
        reference = _get_member(schema, "$ref")
        target = next(resolve_schema_reference(reference, root), None) if isinstance(reference, str) else None
        for candidate in (schema, target):
            if isinstance(candidate, dict) and keyword in candidate:
                value = candidate[keyword]
                return value if isinstance(value, str) and keyword != "default" else encode_canonical_json(value)
        return ""


def _compare_types(olds: list[SchemaAlternative], news: list[SchemaAlternative]) -> Iterator[SchemaDifference]:
    old_types, new_types = _collect_types(olds), _collect_types(news)
    before, after = _format_types(old_types, olds), _format_types(new_types, news)
    if removed := old_types - new_types:
        yield SchemaDifference(NARROWED, "", f"no longer accepts {_format_types(removed, olds)}", before, after)
    if added := new_types - old_types:
        yield SchemaDifference(WIDENED, "", f"also accepts {_format_types(added, news)}", before, after)
    if "number" in old_types & new_types and _are_integers(olds) != _are_integers(news):
        effect, verb = (NARROWED, "only accepts") if _are_integers(news) else (WIDENED, "no longer only accepts")
        yield SchemaDifference(effect, "", f"{verb} whole numbers", before, after)


def _collect_types(alternatives: Iterable[SchemaAlternative]) -> frozenset[str]:
    return frozenset[str]().union(*(each.types for each in alternatives))


def _are_integers(alternatives: Iterable[SchemaAlternative]) -> bool:
    return all(each.is_integer for each in alternatives if "number" in each.types)


def _format_types(types: frozenset[str], alternatives: list[SchemaAlternative]) -> str:
    if types == JSON_SCHEMA_TYPES:
        return "any value"
    names = {"integer" if name == "number" and _are_integers(alternatives) else name for name in types}
    return " or ".join(sorted(names)) or "no value"


def _compare_enumerations(type_: str, old: SchemaAlternative, new: SchemaAlternative) -> Iterator[SchemaDifference]:
    before, after = _list_values_of_type(type_, old), _list_values_of_type(type_, new)
    if before is None and after is not None:
        yield SchemaDifference(NARROWED, "", "only accepts listed values", after=_format_values(after))
    elif before is not None and after is None:
        yield SchemaDifference(WIDENED, "", "no longer only accepts listed values", _format_values(before))
    elif before is not None and after is not None:
        texts = _format_values(before), _format_values(after)
        values_before, values_after = {*before}, {*after}
        if removed := [value for value in before if value not in values_after]:
            yield SchemaDifference(NARROWED, "", f"no longer accepts {_format_values(removed)}", *texts)
        if added := [value for value in after if value not in values_before]:
            yield SchemaDifference(WIDENED, "", f"also accepts {_format_values(added)}", *texts)


def _list_values_of_type(type_: str, alternative: SchemaAlternative) -> list[str] | None:
    """As JSON."""
    values = alternative.enumerated_values
    if values is None:
        return None
    return [text for text, value in values.items() if get_json_schema_type_of_value(value) == type_]


def _format_values(values: list[str]) -> str:
    return truncate_with_ellipsis(", ".join(values), MAX_CHANGED_TEXT_EXCERPT_CHARS)


def _has_reference(schema: Json) -> bool:
    text = encode_canonical_json(schema)
    return any(f'"{keyword}"' in text for keyword in REFERENCE_KEYWORDS)


def _get_member(schema: Json, name: str) -> Json:
    return schema.get(name) if isinstance(schema, dict) else None
