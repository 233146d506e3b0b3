"""One change of a tool list in each row, and what it means for clients."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.support.contracts import FETCH_TOOL, REMOVED, SAMPLE_CONTRACT, change_argument, change_contract
from watchdog.domain.mcp_contract.contract import McpContract
from watchdog.domain.mcp_contract.contract_comparison import compare_contracts

TOOL, INPUT, OUTPUT = "tools/search", "tools/search/inputSchema", "tools/search/outputSchema"
ARGS, PERIOD, NODE = f"{INPUT}/properties", f"{INPUT}/$defs/Period", f"{INPUT}/$defs/Node"
FETCH_ARGS = "tools/fetch/inputSchema/properties"
BREAKING, UNCERTAIN, ADDITIVE, NOTICE, NONE = "breaking", "breaking, not certain", "additive", "notice", ""
STRING, NUMBER = {"type": "string"}, {"type": "number"}
USER_SCOPE = {"type": "object", "properties": {"kind": {"const": "user"}, "user": {"type": "string"}}}
TEAM_SCOPE = {"type": "object", "properties": {"kind": {"const": "team"}, "team": {"type": "string"}}}

ROWS: list[tuple[str, McpContract, str, str]] = [
    # tools
    ("a tool is removed", change_contract("tools/fetch", REMOVED), BREAKING, "tool fetch was removed"),
    ("a tool is added", change_contract("tools/list", FETCH_TOOL), ADDITIVE, "tool list was added"),
    ("the title changes", change_contract(f"{TOOL}/title", "Find"), NOTICE, "tool search has another title"),
    ("the title is removed", change_contract(f"{TOOL}/title", REMOVED), NOTICE, "tool search has no title any more"),
    ("the description changes", change_contract(f"{TOOL}/description", "Finds."), NOTICE, "has another description"),
    ("an annotation changes", change_contract(f"{TOOL}/annotations/readOnlyHint", False), NOTICE, "annotation read"),
    ("an annotation is added", change_contract(f"{TOOL}/annotations/destructiveHint", True), NOTICE, "annotation dest"),
    ("it needs a task", change_contract(f"{TOOL}/taskSupport", "required"), BREAKING, "its task support is required"),
    ("it can be a task", change_contract(f"{TOOL}/taskSupport", "optional"), ADDITIVE, "its task support is optional"),
    # arguments
    ("a required argument is added", change_contract(f"{INPUT}/required", ["query", "limit"]), BREAKING,
     "argument limit is now required"),
    ("a new argument is required, but not listed", change_contract(f"{INPUT}/required", ["query", "region"]), BREAKING,
     "argument region is now required"),
    ("an argument is no longer required", change_contract(f"{INPUT}/required", []), ADDITIVE, "query is no longer r"),
    ("no argument is required any more", change_contract(f"{INPUT}/required", REMOVED), ADDITIVE, "query is no longer"),
    ("a new argument is required, and listed", change_contract("tools/fetch/inputSchema", {
        "type": "object", "properties": {"page": STRING}, "required": ["page"]}), BREAKING,
     "argument page was added and is required"),
    ("an argument is required, and no longer listed", change_contract("tools/fetch/inputSchema", {
        "type": "object", "properties": {"id": STRING}, "required": ["id", "format"]}), BREAKING,
     "argument format is now required"),
    ("an optional argument is added", change_contract(f"{ARGS}/page", STRING), ADDITIVE, "argument page was added"),
    ("an argument is removed, others are refused", change_contract(f"{ARGS}/tags", REMOVED), BREAKING,
     "argument tags was removed, and is refused"),
    ("an argument is removed, others are accepted", change_contract(f"{FETCH_ARGS}/format", REMOVED), NOTICE,
     "argument format is no longer listed"),
    ("others are refused now", change_contract("tools/fetch/inputSchema/additionalProperties", False), BREAKING,
     "the input schema refuses fields that are not listed"),
    ("others are accepted now", change_contract(f"{INPUT}/additionalProperties", REMOVED), ADDITIVE,
     "the input schema accepts fields that are not listed"),
    ("the default changes", change_argument("limit", default=20), NOTICE, "argument limit has another default"),
    ("the description of an argument changes", change_argument("query", description="Words."), NOTICE,
     "argument query has another description"),
    # types
    ("a type is replaced", change_argument("query", type="integer"), BREAKING, "query no longer accepts string"),
    ("a type is narrowed", change_argument("score", type="integer"), BREAKING, "score only accepts whole numbers"),
    ("a type is widened", change_argument("limit", type="number"), ADDITIVE, "limit no longer only accepts whole numb"),
    ("a type is added", change_argument("query", type=["string", "integer"]), ADDITIVE, "query also accepts integer"),
    ("null is accepted, by OpenAPI", change_argument("query", nullable=True), ADDITIVE, "query also accepts null"),
    ("null is accepted, by a list", change_argument("query", type=["string", "null"]), ADDITIVE, "also accepts null"),
    ("null is refused", change_argument("author", anyOf=[STRING]), BREAKING, "author no longer accepts null"),
    ("anyOf as a list of types", change_argument("author", anyOf=REMOVED, type=["null", "string"]), NONE, ""),
    ("anyOf in another order", change_argument("author", anyOf=[{"type": "null"}, STRING]), NONE, ""),
    ("any value becomes an object", change_argument("any", type="object"), BREAKING, "any no longer accepts array or"),
    ("the type is no longer stated", change_argument("code", type=REMOVED), ADDITIVE, "code also accepts array or"),
    ("true instead of the empty schema", change_contract(f"{ARGS}/any", True), NONE, ""),
    ("nothing is valid", change_contract(f"{ARGS}/any", False), BREAKING, "any no longer accepts any value"),
    # values
    ("a value is removed", change_argument("order", enum=["date"]), BREAKING, 'order no longer accepts "rank"'),
    ("a value is added", change_argument("order", enum=["date", "rank", "size"]), ADDITIVE, 'also accepts "size"'),
    ("values in another order", change_argument("order", enum=["rank", "date"]), NONE, ""),
    ("values are no longer listed", change_argument("order", enum=REMOVED), ADDITIVE, "no longer only accepts listed"),
    ("values are listed", change_argument("note", enum=["a"]), BREAKING, "note only accepts listed values"),
    ("one constant value", change_argument("order", const="date"), BREAKING, 'order no longer accepts "rank"'),
    ("constants as alternatives", change_argument("order", enum=REMOVED, oneOf=[{"const": "date"}, {"const": "rank"}]),
     NONE, ""),
    # bounds
    ("a minimum is raised", change_argument("limit", minimum=5), BREAKING, "limit has a tighter minimum"),
    ("a minimum is lowered", change_argument("limit", minimum=0), ADDITIVE, "limit has a looser minimum"),
    ("a maximum is lowered", change_argument("limit", maximum=50), BREAKING, "limit has a tighter maximum"),
    ("a maximum is removed", change_argument("limit", maximum=REMOVED), ADDITIVE, "limit has no maximum any more"),
    ("an exclusive bound of whole numbers", change_argument("limit", minimum=REMOVED, exclusiveMinimum=0), NONE, ""),
    ("an exclusive bound becomes inclusive", change_argument("score", exclusiveMinimum=REMOVED, minimum=0), ADDITIVE,
     "score has a looser minimum"),
    ("a bound is exclusive, as in draft 4", change_argument("limit", exclusiveMaximum=True), BREAKING, "tighter max"),
    ("a new upper bound", change_argument("score", maximum=1), BREAKING, "score has a new maximum"),
    ("another divisor", change_argument("limit", multipleOf=3), UNCERTAIN, "limit has another multipleOf"),
    ("a divisor of the divisor", change_argument("limit", multipleOf=1), ADDITIVE, "limit has another multipleOf"),
    ("a multiple of the divisor", change_argument("limit", multipleOf=4), BREAKING, "limit has another multipleOf"),
    ("a longer text is required", change_argument("query", minLength=2), BREAKING, "query has a tighter minLength"),
    ("an empty text is accepted", change_argument("query", minLength=0), ADDITIVE, "query has no minLength any more"),
    ("a longer text is accepted", change_argument("query", maxLength=400), ADDITIVE, "query has a looser maxLength"),
    ("fewer elements are accepted", change_argument("tags", maxItems=5), BREAKING, "tags has a tighter maxItems"),
    ("fewer properties are accepted", change_argument("labels", maxProperties=2), BREAKING, "a tighter maxProperties"),
    ("equal elements are refused", change_argument("tags", uniqueItems=True), BREAKING, "tags refuses equal elements"),
    # patterns and conditions
    ("a pattern is added", change_argument("query", pattern="^a"), BREAKING, "query has a new pattern"),
    ("a pattern changes", change_argument("code", pattern="^[A-Z]*$"), UNCERTAIN, "code has another pattern"),
    ("a pattern is removed", change_argument("code", pattern=REMOVED), ADDITIVE, "code has no pattern any more"),
    ("a format is added", change_argument("query", format="email"), UNCERTAIN, "query has a new format"),
    ("a condition changes", change_argument("note", **{"not": {"const": "x"}}), UNCERTAIN, "note has another not"),
    ("a condition is removed", change_argument("note", **{"not": REMOVED}), ADDITIVE, "note has no not any more"),
    # nested schemas
    ("elements are narrowed", change_argument("tags", items={"type": "string", "maxLength": 5}), BREAKING,
     "argument tags[] has a tighter maxLength"),
    ("an element at a place changes", change_argument("point", prefixItems=[NUMBER, STRING]), BREAKING,
     "argument point[1] no longer accepts number"),
    ("another element at a place", change_argument("point", prefixItems=[NUMBER, NUMBER, NUMBER]), BREAKING,
     "argument point[2] no longer accepts array or"),
    ("a nested argument is required", change_contract(f"{PERIOD}/required", []), ADDITIVE,
     "argument period.since is no longer required"),
    ("a nested type changes, behind a reference", change_contract(f"{PERIOD}/properties/since", NUMBER), BREAKING,
     "argument period.since no longer accepts string"),
    ("a type changes in a cycle of references", change_contract(f"{NODE}/properties/name", NUMBER), BREAKING,
     "argument tree.name no longer accepts string"),
    ("a reference is replaced by its target", change_argument("period", **{
        "$ref": REMOVED, "type": "object", "properties": {"since": STRING}, "required": ["since"]}), NONE, ""),
    ("the values of an object change", change_argument("labels", additionalProperties=NUMBER), BREAKING,
     "argument labels.* no longer accepts string"),
    ("a part of allOf changes", change_argument("price", allOf=[NUMBER, {"minimum": 1}]), BREAKING, "tighter minimum"),
    ("allOf is merged", change_argument("price", allOf=REMOVED, type="number", minimum=0), NONE, ""),
    ("an alternative is removed", change_argument("scope", oneOf=[TEAM_SCOPE]), BREAKING,
     'argument scope.kind no longer accepts "user"'),
    ("an alternative is added", change_argument("scope", oneOf=[TEAM_SCOPE, USER_SCOPE, {"type": "array"}]), ADDITIVE,
     "argument scope also accepts array"),
    # results
    ("a required field is removed", change_contract(f"{OUTPUT}/properties/hits", REMOVED), BREAKING, "hits is no lon"),
    ("a field is no longer required", change_contract(f"{OUTPUT}/required", []), BREAKING,
     "result field hits is no longer required"),
    ("an optional field is removed", change_contract(f"{OUTPUT}/properties/total", REMOVED), NOTICE,
     "result field total is no longer listed"),
    ("a field is added", change_contract(f"{OUTPUT}/properties/page", NUMBER), ADDITIVE, "result field page was added"),
    ("a field is required now", change_contract(f"{OUTPUT}/required", ["hits", "total"]), ADDITIVE, "total is now re"),
    ("a field is widened", change_contract(f"{OUTPUT}/properties/total", NUMBER), BREAKING, "total no longer only acc"),
    ("a field is narrowed", change_contract(f"{OUTPUT}/properties/state/enum", ["done"]), ADDITIVE, "no longer acc"),
    ("a field has another value", change_contract(f"{OUTPUT}/properties/state/enum", ["done", "partial", "late"]),
     BREAKING, 'result field state also accepts "late"'),
    ("other fields are refused", change_contract(f"{OUTPUT}/additionalProperties", False), NOTICE, "refuses fields"),
    ("the output schema is removed", change_contract(OUTPUT, REMOVED), BREAKING, "has no output schema any more"),
    ("an output schema is added", change_contract("tools/fetch/outputSchema", {"type": "object"}), ADDITIVE,
     "tool fetch has a new output schema"),
    # the server
    ("a capability is removed", change_contract("capabilities", ["resources", "tools"]), BREAKING,
     "the capability tools.listChanged was removed"),
    ("a capability is added", change_contract("capabilities", [*SAMPLE_CONTRACT.capabilities, "prompts"]), ADDITIVE,
     "the capability prompts was added"),
    ("the server is renamed", change_contract("server", "Mirror"), NOTICE, "the server is now named Mirror"),
    ("the instructions change", change_contract("instructions", "Fetch first."), NOTICE, "another text of instr"),
    ("an older protocol", change_contract("protocol", "2025-11-25"), BREAKING,
     "the server answers with MCP 2025-11-25 instead of 2026-07-28"),
    ("a newer protocol", change_contract("protocol", "2027-01-01"), ADDITIVE, "a newer version, instead of 2026-07-28"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "changed", "label", "text"), ROWS, ids=[row[0] for row in ROWS])
def test_a_change(sentence: str, changed: McpContract, label: str, text: str) -> None:
    changes = compare_contracts(SAMPLE_CONTRACT, changed)
    assert (changes[0].label if changes else NONE) == label, sentence
    assert text in (changes[0].text if changes else ""), sentence


def test_the_same_contract_has_no_change() -> None:
    assert compare_contracts(SAMPLE_CONTRACT, copy.deepcopy(SAMPLE_CONTRACT)) == []


def test_the_order_of_tools_and_of_members_does_not_count() -> None:
    def reverse(value: Any) -> Any:
        return {k: reverse(v) for k, v in reversed(value.items())} if isinstance(value, dict) else value

    reordered = SAMPLE_CONTRACT._replace(tools=reverse(SAMPLE_CONTRACT.tools))
    assert [*reordered.tools] == ["search", "fetch"]
    assert compare_contracts(SAMPLE_CONTRACT, reordered) == []
    assert reordered.compute_digest() == SAMPLE_CONTRACT.compute_digest()


def test_every_change_has_another_digest() -> None:
    digests = {changed.compute_digest() for _, changed, *_ in ROWS}
    assert len(digests | {SAMPLE_CONTRACT.compute_digest()}) == len(ROWS) + 1


def test_undoing_a_change() -> None:
    """What refuses valid calls, and is certain, accepts more calls if it is undone."""
    for sentence, changed, label, _ in ROWS:
        forwards, backwards = compare_contracts(SAMPLE_CONTRACT, changed), compare_contracts(changed, SAMPLE_CONTRACT)
        labels = {change.label for change in backwards}
        if label == NONE:
            assert labels == set(), sentence
        elif [change.label for change in forwards] == [BREAKING] and "task" not in sentence:
            assert labels <= {ADDITIVE, NOTICE}, sentence
        elif label == UNCERTAIN:
            assert labels & {UNCERTAIN, ADDITIVE}, sentence
