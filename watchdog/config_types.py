"""Value types and the base class of all configuration models."""

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
from urllib.parse import SplitResult, urlsplit

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

# --- errors

FieldPath: TypeAlias = tuple[str | int, ...]
"""The path from a model to one of its fields: ("alert", "severity"), ("expect", 0)."""


class MultiFieldValidationError(ValueError):
    """All errors of one validator: pairs of a field, relative to the model, and a message."""

    def __init__(self, errors: Iterable[tuple[FieldPath, str]]):
        self.errors = tuple(errors)
        super().__init__("; ".join(message for _, message in self.errors))


# --- durations

_DURATION_PART_PATTERN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_MS_BY_DURATION_UNIT = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
_MAX_DURATION_MS = 3650 * _MS_BY_DURATION_UNIT["d"]


def parse_config_duration_ms(value: Any) -> int:
    """ "1h30m" -> 5_400_000 (milliseconds). Raises ValueError unless it is a positive duration with a unit."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"a duration needs a unit, such as {value:g}s or {value:g}m")
    if not isinstance(value, str) or not re.fullmatch(DURATION_PATTERN, value):
        actual = f", found '{value}'" if isinstance(value, str) and 0 < len(value) <= 40 else ""
        raise ValueError(f"expected a duration such as 30s, 5m, 1h30m or 2d{actual}")
    total_ms = sum(float(number) * _MS_BY_DURATION_UNIT[unit] for number, unit in _DURATION_PART_PATTERN.findall(value))
    if total_ms > _MAX_DURATION_MS:
        raise ValueError("expected a duration of at most 3650d")
    if round(total_ms) <= 0:
        raise ValueError("expected a duration longer than 0")
    return round(total_ms)


def format_config_duration(ms: int) -> str:
    """5_400_000 -> "1h30m", the notation of the configuration."""
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        number, ms = divmod(ms, _MS_BY_DURATION_UNIT[unit])
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"


Duration = Annotated[
    int, BeforeValidator(parse_config_duration_ms), WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN})
]
"""Milliseconds, written as 30s, 5m, 1h30m, 2d."""


def _parse_duration_or_zero(value: Any) -> int:
    if value in (0, "0s") and not isinstance(value, bool):
        return 0
    return parse_config_duration_ms(value)


DurationOrZero = Annotated[
    int, BeforeValidator(_parse_duration_or_zero), WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN})
]
"""As Duration, or 0 where that turns something off."""


def create_duration_bounds_validator(minimum: str, maximum: str, explanation: str = "") -> AfterValidator:
    """Bounds for a Duration: `Annotated[Duration, create_duration_bounds_validator("1s", "1d")]`. Errors end with the
    explanation."""
    minimum_ms, maximum_ms = parse_config_duration_ms(minimum), parse_config_duration_ms(maximum)
    suffix = f": {explanation}" if explanation else ""

    def validate_duration_bounds(ms: int) -> int:
        if ms < minimum_ms:
            raise ValueError(f"expected at least {minimum}, found {format_config_duration(ms)}{suffix}")
        if ms > maximum_ms:
            raise ValueError(f"expected at most {maximum}, found {format_config_duration(ms)}{suffix}")
        return ms

    return AfterValidator(validate_duration_bounds)


# --- text

Secret = SecretStr
"""A value that is masked in all output, regardless of its length and source."""

MIN_UNGUESSABLE_SECRET_CHARS = 16


def validate_secret_length(secret: Secret) -> Secret:
    """The secret, unchanged. Raises ValueError if it is short enough to be guessed."""
    if len(secret.get_secret_value()) < MIN_UNGUESSABLE_SECRET_CHARS:
        raise ValueError(
            f"expected at least {MIN_UNGUESSABLE_SECRET_CHARS} characters, because short secrets can be guessed; "
            "`openssl rand -hex 20` generates a suitable one"
        )
    return secret


def _validate_single_line_text(text: str) -> str:
    if (
        not text.strip()
        or len(text) > 200
        or any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)
    ):
        raise ValueError("expected one line of visible text, at most 200 characters")
    return text.strip()


SingleLineText = Annotated[str, AfterValidator(_validate_single_line_text)]
"""Text for subjects, titles and tables."""


# --- URLs

INVALID_DATABASE_URL_PATTERN = r"%(?![0-9a-fA-F]{2})|[#\x00-\x1f\x7f]"
"""For drivers, `#` is a part of the database's name, and what follows are parameters: they would not be checked."""


