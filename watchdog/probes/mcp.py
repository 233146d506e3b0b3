"""Visits an MCP server as a client would: negotiates, lists its tools, calls one, reads what it says of its tasks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from watchdog.fields import Duration, FieldsError, Line, Model, Where
from watchdog.model import Evidence, Json, Observation, Outcome, Scalar
from watchdog.probes.base import Attempt, Probe
from watchdog.probes.tasks import Listing, clean, lack, read_tasks
from watchdog.probes.verdict import Values, faulted, told
from watchdog.wire.faults import Fault
from watchdog.wire.targets import McpTarget
from watchdog.words import HOUR, count

if TYPE_CHECKING:
    from watchdog.wire.mcp import Seen, Tool

HEALTH_CHECK = "health_check"
"""The tool that is called without being told to."""
SHOWN = 8_000
"""Characters of an answer that go into the evidence: masked first, then cut."""
JUDGED = 256 * 1024
"""Characters of an answer that expressions may look at."""
SETTLED = 24 * HOUR
"""For how long a server's protocol era is taken for granted."""
ERA, FIRST_SEEN = "mcp_era", "first_seen"
"""What is remembered: {era, target, at}, and when tasks that never ran were first seen, by digest of name."""


class Call(Model):
    """A tool to call."""

    shorthand: ClassVar[str] = "tool"

    tool: Line
    """Its name."""
    arguments: dict[str, Json] = Field(default_factory=dict)
    """What it is called with."""


class Mcp(McpTarget):
    """A server: one of `url`, `sse` and `command`. The URL alone will do."""

    shorthand: ClassVar[str] = "url"

    tools: tuple[Line, ...] = ()
    """Tools that must be listed."""
    call: Literal["off"] | Call | None = None
    """The tool to call; default: `health_check` when it is listed and needs no argument."""
    resource: str = ""
    """The URI of a resource to read."""
    tasks: dict[Line, Duration] = Field(default_factory=dict)
    """How long ago the last run of each scheduled task may lie: by name, `*` for every other."""

    def _wrong(self) -> list[tuple[Where, str]]:
        wrong = super()._wrong()
        if self.call == "off" and self.tasks:
            wrong.append((("tasks",), "tasks are read from a tool's answer, and `call: off` calls none"))
        return wrong

    @property
    def required(self) -> tuple[str, ...]:
        """Tools without which the server is not right."""
        if isinstance(self.call, Call):
            return (*self.tools, self.call.tool)
        return (*self.tools, HEALTH_CHECK) if self.tasks else self.tools

    def choose(self, tools: Sequence[Tool]) -> tuple[str, Mapping[str, Json]] | None:
        """The tool to call, given what is listed."""
        if self.call is None:
            callable_ = any(tool.name == HEALTH_CHECK and not tool.needs_arguments for tool in tools)
            return (HEALTH_CHECK, {}) if callable_ else None
        if self.call == "off" or all(tool.name != self.call.tool for tool in tools):
            return None
        return self.call.tool, self.call.arguments


