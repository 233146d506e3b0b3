"""What a server demands of clients, and when the token that is sent expires."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from tests.support.mcp_probe_runs import run_mcp_probe
from tests.support.mcp_servers.raw_http import RawMcpResponse, running_raw_server
from watchdog.domain.model import Observation, Outcome

NOW = 1_800_000_000_000
METADATA = "https://mcp.acme.example/.well-known/oauth-protected-resource"


def make_token(expires_in_days: float) -> str:
    claims = {"exp": NOW / 1000 + expires_in_days * 86_400}
    return ".".join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims, {}))


def run(responses: dict[str, Any] | None = None, mcp: dict[str, Any] | None = None, **fields: Any) -> Observation:
    async def go() -> Observation:
        async with running_raw_server(responses or {}) as raw:
            return await run_mcp_probe({"url": raw.url, **(mcp or {})}, now=NOW, **fields)

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("header", "mcp", "message", "facts"),
    [
        (f'Bearer resource_metadata="{METADATA}", scope="tools"', {},
         f"HTTP 401: the server requires credentials (Bearer, scope tools, described at {METADATA})",
         {"auth_scheme": "Bearer", "auth_scope": "tools", "resource_metadata": METADATA}),
        (f'Bearer error="invalid_token", error_description="expired", resource_metadata="{METADATA}"',
         {"auth": {"bearer": "abc"}},
         f"HTTP 401: the server rejects the credentials (invalid_token: expired, described at {METADATA})",
         {"auth_scheme": "Bearer", "auth_error": "invalid_token", "resource_metadata": METADATA}),
        ("Basic", {}, "HTTP 401: the server requires credentials (Basic)", {"auth_scheme": "Basic"}),
    ],
)  # fmt: skip
def test_a_challenge_is_named(header: str, mcp: dict[str, Any], message: str, facts: dict[str, str]) -> None:
    observation = run({"*": RawMcpResponse(401, headers={"WWW-Authenticate": header})}, mcp)
    assert (observation.outcome, observation.reason, observation.message) == (Outcome.FAIL, "http.401", message)
    assert observation.evidence.facts.items() >= facts.items()


def test_a_scope_that_is_missing_is_named() -> None:
    header = 'Bearer error="insufficient_scope", scope="tools:call"'
    observation = run({"tools/call": RawMcpResponse(403, headers={"WWW-Authenticate": header})})
    assert (observation.reason, observation.message) == (
        "http.403",
        "HTTP 403: access is forbidden (insufficient_scope, scope tools:call)",
    )


PREFER = ["token_days >= 7"]


@pytest.mark.parametrize(
    ("expires_in_days", "days", "problem", "is_near"),
    [
        (30, 30, "", False),
        (7.5, 7, "", True),
        (6.9, 6, "bearer token expires in 6 days, expected at least 7", True),
        (1.5, 1, "bearer token expires in 1 day, expected at least 7", True),
        (-0.5, -1, "bearer token has expired, days left -1, expected at least 7", True),
    ],
)
def test_a_token_that_expires_soon_degrades(expires_in_days: float, days: int, problem: str, is_near: bool) -> None:
    observation = run(mcp={"auth": {"bearer": make_token(expires_in_days)}}, prefer=PREFER)
    assert (observation.outcome, observation.measurements["token_days"]) == (Outcome.PASS, days)
    assert observation.listings["preference"].subjects[PREFER[0]].problem == problem
    assert ("token_expires_at" in observation.evidence.facts) is is_near


def test_an_expired_token_is_named_when_it_is_rejected() -> None:
    mcp = {"headers": {"authorization": f"Bearer {make_token(-2)}"}}
    observation = run({"*": RawMcpResponse(401)}, mcp)
    assert (observation.reason, observation.measurements) == ("http.401", {"token_days": -2})
    assert observation.evidence.facts["token_expires_at"] == "2027-01-13T08:00:00.000Z"


def test_a_token_that_does_not_show_its_expiry() -> None:
    observation = run(mcp={"auth": {"bearer": "opaque"}}, prefer=PREFER)
    problem = observation.listings["preference"].subjects[PREFER[0]].problem
    text = "no bearer token is sent that is a JSON Web Token with a claim exp"
    assert problem == f"an expression cannot be evaluated: {text}"
    assert "token_days" not in observation.measurements
