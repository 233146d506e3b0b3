"""Reads the `tasks` list in which an MCP server reports its scheduled work.

An entry: {name, ok, last_run_at (ISO 8601, or epoch seconds or milliseconds) or staleness_ms, last_run_status,
last_run_error}, and whatever else the server adds. What it means for anybody is not decided here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from watchdog.fields import duration_text
from watchdog.model import Json, Task

MOST = 1_000
"""Tasks of one server that are read."""
SHOWN = 50
"""Entries kept as evidence, the bad ones first."""
NAME_LENGTH = 120
TEXT_LENGTH = 300

_BAD = re.compile(
    "abandoned|abort|aborted|cancelled|canceled|crashed|dead|error|errored|expired|fail|failed|failing|failure|fatal|"
    "killed|lost|missed|overdue|rejected|stalled|stuck|terminated|timed_out|timeout|unhealthy"
)
_GOOD = re.compile(
    "complete|completed|disabled|done|finished|healthy|idle|in_progress|never|never_run|new|none|ok|pass|passed|paused|"
    "pending|queued|ready|running|scheduled|skipped|started|succeeded|success|successful|unknown|waiting"
)
_SECONDS_END = 10**11
"""An epoch number below this counts seconds (until the year 5138), else milliseconds (since 1973)."""
_SKEW = 5 * 60_000
"""How far two honest clocks may be apart."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a `tasks` list says."""

    tasks: Mapping[str, Task]
    problems: tuple[str, ...] = ()
    """What could not become a task, in words. An unreadable entry that has a name is a task that is not ok instead."""
    first_seen: Mapping[str, int] = field(default_factory=dict)
    """Of tasks that have never run: digest of the name -> when it was first seen, ms since the epoch."""
    shown: Mapping[str, Json] = field(default_factory=dict)
    """Name -> the entry as the server wrote it, for evidence."""


class _UnreadableError(ValueError):
    pass


def read_tasks(reply: Json, now: int, first_seen: Mapping[str, int]) -> Listing | None:
    """The listing in a tool's reply; None when the reply has no `tasks`. Never raises, whatever the reply is."""
    if not isinstance(reply, dict) or "tasks" not in reply:
        return None
    entries = reply["tasks"]
    if not isinstance(entries, list):
        return Listing({}, (f"tasks is {_kind(entries)}, not a list",))
    tasks: dict[str, Task] = {}
    raw: dict[str, Json] = {}
    seen: dict[str, int] = {}
    problems = []
    for index, entry in enumerate(entries[:MOST]):
        try:
            name = _name(entry)
        except _UnreadableError as error:
            problems.append(f"tasks[{index}] {error}")
            continue
        task = _task(entry, now)
        if name in tasks:
            problems.append(f"tasks[{index}] repeats the name {name!r}")
            if _badness(tasks[name]) >= _badness(task):
                continue
        known = digest(name)
        if task.age is None:
            seen[known] = min(first_seen.get(known, now), now)
            task = task._replace(seen=now - seen[known])
        else:
            seen.pop(known, None)
        tasks[name], raw[name] = task, entry
    if len(entries) > MOST:
        problems.append(f"{len(entries):,} tasks are listed; only the first {MOST:,} are read")
    worst = sorted(tasks, key=lambda name: _badness(tasks[name]), reverse=True)[:SHOWN]
    return Listing(tasks, tuple(problems), seen, {name: raw[name] for name in worst})


def digest(name: str) -> str:
    """What stands for a name in memory: short, however long the names are that a server makes up."""
    return blake2b(name.encode(), digest_size=6).hexdigest()


def lack(reply: Json) -> str:
    """Why a reply is no listing."""
    if isinstance(reply, dict):
        return "its answer has no `tasks`"
    return "its answer is empty" if reply == "" else f"its answer is {_kind(reply)}, not an object with `tasks`"


def _name(entry: Json) -> str:
    if not isinstance(entry, dict):
        raise _UnreadableError(f"is {_kind(entry)}, not an object")
    name = entry.get("name")
    if not isinstance(name, str) or not clean(name):
        raise _UnreadableError("has no name")
    return clean(name, NAME_LENGTH)


def _task(entry: dict[str, Json], now: int) -> Task:
    status, error = clean(entry.get("last_run_status")), clean(entry.get("last_run_error"))
    try:
        return Task(_ok(entry.get("ok"), status, error), _age(entry, now), None, status, error)
    except _UnreadableError as why:
        return Task(False, None, None, status, f"its entry cannot be read: {why}")


def _ok(value: Json, status: str, error: str) -> bool:
    if value is True or value is False:
        return value
    if value is not None:
        raise _UnreadableError(f"ok is {_kind(value)}, not true or false")
    word = status.lower().replace(" ", "_").replace("-", "_")
    if _BAD.fullmatch(word):
        return False
    if word and not _GOOD.fullmatch(word):
        raise _UnreadableError(f"ok is missing, and last_run_status {status!r} says neither good nor bad")
    return bool(word) or not error


def _age(entry: dict[str, Json], now: int) -> int | None:
    """Milliseconds since the last run; None: it never ran. The server's own reckoning wins: it knows no clock skew."""
    staleness = entry.get("staleness_ms")
    if staleness is not None:
        return max(round(_number(staleness, "staleness_ms")), 0)
    at = entry.get("last_run_at")
    if at is None:
        return None
    ran = _instant(at)
    if ran <= 0:  # what a language's empty time looks like: year 1, or epoch zero
        return None
    if ran > now + _SKEW:
        raise _UnreadableError(f"last_run_at lies {duration_text((ran - now) // 1_000 * 1_000)} in the future")
    return max(now - ran, 0)


def _instant(value: Json) -> int:
    if isinstance(value, str):
        try:
            at = datetime.fromisoformat(value.strip())
            return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000)
        except (ValueError, OverflowError):
            raise _UnreadableError(f"last_run_at {clean(value, 60)!r} is no ISO 8601 time") from None
    number = _number(value, "last_run_at")
    return round(number * 1_000 if number < _SECONDS_END else number)


def _number(value: Json, field_name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _UnreadableError(f"{field_name} is {_kind(value)}, not a number")
    if (isinstance(value, float) and not math.isfinite(value)) or abs(value) > 10**15:
        raise _UnreadableError(f"{field_name} is out of range")
    return value


def _badness(task: Task) -> tuple[bool, int]:
    return (not task.ok, -1 if task.age is None else task.age)


def clean(value: Any, length: int = TEXT_LENGTH) -> str:
    """A foreign value as one line of text that every store and channel can hold."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value)
    text = text[: length * 4].encode("utf-8", "replace").decode()
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _kind(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "an object"