class McpProbe(Probe):
    """Visits an MCP server. Without `expect`, it must answer, list the required tools and report no error."""

    kind: ClassVar[str] = "mcp"
    finds: ClassVar[tuple[str, ...]] = ("task",)
    variables: ClassVar[Mapping[str, str]] = {
        "result": "dyn",
        "is_error": "bool",
        "tools": "list(string)",
        "resource": "dyn",
        "server": "map(string, string)",
        "protocol": "string",
        "elapsed_ms": "int",
    }

    mcp: Mcp

    @model_validator(mode="after")
    def _expressions_have_values(self) -> Self:
        absent = {}
        if self.mcp.call == "off":
            absent = dict.fromkeys(("result", "is_error"), "`call: off` calls no tool")
        if not self.mcp.resource:
            absent["resource"] = "no resource is read"
        wrong = [
            ((field, i), f"{name} has no value: {absent[name]}")
            for field, expressions in (("expect", self.expectations), ("prefer", self.preferences))
            for i, expression in enumerate(expressions)
            for name in sorted(expression.names & absent.keys())
        ]
        if wrong:
            raise FieldsError(wrong)
        return self

    @property
    def target(self) -> str:
        return self.mcp.target

    @property
    def host(self) -> str:
        return self.mcp.host

    @property
    def task_limits(self) -> Mapping[str, int]:
        return self.mcp.tasks

    def prepare(self) -> None:
        import_module("watchdog.wire.mcp")

    async def observe(self, attempt: Attempt) -> Observation:
        from watchdog.wire.mcp import Agenda, Seen, Visit

        pinned = self._pinned(attempt)
        seen = Seen()
        agenda = Agenda(pinned, self.mcp.choose, self.mcp.resource)
        visit = Visit(attempt.wire, self.mcp.goal(self.egress), agenda, attempt.trace, attempt.timeout, attempt.started)
        try:
            await visit.make(seen)
        except Fault as fault:
            observation = faulted(fault, attempt.trace)
            doubtful = pinned and not fault.retryable and not fault.ours
            reached = "address" in seen.facts or (self.mcp.command and not fault.ours)
            return replace(
                observation,
                duration=observation.duration if reached else None,
                measurements=_measured(seen),
                evidence=replace(observation.evidence, facts=_facts(seen) | dict(observation.evidence.facts)),
                remember={ERA: None} if doubtful else {},
            )
        found = {"era": seen.era, "target": self.target, "at": attempt.started}
        return self._judged(seen, attempt, {} if pinned else {ERA: found})

    def _pinned(self, attempt: Attempt) -> str:
        """The era that the server is known to speak; empty when it is to be found out."""
        known = attempt.memory.get(ERA) or {}
        fresh = known.get("target") == self.target and 0 <= attempt.started - known["at"] < SETTLED
        return known["era"] if fresh else ""

    def _judged(self, seen: Seen, attempt: Attempt, remember: dict[str, Json]) -> Observation:
        known = attempt.memory.get(FIRST_SEEN) or {}
        answered = attempt.started + round(seen.elapsed or 0)
        listing = read_tasks(seen.result, answered, known) if seen.called else None
        if listing is not None and listing.first_seen != known:
            remember[FIRST_SEEN] = listing.first_seen or None
        values = self._values(seen)
        reason, message = self._fault(seen, listing, values)
        held: dict[str, Json] = {}
        for expression in self.expectations:
            why, what = values.judge(expression)
            held[expression.text] = told(expression, what)
            reason, message = (reason, message) if reason else (why, what)
        return Observation(
            Outcome.FAIL if reason else Outcome.PASS,
            reason,
            message,
            duration=seen.elapsed,
            phases=attempt.trace.phases,
            measurements=_measured(seen) | _counted(listing),
            tasks=listing.tasks if listing and (listing.tasks or not listing.problems) else None,
            preferences=values.preferences(self.preferences) if not reason else None,
            evidence=Evidence(_facts(seen) | _told(listing) | ({"expect": held} if held else {}), _excerpt(seen)),
            remember=remember,
        )

    def _fault(self, seen: Seen, listing: Listing | None, values: Values) -> tuple[str, str]:
        """Reason and message of what is wrong before any expectation; empty when nothing is."""
        names = {tool.name for tool in seen.tools}
        missing = [name for name in dict.fromkeys(self.mcp.required) if name not in names]
        if missing:
            what = f"tool {missing[0]} is" if len(missing) == 1 else f"tools {', '.join(missing)} are"
            return "mcp.tool_missing", f"{what} missing: {count(len(names), 'tool')} listed"
        if seen.is_error:
            return "mcp.tool_error", f"{seen.called} reports an error: {_words(seen, listing)}"
        if self.mcp.tasks and listing is None:
            if not seen.called:
                return "task.list_missing", f"no tasks are known: {values.unknown['result']}"
            return "task.list_missing", f"{seen.called} reports no tasks: {lack(seen.result)}"
        if self.mcp.tasks and listing and listing.problems:
            more = f", and {len(listing.problems) - 1} more" if len(listing.problems) > 1 else ""
            return "task.list_invalid", f"{seen.called} reports tasks that cannot be read: {listing.problems[0]}{more}"
        return "", ""

    def _values(self, seen: Seen) -> Values:
        known = {
            "result": seen.result,
            "is_error": seen.is_error,
            "tools": [tool.name for tool in seen.tools],
            "resource": seen.resource,
            "server": {"name": seen.server, "version": seen.version},
            "protocol": seen.protocol,
            "elapsed_ms": round(seen.elapsed or 0),
        }
        unknown = {
            name: f"the answer is longer than {JUDGED // 1024} KiB"
            for name in ("result", "resource")
            if len(json.dumps(known[name])) > JUDGED
        }
        if not seen.called:
            wanted = self.mcp.call.tool if isinstance(self.mcp.call, Call) else HEALTH_CHECK
            listed = any(tool.name == wanted for tool in seen.tools)
            unknown |= dict.fromkeys(
                ("result", "is_error"),
                f"no tool was called: {wanted} {'needs arguments' if listed else 'is not listed'}",
            )
        return Values(known, unknown)


def _words(seen: Seen, listing: Listing | None) -> str:
    """What the server says about its error, as short as it can be told."""
    said = seen.result
    if isinstance(said, dict):
        said = next((said[k] for k in ("error", "message", "reason") if isinstance(said.get(k), str)), None)
    if isinstance(said, str) and (text := clean(said, 200)):
        return text
    failed = [name for name, task in (listing.tasks if listing else {}).items() if not task.ok]
    if failed:
        return f"{', '.join(failed[:5])} not ok"
    return clean(seen.text, 200) or "it does not say which"


def _listed_twice(seen: Seen) -> dict[str, int]:
    """Name of a tool -> how often too many it is listed."""
    return {name: n - 1 for name, n in Counter(tool.name for tool in seen.tools).items() if n > 1}


def _measured(seen: Seen) -> dict[str, Scalar]:
    measured: dict[str, Scalar] = {"tools": len(seen.tools)} if seen.pages else {}
    if repeated := _listed_twice(seen):
        measured["duplicate_tools"] = sum(repeated.values())
    return measured | ({"protocol": seen.protocol} if seen.protocol else {})


def _counted(listing: Listing | None) -> dict[str, Scalar]:
    if listing is None:
        return {}
    return {"tasks": len(listing.tasks), "tasks_failed": sum(not task.ok for task in listing.tasks.values())}


def _facts(seen: Seen) -> dict[str, Json]:
    found = {
        "server": f"{seen.server} {seen.version}".strip(),
        "protocol": seen.protocol,
        "tools": [tool.name for tool in seen.tools],
        "tools_listed_twice": [*_listed_twice(seen)],
        "called": seen.called,
    }
    return {name: value for name, value in found.items() if value} | seen.facts


def _told(listing: Listing | None) -> dict[str, Json]:
    if listing is None:
        return {}
    return {"tasks": dict(listing.shown)} | ({"unreadable": list(listing.problems[:20])} if listing.problems else {})


def _excerpt(seen: Seen) -> str:
    return (seen.text or ("" if seen.result is None else json.dumps(seen.result)))[:SHOWN]
