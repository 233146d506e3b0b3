"""Between the nouns and their rows. JSON columns are text; an empty one is NULL."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from watchdog.model import Json, Outcome, ProbeInfo, Result, Severity, Task, Trouble
from watchdog.store.database import RESULT_COLUMNS

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_UNSTORABLE_JSON = re.compile("\\\\u0000|[\ud800-\udfff]")


def clean(text: str) -> str:
    """NUL, which PostgreSQL cannot hold, and lone surrogates, which UTF-8 cannot, become `�`: one of them would keep
    its whole batch from being stored, again and again."""
    return _UNSTORABLE.sub("�", text)


def dumps(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if _UNSTORABLE_JSON.search(text):
        text = json.dumps(_cleaned(value), ensure_ascii=False, separators=(",", ":"))
    return text


def _cleaned(value: Json) -> Json:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {_cleaned(key): _cleaned(inner) for key, inner in value.items()}
    return [_cleaned(inner) for inner in value] if isinstance(value, list | tuple) else value


def loads(text: str | None) -> Json:
    return None if text is None else json.loads(text)


def result_row(result: Result, *, late: bool, recorded_at: int) -> dict[str, Any]:
    row: dict[str, Any] = result._asdict()
    row["message"] = clean(result.message)
    row["phases"] = dumps({k: round(v, 1) for k, v in result.phases.items()}) if result.phases else None
    row["measurements"] = dumps(dict(result.measurements)) if result.measurements else None
    row["tasks"] = None if result.tasks is None else dumps(result.tasks)
    row["preferences"] = None if result.preferences is None else dumps(dict(result.preferences))
    row["jobs"] = None if result.jobs is None else dumps(dict(result.jobs))
    row["late"], row["recorded_at"] = late, recorded_at
    return row


def result_of(row: Sequence[Any]) -> Result:
    """`row`: the columns of RESULT_COLUMNS, in their order."""
    values = dict(zip(RESULT_COLUMNS, row, strict=True))
    tasks, preferences = values["tasks"], values["preferences"]
    values["outcome"] = Outcome(values["outcome"])
    values["phases"] = loads(values["phases"]) or {}
    values["measurements"] = loads(values["measurements"]) or {}
    values["tasks"] = None if tasks is None else {name: Task(*told) for name, told in loads(tasks).items()}
    values["preferences"] = loads(preferences)
    values["jobs"] = (
        None if values["jobs"] is None else {name: Trouble(*told) for name, told in loads(values["jobs"]).items()}
    )
    values["late"] = bool(values["late"])
    return Result(**values)


def info_text(info: ProbeInfo) -> str:
    return dumps({k: v for k, v in asdict(info).items() if k != "id"})


def info_of(id: int, text: str) -> ProbeInfo:
    values: Mapping[str, Any] = loads(text)
    return ProbeInfo(**{**values, "id": id, "tags": tuple(values["tags"]), "severity": Severity(values["severity"])})
