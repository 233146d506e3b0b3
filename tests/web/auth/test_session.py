"""Session cookies: their signature, their lifetime, and the refusal of modified cookies."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from itsdangerous import URLSafeSerializer
from starlette.responses import Response

from watchdog.web.auth.session import (
    SESSION_COOKIE_NAME,
    SESSION_COOKIE_SALT,
    WEB_SESSION_LIFETIME_MS,
    ApiKey,
    SignInCookies,
)

NOW = 1_777_723_200_000
READER = ApiKey("grafana", "reader", "read-me-0123456789")
OPERATOR = ApiKey("ops é", "operator", "operate-ü-0123456789")


def sessions(api_keys: Iterable[ApiKey] = (READER, OPERATOR), now: int = NOW) -> SignInCookies:
    return SignInCookies(api_keys, lambda: now)


def issue(api_key: ApiKey, now: int = NOW) -> str:
    """The value of a new cookie."""
    response = Response()
    sessions(now=now).set(response, api_key, secure=True)
    name, _, value = response.headers["set-cookie"].partition(";")[0].partition("=")
    assert name == SESSION_COOKIE_NAME
    return value


@pytest.mark.parametrize("api_key", [READER, OPERATOR])
def test_a_cookie_identifies_its_key(api_key: ApiKey) -> None:
    assert sessions().find_api_key(issue(api_key)) is api_key


@pytest.mark.parametrize(
    ("elapsed_ms", "is_valid"),
    [
        (0, True),
        (WEB_SESSION_LIFETIME_MS - 1, True),
        (WEB_SESSION_LIFETIME_MS, False),
        (2 * WEB_SESSION_LIFETIME_MS, False),
    ],
)
def test_a_session_ends_after_its_lifetime(elapsed_ms: int, is_valid: bool) -> None:
    assert (sessions(now=NOW + elapsed_ms).find_api_key(issue(READER)) is READER) is is_valid


@pytest.mark.parametrize("position", range(len(issue(READER))))
def test_a_cookie_with_any_character_changed_is_refused(position: int) -> None:
    cookie = issue(READER)
    changed = cookie[:position] + ("A" if cookie[position] != "A" else "B") + cookie[position + 1 :]
    if position == len(cookie) - 1:  # the last two bits of base64 are not significant
        changed = cookie[:-1]
    assert sessions().find_api_key(changed) is None


@pytest.mark.parametrize(
    "cookie",
    ["", ".", "..", "a.b", "a.b.c", "\xff", "\0", ".eJw.x", "b3Bz.99999999999999.00", "x" * 5_000],
)
def test_an_invalid_cookie_is_refused(cookie: str) -> None:
    assert sessions().find_api_key(cookie) is None


def test_parts_of_two_cookies_cannot_be_combined() -> None:
    (payload, _), (_, signature) = (issue(key).rsplit(".", 1) for key in (READER, OPERATOR))
    assert sessions().find_api_key(f"{payload}.{signature}") is None
    (_, old_signature), (new_payload, _) = (issue(READER, now).rsplit(".", 1) for now in (NOW, NOW + 1))
    assert sessions().find_api_key(f"{new_payload}.{old_signature}") is None


@pytest.mark.parametrize(
    ("sentence", "changed"),
    [
        ("another secret", ApiKey("grafana", "reader", "another-0123456789")),
        ("another role", ApiKey("grafana", "operator", READER.secret)),
        ("another name", ApiKey("prometheus", "reader", READER.secret)),
    ],
)
def test_changing_a_key_ends_its_sessions(sentence: str, changed: ApiKey) -> None:
    cookie = issue(READER)
    assert sessions([changed, OPERATOR]).find_api_key(cookie) is None, sentence
    assert sessions([OPERATOR]).find_api_key(cookie) is None, "the key was removed"
    assert sessions([OPERATOR, READER]).find_api_key(cookie) == READER, "another order, another process"


def test_a_signature_for_another_purpose_is_refused() -> None:
    forged = URLSafeSerializer(READER.secret, salt=SESSION_COOKIE_SALT).dumps(
        [READER.name, NOW + WEB_SESSION_LIFETIME_MS]
    )
    assert sessions().find_api_key(forged) is None


def test_a_cookie_does_not_contain_the_secret() -> None:
    assert READER.secret not in issue(READER)
