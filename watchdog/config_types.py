"""Value types and the base that every configuration model shares."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from watchdog.config_values import read_secret_file
from watchdog.domain.schedule import CronSchedule

# --- what is wrong

FieldPath: TypeAlias = tuple[str | int, ...]
"""The way from a model to one of its fields: ("alert", "severity"), ("expect", 0)."""


class FieldValidationError(ValueError):
    """What a validator found wrong, all of it at once: each field, as seen from the model, with what is wrong there."""

    def __init__(self, errors: Iterable[tuple[FieldPath, str]]):
        self.errors = tuple(errors)
        super().__init__("; ".join(message for _, message in self.errors))


# --- durations

_DURATION_PART_RE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_MS_PER_UNIT = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
_MAX_DURATION_MS = 3650 * _MS_PER_UNIT["d"]


def parse_duration(value: Any) -> int:
    """ "1h30m" -> 5_400_000. Raises ValueError for anything that is not a positive duration with a unit."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"a duration needs a unit, such as {value:g}s or {value:g}m")
    if not isinstance(value, str) or not re.fullmatch(DURATION_PATTERN, value):
        raise ValueError("expected a duration such as 30s, 5m, 1h30m or 2d")
    total = sum(float(n) * _MS_PER_UNIT[u] for n, u in _DURATION_PART_RE.findall(value))
    if total > _MAX_DURATION_MS:
        raise ValueError("expected a duration of at most ten years")
    if round(total) <= 0:
        raise ValueError("expected a duration longer than zero")
    return round(total)


def format_config_duration(ms: int) -> str:
    """5_400_000 -> "1h30m": the way configurations write it."""
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        n, ms = divmod(ms, _MS_PER_UNIT[unit])
        if n:
            parts.append(f"{n}{unit}")
    return "".join(parts) or "0s"


Duration = Annotated[
    int, BeforeValidator(parse_duration), WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN})
]
"""Milliseconds, written as 30s, 5m, 1h30m, 2d."""


def duration_bounds(shortest: str, longest: str, explanation: str = "") -> AfterValidator:
    """Bounds for a Duration, with the reason that the refusal gives: `Annotated[Duration, between("1s", "1d")]`."""
    least, most = parse_duration(shortest), parse_duration(longest)
    reason = f": {explanation}" if explanation else ""

    def check(ms: int) -> int:
        if ms < least:
            raise ValueError(f"expected at least {shortest}{reason}")
        if ms > most:
            raise ValueError(f"expected at most {longest}{reason}")
        return ms

    return AfterValidator(check)


# --- text

Secret = SecretStr
"""A value that is masked in every output, whatever its length and wherever it came from."""


def validate_secret_length(secret: Secret) -> Secret:
    """The key itself. Raises ValueError for a short one."""
    if len(secret.get_secret_value()) < 16:
        raise ValueError("expected at least 16 characters, for short keys are guessed: try `openssl rand -hex 20`")
    return secret


def _validate_single_line(text: str) -> str:
    if (
        not text.strip()
        or len(text) > 200
        or any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)
    ):
        raise ValueError("expected one line of visible text, at most 200 characters")
    return text.strip()


SingleLineText = Annotated[str, AfterValidator(_validate_single_line)]
"""Text that goes into subjects, titles and tables."""


