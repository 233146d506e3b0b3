"""What applications say of their jobs: in status words of their own, or as expressions read it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from pydantic import AfterValidator

from watchdog.expressions import Expression, ExpressionError, compile_expression
from watchdog.model import Json
from watchdog.queues.base import Stage
from watchdog.wire.redact import cap

LONGEST = 500
"""Characters of what may be a job's id."""
_WORDS: Mapping[Stage, tuple[str, ...]] = {
    Stage.QUEUED: ("waiting", "queued", "pending"),
    Stage.RUNNING: ("active", "running", "processing", "in_progress"),
    Stage.DONE: ("completed", "done", "succeeded", "success", "finished"),
    Stage.FAILED: ("failed", "error", "cancelled", "canceled"),
}
STAGES: Mapping[str, Stage] = {word: stage for stage, words in _WORDS.items() for word in words}
_REASONS = ("error", "failedReason", "failed_reason", "message", "reason")
"""Where applications put why a job failed."""


def expression(variables: Mapping[str, str], *, judges: bool = True) -> AfterValidator:
    """For a field that holds an expression in CEL: `Annotated[str, expression({"body": "dyn"})]`."""

    def check(text: str) -> str:
        compile_expression(text, variables, judges=judges)
        return text

    return AfterValidator(check)


def compiled(
    variables: Mapping[str, str], failed: str, done: str, started: str
) -> tuple[tuple[Stage, Expression], ...]:
    """Those that are given, in the order in which they are asked."""
    given = ((Stage.FAILED, failed), (Stage.DONE, done), (Stage.RUNNING, started))
    return tuple((stage, compile_expression(text, variables)) for stage, text in given if text)


def judged(expressions: Iterable[tuple[Stage, Expression]], values: Mapping[str, Json]) -> tuple[Stage | None, str]:
    """The stage of the first expression that holds; None, with why one could not be computed, when none does."""
    trouble = ""
    for stage, one in expressions:
        try:
            if one.evaluate(values):
                return stage, ""
        except ExpressionError as error:
            if stage is not Stage.RUNNING:  # what says that it runs may well be absent before
                trouble = f"{one.text} cannot be computed: {error}"
    return None, trouble


def status(said: Json) -> str:
    """The word for how a job is."""
    if isinstance(said, dict):
        said = next((said[name] for name in ("status", "state") if isinstance(said.get(name), str)), "")
    return said.strip().lower().replace("-", "_").replace(" ", "_") if isinstance(said, str) else ""


def identifier(said: Json) -> str:
    """A job's id as text; empty when it is none."""
    if isinstance(said, bool) or not isinstance(said, str | int):
        return ""
    text = str(said).strip()
    return text if len(text) <= LONGEST else ""


def why(said: Json) -> str:
    """Why something failed, in the words of what says so, as short as it can be told."""
    text = _reason(said) or ("" if said in (None, "", {}, []) else json.dumps(said, ensure_ascii=False))
    return cap(" ".join(text.split()), 200)


def _reason(said: Json) -> str:
    while isinstance(said, dict):
        said = next((said[name] for name in _REASONS if isinstance(said.get(name), str | dict) and said[name]), "")
    return said if isinstance(said, str) else ""


def progress_of(said: Json) -> tuple[float, float | None] | None:
    """How far a job says it is, and of how much; None: it does not say."""
    told = said.get("progress") if isinstance(said, dict) else None
    done, total = (told.get("progress"), told.get("total")) if isinstance(told, dict) else (told, None)
    return None if (far := _number(done)) is None else (far, _number(total))


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def filled(template: Json, **values: str) -> Json:
    """The same with every `{name}` in its texts replaced."""
    if isinstance(template, str):
        names = "|".join(map(re.escape, values))
        return re.sub(
            f"{{({names})}}", lambda found: values[found[1]], template
        )  # at once: a value may look like a name
    if isinstance(template, dict):
        return {key: filled(below, **values) for key, below in template.items()}
    if isinstance(template, list | tuple):
        return [filled(below, **values) for below in template]
    return template
