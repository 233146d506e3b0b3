"""How a target behind a URL is reached: its address, the headers we send, and how we show who we are."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, WithJsonSchema, model_validator

from watchdog.config_types import ALLOW_FROM_FILE, ConfigModel, FieldPath, Secret
from watchdog.net.url import parse_url

_RESERVED_HEADERS = ("connection", "content-length", "transfer-encoding", "upgrade")
"""Headers that are ours to write."""


def _validate_url(text: str) -> str:
    parse_url(text)
    return text


HttpUrl = Annotated[
    str, AfterValidator(_validate_url), WithJsonSchema({"type": "string", "pattern": "^https?://"}), ALLOW_FROM_FILE
]


class BasicAuth(ConfigModel):
    """A user's name and password."""

    username: str
    password: Secret

    @property
    def authorization_header(self) -> str:
        pair = f"{self.username}:{self.password.get_secret_value()}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"


class Auth(ConfigModel):
    """How we show who we are: one of the two."""

    basic: BasicAuth | None = None
    bearer: Secret | None = None
    """A token, sent as `Authorization: Bearer ...`."""

    @model_validator(mode="after")
    def _require_exactly_one(self) -> Self:
        if (self.basic is None) == (self.bearer is None):
            raise ValueError("expected either basic or bearer")
        return self

    @property
    def authorization_header(self) -> str:
        if self.bearer is not None:
            return f"Bearer {self.bearer.get_secret_value()}"
        return self.basic.authorization_header if self.basic else ""


def find_header_and_auth_problems(headers: Mapping[str, str], auth: Auth | None) -> list[tuple[FieldPath, str]]:
    """What is wrong with a target's `headers` and `auth`."""
    wrong: list[tuple[FieldPath, str]] = [
        (("headers", name), why) for name, value in headers.items() if (why := _header_problem(name, value))
    ]
    if auth and "authorization" in map(str.lower, headers):
        wrong.append((("auth",), "give either auth or an Authorization header, not both"))
    return wrong


def _header_problem(name: str, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
        return "not a header name"
    if name.lower() in _RESERVED_HEADERS:
        return "we set this header ourselves"
    if value != value.strip() or re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
        return "a header's value has no line ends in it and no spaces around it"
    return ""
