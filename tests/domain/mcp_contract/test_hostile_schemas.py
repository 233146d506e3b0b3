"""Schemas that are invalid, endless, huge or made to take long: comparing them never raises, and ends in time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.contracts import SAMPLE_CONTRACT, change_contract
from watchdog.domain.mcp_contract.changes import ContractChange
from watchdog.domain.mcp_contract.contract import McpContract
from watchdog.domain.mcp_contract.contract_comparison import compare_contracts
from watchdog.domain.mcp_contract.schema_alternatives import (
    MAX_SCHEMA_ALTERNATIVES,
    ComparisonBudget,
    ComparisonBudgetExceededError,
    resolve_schema_reference,
)

SCHEMA_PATH = "tools/fetch/inputSchema"
OBJECT = {"type": "object"}
CYCLE = {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}
STRICT_A, STRICT_B = (
    {"type": "object", "required": names, "properties": {name: {} for name in names}, "additionalProperties": False}
    for names in (["g", "h", "i"], ["j", "k", "l"])
)
EMPTY_CONTRACT = McpContract("2026-07-28", "", "", (), {})


def compare_schemas(old: Any, new: Any, budget: ComparisonBudget | None = None) -> list[ContractChange]:
    before, after = (EMPTY_CONTRACT._replace(tools={"fetch": {"inputSchema": schema}}) for schema in (old, new))
    return compare_contracts(before, after, budget)


def labels(old: Any, new: Any) -> list[str]:
    return [change.label for change in compare_schemas(old, new)]


def nest(depth: int, innermost: Any) -> Any:
    schema = innermost
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def alternatives(count: int, **members: Any) -> Any:
    return {"anyOf": [{"type": "object", "properties": {f"a{i}": {}}, **members} for i in range(count)]}


JUNK_VALUES = [None, 3, "text", [], [1], {}, {"a": 1}, True, float("nan"), float("inf"), 10**400]
JUNK_KEYWORDS = (
    "type", "properties", "required", "enum", "const", "anyOf", "allOf", "oneOf", "$ref", "items", "prefixItems",
    "additionalProperties", "additionalItems", "patternProperties", "minimum", "exclusiveMaximum", "multipleOf",
    "minLength", "uniqueItems", "pattern", "not", "$defs", "title", "default", "nullable",
)  # fmt: skip


@pytest.mark.parametrize("keyword", JUNK_KEYWORDS)
def test_any_value_of_a_keyword(keyword: str) -> None:
    for old in JUNK_VALUES:
        for new in JUNK_VALUES:
            for changed in ((old, new), ({keyword: old}, {keyword: new}), ({**OBJECT, keyword: old}, OBJECT)):
                assert all(change.text for change in compare_schemas(*changed))


def test_a_number_that_python_does_not_print() -> None:
    assert labels({"enum": [10**5000]}, {"enum": [10**5001]}) == ["breaking, not certain"]


@pytest.mark.parametrize(
    ("sentence", "old", "new", "expected"),
    [
        ("a reference to itself", {"$ref": "#"}, {"$ref": "#"}, []),
        ("a cycle of two references", {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#"}}},
         {"$ref": "#/$defs/b", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#"}}}, []),
        ("two references to each other", {"items": {"$ref": "#/$defs/a"}, "$defs": CYCLE},
         {"items": {"$ref": "#/$defs/b"}, "$defs": CYCLE}, []),
        ("1.0 is 1", {"enum": [1], "title": "a"}, {"enum": [1.0], "title": "b"}, ["notice"]),
        ("a part refers to itself", {"properties": {"x": {"$ref": "#/properties/x"}}},
         {"properties": {"x": {"type": "null"}}}, ["breaking"]),
        ("an alternative differs in everything", {"anyOf": [STRICT_A, {"type": "object", "required": ["c"]}]},
         {"anyOf": [STRICT_B, {"type": "object", "required": ["c", "d", "e", "f"]}]}, ["breaking", "additive"]),
        ("a reference to nothing is removed", {"$ref": "#/nowhere"}, {}, ["additive"]),
        ("a reference to another document", {"$ref": "https://x.example/a"}, {"$ref": "https://x.example/b"},
         ["breaking, not certain"]),
        ("an anchor with another definition", {"$ref": "#A", "$defs": {"a": {"$anchor": "A", "type": "string"}}},
         {"$ref": "#A", "$defs": {"a": {"$anchor": "A", "type": "null"}}}, ["breaking, not certain"]),
        ("a condition with another definition", {"not": {"$ref": "#/$defs/a"}, "$defs": {"a": {"type": "string"}}},
         {"not": {"$ref": "#/$defs/a"}, "$defs": {"a": {"type": "null"}}}, ["breaking, not certain"]),
        ("another definition that is not used", {"not": {}, "$defs": {"a": {}}}, {"not": {}, "$defs": {}}, []),
        ("a change below 30 levels", nest(30, {"type": "string"}), nest(30, {"type": "number"}),
         ["breaking", "additive"]),
        ("a change below 100 levels", nest(100, {"type": "string"}), nest(100, {"type": "number"}),
         ["breaking, not certain"]),
        ("100 equal levels beside a change", {"properties": {"a": nest(100, {}), "b": {"type": "string"}}},
         {"properties": {"a": nest(100, {}), "b": {}}}, ["additive"]),
        ("too many levels for Python", nest(3_000, {}), nest(3_000, {"type": "null"}), ["breaking, not certain"]),
        ("8 alternatives, one with another argument", alternatives(8, required=["b"], additionalProperties=False),
         {"anyOf": alternatives(9, required=["b"], additionalProperties=False)["anyOf"][1:]},
         ["additive", "breaking"]),
        ("too many alternatives", alternatives(MAX_SCHEMA_ALTERNATIVES + 1), alternatives(MAX_SCHEMA_ALTERNATIVES + 2),
         ["breaking, not certain"]),
        ("too many alternatives, in another place", {"properties": {"a": alternatives(60), "b": {"type": "null"}}},
         {"properties": {"a": alternatives(60), "b": {}}}, ["additive"]),
        ("too many pairs of alternatives", alternatives(20), alternatives(21), ["breaking, not certain"]),
        ("alternatives of alternatives", {"allOf": [alternatives(6), alternatives(6)]}, {"allOf": [alternatives(6)]},
         ["breaking, not certain"]),
        ("a removed property is judged as any other",
         {"properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "number"}},
         {"additionalProperties": {"type": "number"}}, ["breaking", "notice"]),
        ("the tighter of two bounds counts", {"allOf": [{"minimum": 5}, {"minimum": 0}]}, {"minimum": 5}, []),
        ("two lists of first elements", {"allOf": [{"prefixItems": [{}]}, {"prefixItems": []}]},
         {"allOf": [{"prefixItems": [{}]}]}, ["breaking, not certain"]),
        ("no type that both parts of allOf allow", {"allOf": [{"type": "string"}, {"type": "null"}]}, {"enum": [1]},
         ["additive"]),
        ("a removed property that may match a pattern", {"properties": {"x-a": {}}},
         {"patternProperties": {"^x-": {}}, "additionalProperties": False},
         ["breaking"] * 2 + ["breaking, not certain"] * 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_schema(sentence: str, old: Any, new: Any, expected: list[str]) -> None:
    assert sorted(labels(old, new)) == sorted(expected), sentence


def test_the_budget_bounds_a_comparison() -> None:
    """Schemas that are combined anew at each level would take hours."""

    def build_schema(innermost: Any) -> Any:
        definitions = {"0": innermost, "other0": {}}
        for level in range(1, 30):
            parts = [{"properties": {"a": {"$ref": f"#/$defs/{name}{level - 1}"}}} for name in ("", "other")]
            members = [{"type": "object", "allOf": parts, "required": [f"b{number}"]} for number in range(4)]
            definitions |= {f"{level}": {"anyOf": members}, f"other{level}": {"type": "object"}}
        return {"$ref": "#/$defs/29", "$defs": definitions}

    changes = compare_schemas(build_schema({"type": "string"}), build_schema({"type": "null"}))
    assert [(change.label, change.text) for change in changes] == [
        ("breaking, not certain", "tool fetch has changed, and is too large to be compared")
    ]


WIDE = {f"k{number}": 1 for number in range(5_000)}
LONG_TEXT = "x" * 20_000


@pytest.mark.parametrize(
    ("shared", "referrers"),
    [
        (WIDE, {"allOf": [{"$ref": "#/$defs/shared"}] * 2_000}),
        ({"required": [*WIDE]}, {"properties": {str(i): {"$ref": "#/$defs/shared", "x": i} for i in range(2_000)}}),
        ({"default": LONG_TEXT}, {"properties": {str(i): {"$ref": "#/$defs/shared", "x": i} for i in range(2_000)}}),
        ({"$ref": f"#/{'/'.join(LONG_TEXT)}"}, {"allOf": [{"$ref": "#/$defs/shared"}] * 2_000}),
        ({}, {"allOf": [{"minimum": number} for number in range(9_000)]}),
    ],
    ids=["wide schema", "many names", "long text", "long reference", "many parts"],
)
def test_a_wide_schema_that_is_visited_again_and_again_takes_many_steps(shared: Any, referrers: Any) -> None:
    old, new = ({"$defs": {"shared": {**shared, "title": title}}, **referrers, "title": title} for title in "AB")
    if "default" in shared:
        new["$defs"]["shared"]["default"] = "y"
    assert [change.text for change in compare_schemas(old, new)] == [
        "tool fetch has changed, and is too large to be compared"
    ]


def test_a_large_server_can_be_compared() -> None:
    """With 250 KB of schemas, all of whose texts are others."""

    def build_tools(text: str) -> Any:
        arguments = {f"argument_{i}": {"type": "string", "description": text * 4} for i in range(15)}
        schema = {"type": "object", "properties": arguments, "required": [*arguments]}
        return {f"tool_{i}": {"inputSchema": schema} for i in range(150)}

    old, new = (EMPTY_CONTRACT._replace(tools=build_tools(f"What {text} argument means.")) for text in ("the", "this"))
    assert {change.label for change in compare_contracts(old, new)} == {"notice"}


def test_the_budget_is_that_of_all_tools() -> None:
    changed = change_contract(SCHEMA_PATH, {"type": "array"}, change_contract("tools/search/title", "Find"))
    labels_by_text = {
        change.text: change.label for change in compare_contracts(SAMPLE_CONTRACT, changed, ComparisonBudget(0))
    }
    assert labels_by_text == {
        "tool fetch has changed, and is too large to be compared": "breaking, not certain",
        "tool search has another title": "notice",
    }
    with pytest.raises(ComparisonBudgetExceededError):
        ComparisonBudget(0).spend_step()


def test_an_alternative_that_is_narrower_in_one_way_and_wider_in_another() -> None:
    def build_schema(**members: Any) -> Any:
        other = {"type": "object", "required": ["b"], "properties": {"b": {}}, "additionalProperties": False}
        return {"anyOf": [{**other, "required": ["a"], "properties": {"a": members}}, other]}

    changes = compare_schemas(
        build_schema(type="string", maxLength=9), build_schema(type=["string", "null"], maxLength=5)
    )
    assert [(change.label, change.text) for change in changes] == [
        ("breaking", "tool fetch: argument a has a tighter maxLength"),
        ("additive", "tool fetch: argument a also accepts null"),
    ]


def test_texts_of_alternatives() -> None:
    old, new = ({"anyOf": [{"type": "string", "description": text}, {"type": "null"}]} for text in ("A", "B"))
    changes = compare_schemas({"properties": {"x": old}}, {"properties": {"x": new}})
    assert [(change.label, change.text) for change in changes] == [
        ("notice", "tool fetch: the input schema has other titles or descriptions")
    ]


@pytest.mark.parametrize(
    ("reference", "targets"),
    [
        ("#/$defs/a~1b", [1]), ("#/$defs/c%20d", [2]), ("#/$defs/e%25f", [3]), ("#/list/1", ["y"]), ("#/list/7", []),
        ("#/list/x", []), ("#anchor", []), ("other.json", []), ("#/$defs/nothing", []),
    ],
)  # fmt: skip
def test_references(reference: str, targets: list[Any]) -> None:
    root = {"$defs": {"a/b": 1, "c d": 2, "e%f": 3}, "list": ["x", "y"]}
    assert list(resolve_schema_reference(reference, root)) == targets
    assert list(resolve_schema_reference("#", root)) == [root]
