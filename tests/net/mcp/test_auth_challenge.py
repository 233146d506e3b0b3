"""The header WWW-Authenticate, as servers write it, and as they should not."""

from __future__ import annotations

import pytest

from watchdog.net.mcp.auth_challenge import AuthChallenge, parse_auth_challenge

METADATA = "https://mcp.acme.example/.well-known/oauth-protected-resource"


@pytest.mark.parametrize(
    ("header", "challenge", "text"),
    [
        ("Bearer", AuthChallenge("Bearer"), "Bearer"),
        (f'Bearer resource_metadata="{METADATA}"', AuthChallenge("Bearer", resource_metadata=METADATA),
         f"Bearer, described at {METADATA}"),
        (f'Bearer error="invalid_token", error_description="The token\\"s  time\nis over", '
         f'resource_metadata="{METADATA}?t=1"',
         AuthChallenge("Bearer", "invalid_token", 'The token"s time is over', "", METADATA),
         f'invalid_token: The token"s time is over, described at {METADATA}'),
        ("Bearer error=insufficient_scope,scope=files:read",
         AuthChallenge("Bearer", "insufficient_scope", "", "files:read"),
         "insufficient_scope, scope files:read"),
        ('Basic realm="x", Bearer error="y"', AuthChallenge("Basic", "y"), "y"),
        ('bearer ERROR="a", error="b"', AuthChallenge("bearer", "a"), "a"),
        (f'Bearer error="{"x" * 5_000}', AuthChallenge("Bearer"), "Bearer"),
        (f'Bearer error="{"x" * 900}"', AuthChallenge("Bearer", f"{'x' * 199}…"), f"{'x' * 199}…"),
        ('Bearer resource_metadata="not a url"', AuthChallenge("Bearer", resource_metadata="not a url"),
         "Bearer, described at not a url"),
    ],
)  # fmt: skip
def test_a_challenge(header: str, challenge: AuthChallenge, text: str) -> None:
    assert parse_auth_challenge(header) == challenge
    assert challenge.describe() == text


@pytest.mark.parametrize("header", ["", "=", '"Bearer"', "x" * 5_000])
def test_a_header_without_a_challenge(header: str) -> None:
    assert parse_auth_challenge(header) is None


def test_what_is_not_stated_is_no_fact() -> None:
    assert AuthChallenge("Bearer").to_facts() == {"auth_scheme": "Bearer"}
    assert AuthChallenge("Bearer", "a", "b", "c", METADATA).to_facts() == {
        "auth_scheme": "Bearer", "auth_error": "a", "auth_scope": "c", "resource_metadata": METADATA,
    }  # fmt: skip
