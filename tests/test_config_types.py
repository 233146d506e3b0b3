"""Durations, secrets from files, and the base class of the configuration models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from watchdog.config_types import (
    FILE_BACKED_FIELD_MARKER,
    ConfigFileValidationContext,
    ConfigModel,
    Duration,
    HttpLink,
    LocalFilePath,
    Secret,
    SingleLineText,
    create_duration_bounds_validator,
    format_config_duration,
    parse_config_duration_ms,
)
from watchdog.config_values import slugify


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h30m", 5_400_000), ("2d", 172_800_000), ("1.5s", 1_500),
        ("0.5d", 43_200_000), ("90m", 5_400_000), ("3650d", 315_360_000_000), ("1d2h3m4s5ms", 93_784_005),
    ],
)  # fmt: skip
def test_a_duration_means(text: str, ms: int) -> None:
    assert parse_config_duration_ms(text) == ms


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (30, "needs a unit, such as 30s or 30m"),
        (1.5, "needs a unit, such as 1.5s or 1.5m"),
        *((text, "expected a duration such as") for text in ("", "30", "s", "5 m", "-5m", "5M", "1:30", "٣s", "5m\n")),
        *((value, "expected a duration such as") for value in (None, True, ["5m"], {"m": 5})),
        ("0s", "longer than 0"),
        ("0.0001ms", "longer than 0"),
        ("3651d", "at most 3650d"),
        ("9" * 400 + "d", "at most 3650d"),
    ],
)
def test_an_invalid_duration_is_rejected(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_config_duration_ms(value)


@settings(deadline=None)
@given(st.integers(1, 315_360_000_000))
def test_a_duration_survives_formatting_and_parsing(ms: int) -> None:
    assert parse_config_duration_ms(format_config_duration(ms)) == ms


@pytest.mark.parametrize(("ms", "text"), [(0, "0s"), (1_000, "1s"), (5_400_000, "1h30m"), (86_400_001, "1d1ms")])
def test_a_duration_is_formatted(ms: int, text: str) -> None:
    assert format_config_duration(ms) == text


def test_bounds_have_an_explanation() -> None:
    bounded = TypeAdapter[int](
        Annotated[Duration, create_duration_bounds_validator("1s", "5m", "longer timeouts block the queue")]
    )
    assert bounded.validate_python("1s") == 1_000
    assert bounded.validate_python("5m") == 300_000
    with pytest.raises(ValidationError, match="expected at least 1s, found 999ms: longer timeouts block the queue"):
        bounded.validate_python("999ms")
    with pytest.raises(ValidationError, match="expected at most 5m, found 5m1s: longer timeouts block the queue"):
        bounded.validate_python("301s")


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("Warm the cache!", "warm-the-cache"), ("API (EU)", "api-eu"), ("Übung Straße", "ubung-strae"), ("検索", ""),
        ("--a--", "a"), ("a" * 80, "a" * 64), ("1", "1"),
    ],
)  # fmt: skip
def test_a_name_becomes_an_id(name: str, id: str) -> None:
    assert slugify(name) == id


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "a\tb", "a\x1bb", "a\u202eb", "a\u2028b", "a\u200bb", "x" * 201])
def test_invisible_or_long_text_is_not_a_single_line(text: str) -> None:
    with pytest.raises(ValidationError, match="one line of visible text"):
        TypeAdapter(SingleLineText).validate_python(text)


def test_surrounding_spaces_are_removed() -> None:
    assert TypeAdapter(SingleLineText).validate_python(" Café ☕ ") == "Café ☕"


@pytest.mark.parametrize(
    "text",
    ["", "a.example", "ftp://a.example", "https://", "https:///x", "javascript:alert(1)", "https://a.example/ x"],
)
def test_an_invalid_link_is_rejected(text: str) -> None:
    with pytest.raises(ValidationError, match="expected a URL that starts with http:// or https://"):
        TypeAdapter(HttpLink).validate_python(text)


class Target(ConfigModel):
    shorthand_field: ClassVar[str] = "url"

    url: Annotated[str, FILE_BACKED_FIELD_MARKER]
    password: Secret | None = None
    pin: Secret = Secret("0000")
    tls_file: LocalFilePath = ""
    tls: Secret | None = None


def target(folder: Path, **given: object) -> tuple[Target, ConfigFileValidationContext]:
    reading = ConfigFileValidationContext(folder)
    return Target.model_validate({"url": "u", **given}, context=reading), reading


def test_a_model_can_be_written_as_its_shorthand() -> None:
    assert Target.model_validate("https://a.example/").url == "https://a.example/"


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"abc", "abc"),
        (b"abc\n", "abc"),
        (b"abc\r\n", "abc"),
        (b"abc\n\n", "abc\n"),
        (b" a b ", " a b "),
        ("é".encode(), "é"),
    ],
)
def test_a_secret_is_read_from_a_file_without_its_final_line_break(tmp_path: Path, content: bytes, secret: str) -> None:
    (tmp_path / "pw").write_bytes(content)
    given, reading = target(tmp_path, password_file="pw")
    assert given.password is not None
    assert given.password.get_secret_value() == secret
    assert reading.secrets == [secret]


def test_an_absolute_path_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "pin").write_text("1234")
    assert target(Path("/nowhere"), pin_file=str(tmp_path / "pin"))[0].pin.get_secret_value() == "1234"


def test_a_marked_field_can_be_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("https://a.example/")
    assert (
        Target.model_validate({"url_file": "url"}, context=ConfigFileValidationContext(tmp_path)).url
        == "https://a.example/"
    )


def test_a_field_that_ends_in_file_is_not_read(tmp_path: Path) -> None:
    assert target(tmp_path, tls_file="ca.pem")[0].tls_file == str(tmp_path / "ca.pem")
    assert Target(url="u").tls_file == ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"password_file": "none"}, "cannot read .*none: no such file"),
        ({"password_file": "."}, "cannot read .*: is a directory"),
        ({"password_file": "empty"}, "empty is empty"),
        ({"password_file": "line"}, "line is empty"),
        ({"password_file": "large"}, "larger than 64 KiB"),
        ({"password_file": "binary"}, "not text in UTF-8"),
        ({"password_file": 5}, "expected the path of a file"),
        ({"password_file": ""}, "expected the path of a file"),
        ({"password_file": "line", "password": "x"}, "`password` and `password_file` cannot be combined"),
        ({"url_file": "line"}, "`url` and `url_file` cannot be combined"),
        ({"nothing_file": "line"}, "Extra inputs"),
    ],
)
def test_an_invalid_secret_file_is_rejected(tmp_path: Path, given: dict[str, object], message: str) -> None:
    for name, content in {"empty": b"", "line": b"\n", "large": b"x" * 65_537, "binary": b"\xff\xfe"}.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValidationError, match=message):
        target(tmp_path, **given)


def test_a_model_is_frozen_and_rejects_unknown_fields() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Target(url="u").url = "v"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs") as error:
        Target.model_validate({"url": "u", "hidden": "s3cr3t"})
    assert "s3cr3t" not in str(error.value)