def split_and_validate_url(
    text: str, schemes: Collection[str], expected: str, *, forbidden: str = "", host_required: bool = True
) -> SplitResult:
    """The parts of a URL with one of these schemes, a host and a usable port.

    `forbidden`: a regular expression that must not match. Raises ValueError(`expected ...`), without the URL, which may
    hold a password.
    """
    try:
        parts = urlsplit(text)
        valid = parts.scheme in schemes and (bool(parts.hostname) or not host_required) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or (forbidden and re.search(forbidden, text)):
        raise ValueError(f"expected {expected}")
    return parts


def _validate_http_link(text: str) -> str:
    split_and_validate_url(
        text, ("http", "https"), "a URL that starts with http:// or https://", forbidden=r"[\s\x00-\x1f\x7f]"
    )
    return text


HttpLink = Annotated[
    str, AfterValidator(_validate_http_link), WithJsonSchema({"type": "string", "pattern": "^https?://"})
]
"""A URL for people to open."""


def _validate_cron_expression(expression: str) -> str:
    CronSchedule(expression)
    return expression


def _validate_timezone_name(name: str) -> str:
    CronSchedule("* * * * *", name)
    return name


CronExpression = Annotated[str, AfterValidator(_validate_cron_expression)]
TimezoneName = Annotated[str, AfterValidator(_validate_timezone_name)]
"""The IANA name of a time zone, such as Europe/Berlin."""


# --- files
@dataclass
class ConfigFileValidationContext:
    """The validation context of one configuration file: its folder, and the secrets read from files so far."""

    base_dir: Path = Path()
    secrets: list[str] = field(default_factory=list)
    secret_files: dict[str, str] = field(default_factory=dict)  # secret -> the path of its file, as written
    watched_paths: list[Path] = field(default_factory=list)  # files with a secret, read or not
    regular_files_only: bool = False


def _get_config_file_validation_context(info: ValidationInfo) -> ConfigFileValidationContext:
    return info.context if isinstance(info.context, ConfigFileValidationContext) else ConfigFileValidationContext()


def _resolve_path_relative_to_config_file(path: str, info: ValidationInfo) -> str:
    return str(_get_config_file_validation_context(info).base_dir / path) if path else path


LocalFilePath = Annotated[str, AfterValidator(_resolve_path_relative_to_config_file)]
"""The path of a local file. A relative path is resolved against the folder of the configuration file."""


def parse_byte_size(value: Any) -> Any:
    """Bytes of "512KiB" or "4MiB". Raises ValueError."""
    if match := re.fullmatch(r"([0-9]{1,6}) ?(KiB|MiB)", value) if isinstance(value, str) else None:
        return int(match[1]) << (10 if match[2] == "KiB" else 20)
    raise ValueError(f"expected a size such as '512KiB' or '4MiB', found {value!r}")


BYTE_SIZE_PATTERN = r"^[0-9]{1,6} ?(KiB|MiB)$"
ByteSize = Annotated[
    int, BeforeValidator(parse_byte_size), WithJsonSchema({"type": "string", "pattern": BYTE_SIZE_PATTERN})
]
"""A size in bytes, written with its unit."""


def format_config_byte_size(size_bytes: int) -> str:
    """As it is written: "256KiB", "4MiB"."""
    return f"{size_bytes >> 20}MiB" if size_bytes % (1 << 20) == 0 else f"{size_bytes >> 10}KiB"


def wrap_string_in_list(value: Any) -> Any:
    """Validates a single string as a list of one."""
    return [value] if isinstance(value, str) else value


STRING_OR_LIST_SCHEMA = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
)
FILE_BACKED_FIELD_MARKER = object()
"""Marks a field that may be read from a file though it is not a Secret: `Annotated[str, FILE_BACKED_FIELD_MARKER]`."""


# --- models


