"""What applications say of their jobs: in status words of their own, or as expressions read it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from pydantic import AfterValidator

from watchdog.domain.model import Json
from watchdog.domain.observations import JobStage
from watchdog.domain.text import to_single_line
from watchdog.expressions import Expression, ExpressionError, compile_expression

MAX_JOB_ID_CHARS = 500
"""Characters of what may be a job's id."""
_STATUS_WORDS: Mapping[JobStage, tuple[str, ...]] = {
    JobStage.QUEUED: ("waiting", "queued", "pending"),
    JobStage.RUNNING: ("active", "running", "processing", "in_progress"),
    JobStage.DONE: ("completed", "done", "succeeded", "success", "finished"),
    JobStage.FAILED: ("failed", "error", "cancelled", "canceled"),
}
STAGE_BY_STATUS_WORD: Mapping[str, JobStage] = {word: stage for stage, words in _STATUS_WORDS.items() for word in words}
_ERROR_FIELDS = ("error", "failedReason", "failed_reason", "message", "reason")
"""Where applications put why a job failed."""


def expression_validator(variables: Mapping[str, str], *, must_be_bool: bool = True) -> AfterValidator:
    """For a field that holds an expression in CEL: `Annotated[str, expression({"body": "dyn"})]`."""

    def check(text: str) -> str:
        compile_expression(text, variables, must_be_bool=must_be_bool)
        return text

    return AfterValidator(check)


def compile_stage_expressions(
    variables: Mapping[str, str], failed: str, done: str, started: str
) -> tuple[tuple[JobStage, Expression], ...]:
    """Those that are given, in the order in which they are asked."""
    given = ((JobStage.FAILED, failed), (JobStage.DONE, done), (JobStage.RUNNING, started))
    return tuple((stage, compile_expression(text, variables)) for stage, text in given if text)


def evaluate_stage(
    stage_expressions: Iterable[tuple[JobStage, Expression]], values: Mapping[str, Json]
) -> tuple[JobStage | None, str]:
    """The stage of the first expression that holds; None, with why one could not be computed, when none does."""
    trouble = ""
    for stage, one in stage_expressions:
        try:
            if one.evaluate_bool(values):
                return stage, ""
        except ExpressionError as error:
            if stage is not JobStage.RUNNING:  # what says that it runs may well be absent before
                trouble = f"{one.text} cannot be computed: {error}"
    return None, trouble


def normalize_status(value: Json) -> str:
    """The word for how a job is."""
    if isinstance(value, dict):
        value = next((value[name] for name in ("status", "state") if isinstance(value.get(name), str)), "")
    return value.strip().lower().replace("-", "_").replace(" ", "_") if isinstance(value, str) else ""


def parse_job_id(value: Json) -> str:
    """A job's id as text; empty when it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    text = str(value).strip()
    return text if len(text) <= MAX_JOB_ID_CHARS else ""


def error_message(value: Json) -> str:
    """Why something failed, in the words of what says so, as short as it can be told."""
    text = _find_error_text(value) or ("" if value in (None, "", {}, []) else json.dumps(value, ensure_ascii=False))
    return to_single_line(text)


def _find_error_text(value: Json) -> str:
    while isinstance(value, dict):
        value = next(
            (value[name] for name in _ERROR_FIELDS if isinstance(value.get(name), str | dict) and value[name]), ""
        )
    return value if isinstance(value, str) else ""


def parse_progress(value: Json) -> tuple[float, float | None] | None:
    """How far a job says it is, and of how much; None: it does not say."""
    told = value.get("progress") if isinstance(value, dict) else None
    done, total = (told.get("progress"), told.get("total")) if isinstance(told, dict) else (told, None)
    return None if (far := _as_float(done)) is None else (far, _as_float(total))


def _as_float(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def substitute_placeholders(template: Json, **values: str) -> Json:
    """The same with every `{name}` in its texts replaced."""
    if isinstance(template, str):
        names = "|".join(map(re.escape, values))
        return re.sub(
            f"{{({names})}}", lambda found: values[found[1]], template
        )  # at once: a value may look like a name
    if isinstance(template, dict):
        return {key: substitute_placeholders(below, **values) for key, below in template.items()}
    if isinstance(template, list | tuple):
        return [substitute_placeholders(below, **values) for below in template]
    return template
