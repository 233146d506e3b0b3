"""Classifies the changes of an MCP server's contract: which of them refuse calls that were valid before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from watchdog.domain.mcp_contract.changes import (
    MAX_CONTRACT_CHANGE_TEXT_CHARS,
    ContractChange,
    ContractChangeClass,
    ContractPart,
    sort_contract_changes,
)
from watchdog.domain.mcp_contract.contract import (
    INVALID_SCHEMA_KEY,
    TOOL_DIGEST_KEY,
    McpContract,
    get_digest_of_tool,
)
from watchdog.domain.mcp_contract.schema_alternatives import ComparisonBudget, ComparisonBudgetExceededError
from watchdog.domain.mcp_contract.schema_comparison import SchemaComparison
from watchdog.domain.mcp_contract.schema_differences import (
    TEXT,
    SchemaDifference,
    describe_text_change,
    format_schema_value,
)
from watchdog.domain.mcp_contract.suspicious_text import find_suspicions_in_new_texts
from watchdog.domain.model import Json
from watchdog.domain.text import replace_invisible_characters, truncate_to_single_line, truncate_with_ellipsis

_MAX_NAME_CHARS = 80
_INPUT_SCHEMA_KEY, _OUTPUT_SCHEMA_KEY = "inputSchema", "outputSchema"
_REFUSED_TASK_SUPPORT_CHANGES = (
    ("forbidden", "required"), ("optional", "required"), ("optional", "forbidden"), ("required", "forbidden"),
)  # fmt: skip
"""After these changes of how a tool runs, it refuses calls that it accepted before."""
_BREAKING, _ADDITIVE, _NOTICE = ContractChangeClass


def compare_contracts(
    old: McpContract, new: McpContract, budget: ComparisonBudget | None = None
) -> list[ContractChange]:
    """Every difference, breaking ones first. Another order of tools or members is none. Never raises for what a server
    sends, and takes a bounded time: what cannot be compared counts as breaking, not certain. With another version of
    the protocol, nothing else is compared but new texts that strongly suggest instructions to a model: one server
    offers different things with each."""
    if old.protocol != new.protocol:
        changes = [
            _describe_other_protocol(old.protocol, new.protocol),
            *_find_strong_suspicions_of_new_texts(old, new),
        ]
        return sort_contract_changes(map(_clean_texts, changes))
    budget = budget or ComparisonBudget()
    changes = [*_compare_capabilities(old, new), *_compare_servers(old, new)]
    for name in sorted({*old.tools, *new.tools}):
        changes += _compare_tools(name, old.tools.get(name), new.tools.get(name), budget)
    return sort_contract_changes(_clean_texts(change) for change in changes)


def _clean_texts(change: ContractChange) -> ContractChange:
    text, before, after = (
        truncate_with_ellipsis(replace_invisible_characters(each), MAX_CONTRACT_CHANGE_TEXT_CHARS)
        for each in (change.text, change.before, change.after)
    )
    return change._replace(text=text, before=before, after=after)


def _describe_other_protocol(old: str, new: str) -> ContractChange:
    """A version is a date."""
    change_class, note = (_BREAKING, "") if new < old else (_ADDITIVE, ", a newer version,")
    text = f"the server answers with MCP {new}{note} instead of {old}"
    return ContractChange(change_class, ContractPart.PROTOCOL, text, old, new)


def _find_strong_suspicions_of_new_texts(old: McpContract, new: McpContract) -> Iterator[ContractChange]:
    suspicions = [*_describe_suspicions_of_instructions(old, new)]
    for name in sorted(new.tools):
        before = old.tools.get(name, {})
        if TOOL_DIGEST_KEY not in before:
            with suppress(RecursionError):
                new_texts = sorted({*_iter_texts(new.tools[name])} - {*_iter_texts(before)})
                suspicions += _describe_suspicions(ContractPart.TOOLS, f"tool {_format_name(name)}", new_texts, [])
    yield from (change for change in suspicions if change.is_suspicion_strong)


def _compare_capabilities(old: McpContract, new: McpContract) -> Iterator[ContractChange]:
    for name in old.capabilities:
        if name not in new.capabilities:
            yield ContractChange(_BREAKING, ContractPart.CAPABILITIES, f"the capability {name} was removed")
    for name in new.capabilities:
        if name not in old.capabilities:
            yield ContractChange(_ADDITIVE, ContractPart.CAPABILITIES, f"the capability {name} was added")


def _compare_servers(old: McpContract, new: McpContract) -> Iterator[ContractChange]:
    if old.server != new.server:
        text = (
            f"the server is now named {_format_name(new.server)}" if new.server else "the server has no name any more"
        )
        yield ContractChange(_NOTICE, ContractPart.SERVER, text, old.server, new.server)
    if old.instructions != new.instructions:
        part = ContractPart.INSTRUCTIONS
        difference = describe_text_change("text of instructions", old.instructions, new.instructions)
        yield ContractChange(_NOTICE, part, f"the server {difference.text}", difference.before, difference.after)
        yield from _describe_suspicions_of_instructions(old, new)


def _describe_suspicions_of_instructions(old: McpContract, new: McpContract) -> Iterator[ContractChange]:
    if old.instructions != new.instructions:
        old_texts = [old.instructions] if old.instructions else []
        subject = "the server's instructions"
        yield from _describe_suspicions(ContractPart.INSTRUCTIONS, subject, [new.instructions], old_texts)


def _compare_tools(name: str, old: Json, new: Json, budget: ComparisonBudget) -> Iterator[ContractChange]:
    """None: there is no such tool."""
    tool = f"tool {_format_name(name)}"
    if new is None:
        yield ContractChange(_BREAKING, ContractPart.TOOLS, f"{tool} was removed")
        return
    if old is None:
        yield ContractChange(_ADDITIVE, ContractPart.TOOLS, f"{tool} was added")
        yield from _describe_suspicions(ContractPart.TOOLS, tool, sorted({*_iter_texts(new)}), [])
        return
    if TOOL_DIGEST_KEY in old or TOOL_DIGEST_KEY in new:
        if get_digest_of_tool(old) != get_digest_of_tool(new):
            yield _describe_incomparable_tool(tool)
        return
    try:
        changes = [*_compare_definitions(tool, old, new, budget)]
        old_texts = {*_iter_texts(old)}
        new_texts = sorted({*_iter_texts(new)} - old_texts)
    except (ComparisonBudgetExceededError, RecursionError, ValueError, OverflowError):
        yield _describe_incomparable_tool(tool)
        return
    yield from changes
    yield from _describe_suspicions(ContractPart.TOOLS, tool, new_texts, sorted(old_texts))


def _describe_incomparable_tool(tool: str) -> ContractChange:
    text = f"{tool} has changed, and is too large to be compared"
    return ContractChange(_BREAKING, ContractPart.TOOLS, text, is_certain=False)


def _compare_definitions(tool: str, old: Json, new: Json, budget: ComparisonBudget) -> Iterator[ContractChange]:
    for key in ("title", "description"):
        if (before := old.get(key, "")) != (after := new.get(key, "")):
            yield _convert_difference(tool, describe_text_change(key, before, after))
    yield from _compare_annotations(tool, old.get("annotations", {}), new.get("annotations", {}))
    yield from _compare_task_support(tool, old.get("taskSupport", "forbidden"), new.get("taskSupport", "forbidden"))
    if INVALID_SCHEMA_KEY in old or INVALID_SCHEMA_KEY in new:
        return  # another rule reports that
    before, after = old.get(_INPUT_SCHEMA_KEY), new.get(_INPUT_SCHEMA_KEY)
    for difference in _compare_schemas(before, after, budget):
        yield _convert_difference(tool, difference, whole="input schema", part="argument")
    before, after = old.get(_OUTPUT_SCHEMA_KEY), new.get(_OUTPUT_SCHEMA_KEY)
    if before is None and after is not None:
        yield ContractChange(_ADDITIVE, ContractPart.TOOLS, f"{tool} has a new output schema")
    elif before is not None and after is None:
        change_class = _BREAKING if before.get("required") else _NOTICE
        yield ContractChange(change_class, ContractPart.TOOLS, f"{tool} has no output schema any more")
    else:
        for difference in _compare_schemas(before, after, budget):
            yield _convert_difference(tool, difference, whole="output schema", part="result field", is_result=True)


def _compare_schemas(old: Json, new: Json, budget: ComparisonBudget) -> list[SchemaDifference]:
    if old == new:
        return []
    differences = SchemaComparison(old, new, budget).compare_roots()
    if any(difference.effect == TEXT for difference in differences):
        return differences
    if {*_iter_annotation_texts(old)} != {*_iter_annotation_texts(new)}:  # such as those of alternatives
        differences.append(SchemaDifference(TEXT, "", "has other titles or descriptions"))
    return differences


def _convert_difference(
    tool: str, difference: SchemaDifference, *, whole: str = "", part: str = "", is_result: bool = False
) -> ContractChange:
    """`whole`: the name of the schema; empty: it is about the tool itself. `part`: what a path within it is."""
    subject = f": {part} {_format_name(difference.path)}" if difference.path else f": the {whole}" if whole else ""
    effect = difference.effect
    return ContractChange(
        effect.of_result if is_result else effect.of_arguments,
        ContractPart.TOOLS,
        f"{tool}{subject} {difference.text}",
        difference.before,
        difference.after,
        is_certain=effect.is_certain,
    )


def _compare_annotations(tool: str, old: Json, new: Json) -> Iterator[ContractChange]:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            before, after = ("" if each.get(name) is None else format_schema_value(each[name]) for each in (old, new))
            text = f"{tool} has another annotation {_format_name(name)}"
            yield ContractChange(_NOTICE, ContractPart.TOOLS, text, before, after)


def _compare_task_support(tool: str, old: str, new: str) -> Iterator[ContractChange]:
    if old != new:
        change_class = _BREAKING if (old, new) in _REFUSED_TASK_SUPPORT_CHANGES else _ADDITIVE
        yield ContractChange(change_class, ContractPart.TOOLS, f"{tool}: its task support is {new}", old, new)


def _describe_suspicions(
    part: ContractPart, subject: str, new_texts: Iterable[str], old_texts: list[str]
) -> Iterator[ContractChange]:
    for suspicion in dict.fromkeys(find_suspicions_in_new_texts(new_texts, old_texts)):
        yield ContractChange(
            _NOTICE,
            part,
            f"a new text of {subject} is suspicious: {suspicion.description}",
            after=suspicion.excerpt,
            suspicion=suspicion.description,
            is_suspicion_strong=suspicion.is_strong,
        )


def _iter_texts(value: Json) -> Iterator[str]:
    """Every text of a definition, names included: a model reads all of them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _iter_texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _iter_texts(inner)


def _iter_annotation_texts(schema: Json) -> Iterator[str]:
    if isinstance(schema, dict):
        for name, inner in schema.items():
            if name in ("title", "description") and isinstance(inner, str):
                yield inner
            else:
                yield from _iter_annotation_texts(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _iter_annotation_texts(inner)


def _format_name(name: str) -> str:
    return truncate_with_ellipsis(truncate_to_single_line(name, _MAX_NAME_CHARS), _MAX_NAME_CHARS)