def _validate_http_link(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError("expected a link that starts with http:// or https://")
    return text


HttpLink = Annotated[
    str, AfterValidator(_validate_http_link), WithJsonSchema({"type": "string", "pattern": "^https?://"})
]
"""An address that people open."""


def _validate_cron_expression(expression: str) -> str:
    CronSchedule(expression)
    return expression


def _validate_timezone_name(name: str) -> str:
    CronSchedule("* * * * *", name)
    return name


CronExpression = Annotated[str, AfterValidator(_validate_cron_expression)]
TimezoneName = Annotated[str, AfterValidator(_validate_timezone_name)]
"""The name of a time zone: Europe/Berlin."""


# --- files


@dataclass
class LoadContext:
    """The `context` in which a configuration is validated: the folder of its file, and the secrets read so far."""

    base_dir: Path = Path()
    secrets: list[str] = field(default_factory=list)


def _load_context(info: ValidationInfo) -> LoadContext:
    return info.context if isinstance(info.context, LoadContext) else LoadContext()


def _resolve_path(path: str, info: ValidationInfo) -> str:
    return str(_load_context(info).base_dir / path) if path else path


LocalFilePath = Annotated[str, AfterValidator(_resolve_path)]
"""The path of a file on this machine; a relative one starts at the configuration file that names it."""

ALLOW_FROM_FILE = object()
"""Marks a field that is no Secret and may yet be read from a file: `Annotated[str, FROM_FILE]`."""


# --- models


class ConfigModel(BaseModel):
    """The base of every configuration model: unknown fields are errors, values are frozen.

    A Secret field may be given as `<field>_file` instead: the path of a file that holds it. A model with a `shorthand`
    may be written as that one field's value alone.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        defer_build=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )
    shorthand_field: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand_and_secret_files(cls, data: Any, info: ValidationInfo) -> Any:
        if cls.shorthand_field and isinstance(data, str):
            return {cls.shorthand_field: data}
        if not isinstance(data, dict) or not any(f"{name}_file" in data for name in file_backed_fields(cls)):
            return data
        data, wrong = dict(data), []
        for name in file_backed_fields(cls):
            key = f"{name}_file"
            if (path := data.pop(key, None)) is None:
                continue
            if name in data:
                wrong.append(((key,), f"give either {name} or {key}, not both"))
            elif not isinstance(path, str) or not path:
                wrong.append(((key,), "expected the path of a file"))
            else:
                try:
                    data[name] = read_secret_file(_load_context(info).base_dir / path)
                    _load_context(info).secrets.append(data[name])
                except ValueError as e:
                    wrong.append(((key,), str(e)))
        if wrong:
            raise FieldValidationError(wrong)
        return data

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The schema, with both ways of writing that pydantic does not know of."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        for name, text in _field_docstrings(cls).items():
            if field := schema["properties"].get(cls.model_fields[name].alias or name):
                field.setdefault("description", text)
        names = file_backed_fields(cls)
        schema["properties"] |= {
            f"{name}_file": {"type": "string", "description": f"The path of a file that holds `{name}`."}
            for name in names
        }
        required = schema.pop("required", [])
        if alone := [name for name in required if name not in names]:
            schema["required"] = alone
        if either := [{"oneOf": [{"required": [r]}, {"required": [f"{r}_file"]}]} for r in required if r in names]:
            schema["allOf"] = either
        if cls.shorthand_field:
            written_out = dict(schema)
            schema.clear()
            schema |= {"anyOf": [_field_schema(cls.shorthand_field, written_out), written_out]}
        return reference


def exactly_one_of(model: BaseModel, names: Collection[str]) -> Any:
    """The value of the one of these fields that is given. Raises ValueError where none is, or several are."""
    given = [name for name in names if getattr(model, name) is not None]
    if len(given) != 1:
        found = f", not {' and '.join(given)}" if given else ""
        raise ValueError(f"expected one of {', '.join(names)}{found}")
    return getattr(model, given[0])


def _field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Field name -> the docstring below its declaration. Only the JSON Schema needs them; pydantic's own option for
    this, `use_attribute_docstrings`, reads the source of every model at every start."""
    docstrings: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        body = _class_bodies(cls.__module__).get(cls.__name__, ()) if issubclass(cls, ConfigModel) else ()
        for declaration, text in pairwise(body):
            match declaration, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                    docstrings[name] = inspect.cleandoc(docstring)
    return {name: docstrings[name] for name in model.model_fields if name in docstrings}


@cache
def _class_bodies(module: str) -> dict[str, list[ast.stmt]]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def _field_schema(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in schema["properties"][name].items() if k not in ("title", "default")}


@cache
def file_backed_fields(model: type[BaseModel]) -> tuple[str, ...]:
    """Names, as written, of the fields that may be given as `<field>_file`."""
    fields = {info.alias or name: info for name, info in model.model_fields.items()}
    return tuple(
        name
        for name, info in fields.items()
        if (ALLOW_FROM_FILE in info.metadata or _is_secret_type(info.annotation)) and f"{name}_file" not in fields
    )


def _is_secret_type(annotation: Any) -> bool:
    """A secret or an optional one; not a mapping or list of secrets."""
    return annotation is SecretStr or (type(None) in get_args(annotation) and SecretStr in get_args(annotation))


__all__ = [
    "ALLOW_FROM_FILE",
    "DURATION_PATTERN",
    "ConfigModel",
    "CronExpression",
    "Duration",
    "FieldValidationError",
    "HttpLink",
    "LoadContext",
    "LocalFilePath",
    "Secret",
    "SingleLineText",
    "TimezoneName",
    "duration_bounds",
    "exactly_one_of",
    "file_backed_fields",
    "format_config_duration",
    "parse_duration",
    "validate_secret_length",
]
