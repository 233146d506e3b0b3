"""Conversion between domain objects and rows. JSON columns are text; an empty value is NULL."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from watchdog.domain.model import JobProblem, Json, Outcome, ProbeInfo, ReportedTask, Result, Severity
from watchdog.domain.text import map_json_strings, replace_unstorable_characters
from watchdog.store.tables import RESULT_COLUMNS

_UNSTORABLE_JSON = re.compile("\\\\u0000|[\ud800-\udfff]")
_RESULT_FIELDS = [column.name for column in RESULT_COLUMNS]


def dumps(value: Json) -> str:
    text = _encode(value)
    return _encode(map_json_strings(value, replace_unstorable_characters)) if _UNSTORABLE_JSON.search(text) else text


def _encode(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def loads(text: str | None) -> Json:
    return None if text is None else json.loads(text)


def result_to_row(result: Result, *, late: bool, recorded_at: int) -> dict[str, Any]:
    row: dict[str, Any] = result._asdict()
    row["message"] = replace_unstorable_characters(result.message)
    row["phases"] = dumps({k: round(v, 1) for k, v in result.phases.items()}) if result.phases else None
    row["measurements"] = dumps(dict(result.measurements)) if result.measurements else None
    row["tasks"] = None if result.tasks is None else dumps(result.tasks)
    row["preferences"] = None if result.preferences is None else dumps(dict(result.preferences))
    row["jobs"] = None if result.jobs is None else dumps(dict(result.jobs))
    row["late"], row["recorded_at"] = late, recorded_at
    return row


def result_from_row(row: Sequence[Any]) -> Result:
    """`row`: the values of RESULT_COLUMNS."""
    values = dict(zip(_RESULT_FIELDS, row, strict=True))
    tasks, jobs = loads(values["tasks"]), loads(values["jobs"])
    values["outcome"] = Outcome(values["outcome"])
    values["phases"] = loads(values["phases"]) or {}
    values["measurements"] = loads(values["measurements"]) or {}
    values["tasks"] = None if tasks is None else {name: ReportedTask(*fields) for name, fields in tasks.items()}
    values["preferences"] = loads(values["preferences"])
    values["jobs"] = None if jobs is None else {name: JobProblem(*fields) for name, fields in jobs.items()}
    values["late"] = bool(values["late"])
    return Result(**values)


def probe_info_to_json(info: ProbeInfo) -> str:
    return dumps({name: value for name, value in asdict(info).items() if name != "database_id"})


def probe_info_from_json(database_id: int, text: str) -> ProbeInfo:
    values: Mapping[str, Any] = loads(text)
    tags, severity = tuple(values["tags"]), Severity(values["severity"])
    return ProbeInfo(**{**values, "database_id": database_id, "tags": tags, "severity": severity})