class ConfigModel(BaseModel):
    """The base of all configuration models: unknown fields are errors, instances are frozen.

    A Secret field can be given as `<field>_file` instead: the path of a file with the secret. A model with a
    `shorthand_field` can be written as the value of that field alone. A field's docstring becomes its description in
    the JSON Schema and in docs/configuration.md.
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
        if not isinstance(data, dict) or not any(
            f"{name}_file" in data for name in list_fields_readable_from_file(cls)
        ):
            return data
        data, errors, context = dict(data), [], _get_config_file_validation_context(info)
        for name in list_fields_readable_from_file(cls):
            key = f"{name}_file"
            if (path := data.pop(key, None)) is None:
                continue
            if name in data:
                errors.append(((key,), f"`{name}` and `{key}` cannot be combined: remove one of them"))
            elif not isinstance(path, str) or not path:
                errors.append(((key,), "expected the path of a file"))
            else:
                context.watched_paths.append(context.base_dir / path)
                try:
                    data[name] = read_secret_file(context.base_dir / path, regular_file_only=context.regular_files_only)
                    context.secrets.append(data[name])
                    context.secret_files[data[name]] = path
                except ValueError as e:
                    errors.append(((key,), str(e)))
        if errors:
            raise MultiFieldValidationError(errors)
        return data

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Adds to the schema what pydantic does not know: docstrings, shorthands and `<field>_file`."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        for name, text in _read_config_field_docstrings(cls).items():
            if field := schema["properties"].get(cls.model_fields[name].alias or name):
                field.setdefault("description", text)
        names = list_fields_readable_from_file(cls)
        schema["properties"] |= {
            f"{name}_file": {"type": "string", "description": f"The path of a file that holds `{name}`."}
            for name in names
        }
        required = schema.pop("required", [])
        if always_required := [name for name in required if name not in names]:
            schema["required"] = always_required
        alternatives = [
            {"oneOf": [{"required": [name]}, {"required": [f"{name}_file"]}]} for name in required if name in names
        ]
        if alternatives:
            schema["allOf"] = alternatives
        if cls.shorthand_field:
            long_form = dict(schema)
            schema.clear()
            schema |= {"anyOf": [_get_json_schema_of_shorthand_form(cls.shorthand_field, long_form), long_form]}
        return reference


def require_exactly_one_of(model: BaseModel, names: Collection[str]) -> Any:
    """The value of the only field of these that is set (neither None nor empty). Raises ValueError unless exactly one
    is."""
    given = [name for name in names if getattr(model, name) not in (None, "")]
    if len(given) != 1:
        raise ValueError(f"expected exactly one of {', '.join(names)}, found {' and '.join(given) or 'none'}")
    return getattr(model, given[0])


def _read_config_field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Field name -> the docstring below its declaration. Only the JSON Schema needs them. Pydantic's own option for
    this, `use_attribute_docstrings`, would read the source of every model at every start."""
    docstrings: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        body = (
            _parse_class_bodies_of_module(cls.__module__).get(cls.__name__, ()) if issubclass(cls, ConfigModel) else ()
        )
        for declaration, text in pairwise(body):
            match declaration, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                    docstrings[name] = inspect.cleandoc(docstring)
    return {name: docstrings[name] for name in model.model_fields if name in docstrings}


@cache
def _parse_class_bodies_of_module(module: str) -> dict[str, list[ast.stmt]]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def _get_json_schema_of_shorthand_form(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in schema["properties"][name].items() if k not in ("title", "default")}


@cache
def list_fields_readable_from_file(model: type[BaseModel]) -> tuple[str, ...]:
    """The names, as written in YAML, of the fields that can be given as `<field>_file`."""
    fields = {info.alias or name: info for name, info in model.model_fields.items()}
    return tuple(
        name
        for name, info in fields.items()
        if (FILE_BACKED_FIELD_MARKER in info.metadata or _is_secret_annotation(info.annotation))
        and f"{name}_file" not in fields
    )


def _is_secret_annotation(annotation: Any) -> bool:
    """Whether it is a secret or an optional secret, as opposed to a mapping or list of secrets."""
    return annotation is SecretStr or (type(None) in get_args(annotation) and SecretStr in get_args(annotation))


__all__ = [
    "DURATION_PATTERN",
    "FILE_BACKED_FIELD_MARKER",
    "INVALID_DATABASE_URL_PATTERN",
    "ConfigFileValidationContext",
    "ConfigModel",
    "CronExpression",
    "Duration",
    "DurationOrZero",
    "HttpLink",
    "LocalFilePath",
    "MultiFieldValidationError",
    "Secret",
    "SingleLineText",
    "TimezoneName",
    "create_duration_bounds_validator",
    "format_config_duration",
    "list_fields_readable_from_file",
    "parse_config_duration_ms",
    "require_exactly_one_of",
    "split_and_validate_url",
    "validate_secret_length",
]
