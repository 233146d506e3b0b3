"""Between the nouns and their rows. JSON columns are text; an empty one is NULL."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from watchdog.domain.model import JobProblem, Json, Outcome, ProbeInfo, ReportedTask, Result, Severity
from watchdog.domain.text import map_json_strings, replace_unstorable_characters
from watchdog.store.database import RESULT_COLUMNS

_UNSTORABLE_JSON = re.compile("\\\\u0000|[\ud800-\udfff]")


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
    """`row`: the columns of RESULT_COLUMNS, in their order."""
    values = dict(zip(RESULT_COLUMNS, row, strict=True))
    tasks, preferences = values["tasks"], values["preferences"]
    values["outcome"] = Outcome(values["outcome"])
    values["phases"] = loads(values["phases"]) or {}
    values["measurements"] = loads(values["measurements"]) or {}
    values["tasks"] = None if tasks is None else {name: ReportedTask(*told) for name, told in loads(tasks).items()}
    values["preferences"] = loads(preferences)
    values["jobs"] = (
        None if values["jobs"] is None else {name: JobProblem(*told) for name, told in loads(values["jobs"]).items()}
    )
    values["late"] = bool(values["late"])
    return Result(**values)


def probe_info_to_json(info: ProbeInfo) -> str:
    return dumps({k: v for k, v in asdict(info).items() if k != "database_id"})


def probe_info_from_json(database_id: int, text: str) -> ProbeInfo:
    values: Mapping[str, Any] = loads(text)
    return ProbeInfo(
        **{
            **values,
            "database_id": database_id,
            "tags": tuple(values["tags"]),
            "severity": Severity(values["severity"]),
        }
    )
