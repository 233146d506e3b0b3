"""Request headers and credentials in the configuration."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Mapping
from typing import Self

from pydantic import model_validator

from watchdog.config_types import ConfigModel, FieldPath, Secret, require_exactly_one_of

_RESERVED_REQUEST_HEADERS = ("connection", "content-length", "transfer-encoding", "upgrade")
"""Headers that Watchdog sets itself."""


class HttpBasicAuth(ConfigModel):
    """Credentials for HTTP basic authentication."""

    username: str
    """The user name."""
    password: Secret
    """The password."""

    @property
    def authorization_header(self) -> str:
        return build_basic_authorization(f"{self.username}:{self.password.get_secret_value()}")


def build_basic_authorization(userinfo: str) -> str:
    """The value of the `Authorization` header for "user:password"; empty if there are no credentials."""
    return f"Basic {base64.b64encode(userinfo.encode()).decode()}" if userinfo else ""


class HttpAuth(ConfigModel):
    """Credentials for the `Authorization` header: exactly one of `basic` and `bearer`."""

    basic: HttpBasicAuth | None = None
    """The user name and password for HTTP basic authentication."""
    bearer: Secret | None = None
    """A token, sent as `Authorization: Bearer TOKEN`."""

    @model_validator(mode="after")
    def _require_exactly_one(self) -> Self:
        require_exactly_one_of(self, ("basic", "bearer"))
        return self

    @property
    def authorization_header(self) -> str:
        if self.bearer is not None:
            return f"Bearer {self.bearer.get_secret_value()}"
        return self.basic.authorization_header if self.basic else ""


def find_header_and_auth_problems(headers: Mapping[str, str], auth: HttpAuth | None) -> list[tuple[FieldPath, str]]:
    """Errors in the `headers` of a target, and in their combination with `auth`."""
    problems = find_header_problems(headers, _RESERVED_REQUEST_HEADERS)
    errors: list[tuple[FieldPath, str]] = [(("headers", *path), problem) for path, problem in problems]
    if auth and "authorization" in map(str.lower, headers):
        errors.append((("auth",), "`auth` and an `Authorization` header cannot be combined: remove one of them"))
    return errors


def find_header_problems(
    headers: Mapping[str, str], reserved_headers: Collection[str], *, ascii_only: bool = False
) -> list[tuple[FieldPath, str]]:
    """Errors in request headers, by header name. `ascii_only`: values must be ASCII text."""
    return [
        ((name,), problem)
        for name, value in headers.items()
        if (problem := _find_header_problem(name, value, reserved_headers, ascii_only))
    ]


def _find_header_problem(name: str, value: str, reserved_headers: Collection[str], ascii_only: bool) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
        return "not a valid header name: use letters, digits and '-'"
    if name.lower() in reserved_headers:
        return "Watchdog sets this header itself: remove it"
    if value != value.strip() or re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
        return "expected a header value without line breaks, control characters or surrounding spaces"
    if ascii_only and not value.isascii():
        return "expected a header value of ASCII characters"
    return ""
