"""Each scenario for clients in the conformance suite of MCP, against the `mcp` probe.

Not in scope: getting an access token in the scenarios of authorization (`auth/...`). Nearly all of them follow an
authorization code, which a person approves in a browser; a monitor has no such person, and sends the credentials in
its configuration. Of the others, which are optional extensions, the probe passes the one with a client secret
(`mcp.oauth`); in the rest the client proves its identity in ways that Watchdog does not offer. In all scenarios that
are not in scope, the probe must report what the server demands, and request nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, partial

import pytest

from tests.support.mcp_conformance import (
    CLIENT_CREDENTIALS_SCENARIO,
    ScenarioReport,
    list_conformance_scenarios,
    run_conformance_suite,
)
from tests.support.third_party import ThirdPartyServers

MODERN = "2026-07-28"
LEGACY, EITHER, EXTENSION = ["2025-11-25"], ["2025-11-25", MODERN], ["extension"]
SCENARIOS: Mapping[str, list[str]] = {
    "initialize": ["2025-06-18", "2025-11-25"],
    "tools_call": ["2025-06-18", "2025-11-25", MODERN],
    "elicitation-sep1034-client-defaults": LEGACY,
    "sse-retry": LEGACY,
    "request-metadata": [MODERN],
    "sep-2322-client-request-state": [MODERN],
    "http-standard-headers": [MODERN],
    "http-custom-headers": [MODERN],
    "http-invalid-tool-headers": [MODERN],
    "json-schema-ref-no-deref": [MODERN],
    "json-schema-2020-12-preservation": EITHER,
    "sep-2640-client-no-prefetch": EXTENSION,
    "sep-2640-client-verify-digest": EXTENSION,
    "sep-2640-client-verify-size": EXTENSION,
    "sep-2640-client-verify-frontmatter": EXTENSION,
    "auth/metadata-default": EITHER,
    "auth/metadata-var1": EITHER,
    "auth/metadata-var2": EITHER,
    "auth/metadata-var3": EITHER,
    "auth/basic-cimd": EITHER,
    "auth/scope-from-www-authenticate": EITHER,
    "auth/scope-from-scopes-supported": EITHER,
    "auth/scope-omitted-when-undefined": EITHER,
    "auth/scope-step-up": EITHER,
    "auth/scope-retry-limit": EITHER,
    "auth/token-endpoint-auth-basic": ["2025-06-18", "2025-11-25", MODERN],
    "auth/token-endpoint-auth-post": ["2025-06-18", "2025-11-25", MODERN],
    "auth/token-endpoint-auth-none": ["2025-06-18", "2025-11-25", MODERN],
    "auth/pre-registration": EITHER,
    "auth/2025-03-26-oauth-metadata-backcompat": ["2025-03-26"],
    "auth/2025-03-26-oauth-endpoint-fallback": ["2025-03-26"],
    "auth/resource-mismatch": [MODERN],
    "auth/offline-access-scope": [MODERN],
    "auth/offline-access-not-supported": [MODERN],
    "auth/authorization-server-migration": [MODERN],
    "auth/iss-supported": [MODERN],
    "auth/iss-not-advertised": [MODERN],
    "auth/iss-supported-missing": [MODERN],
    "auth/iss-wrong-issuer": [MODERN],
    "auth/iss-unexpected": [MODERN],
    "auth/iss-normalized": [MODERN],
    "auth/metadata-issuer-mismatch": [MODERN],
    "auth/client-credentials-jwt": EXTENSION,
    "auth/client-credentials-basic": EXTENSION,
    "auth/enterprise-managed-authorization": EXTENSION,
    "auth/dpop": EXTENSION,
    "auth/dpop-nonce": EXTENSION,
    "auth/wif-jwt-bearer": EXTENSION,
}
"""As the suite lists them: the versions of MCP to which each applies."""
EXPECTED_FAILURES = {
    "elicitation-sep1034-client-defaults": "A probe has no person to ask, and does not announce that it could. The "
    "server asks nevertheless, on a stream that the probe does not open, and waits: the probe reports a timeout.",
    "sep-2322-client-request-state": "A probe has no person to ask. It reports `mcp.input_required`, and does not "
    "repeat the call.",
}
"""Scenario -> why Watchdog does not pass it. At most three."""
UNUSED_FEATURE = "sep-2640-"
"""Skills, whose files a probe does not read: the suite has nothing to judge, and finds no fault."""

OUT_OF_SCOPE = [name for name in SCENARIOS if name.startswith("auth/") and name != CLIENT_CREDENTIALS_SCENARIO]
IN_SCOPE = [name for name in SCENARIOS if name not in OUT_OF_SCOPE]


def in_every_version(names: list[str]) -> list[tuple[str, str]]:
    """Each scenario, and the version to ask the suite for; empty: the one that the suite chooses. It chooses 2025-11-25
    if it can."""
    modern = [name for name in names if MODERN in SCENARIOS[name] and SCENARIOS[name] != [MODERN]]
    return [(name, "") for name in names] + [(name, MODERN) for name in modern]


Reports = Callable[[str], Mapping[str, ScenarioReport]]


@pytest.fixture(scope="module")
def reports(peers: ThirdPartyServers) -> Reports:
    """The reports about all scenarios, which run once for each version."""

    return cache(partial(run_conformance_suite, peers))


def test_all_scenarios_of_the_suite_are_here(peers: ThirdPartyServers) -> None:
    assert list_conformance_scenarios(peers) == SCENARIOS
    assert {*EXPECTED_FAILURES} <= {*IN_SCOPE}
    assert len(EXPECTED_FAILURES) <= 3


@pytest.mark.parametrize(("scenario", "version"), in_every_version(IN_SCOPE))
def test_a_scenario_is_passed(scenario: str, version: str, reports: Reports) -> None:
    report = reports(version)[scenario]
    assert report.is_as_expected, report.runs
    if scenario in EXPECTED_FAILURES:
        assert report.unmet, "it is passed now: remove it from EXPECTED_FAILURES"
        return
    assert report.unmet == []
    is_judged = any(check["status"] == "SUCCESS" for check in report.checks)
    assert is_judged is not scenario.startswith(UNUSED_FEATURE)


@pytest.mark.parametrize(("scenario", "version"), in_every_version(OUT_OF_SCOPE))
def test_what_a_server_demands_is_reported(scenario: str, version: str, reports: Reports) -> None:
    report = reports(version)[scenario]
    (run,) = report.runs
    assert (run["outcome"], run["reason"]) == ("fail", "http.401")
    header = find_sent_challenge(report)
    names = ("auth_error", "auth_scope", "resource_metadata")
    parameters = {name: find_parameter(header, name.removeprefix("auth_")) for name in names}
    demanded = {"auth_scheme": header.split()[0], **{name: value for name, value in parameters.items() if value}}
    facts = run["evidence"]["facts"]
    assert {name: facts[name] for name in facts.keys() & {"auth_scheme", *names}} == demanded
    assert all(value in run["message"] for value in list(demanded.values())[1:])
    requests = [check["details"] for check in report.checks if check["id"] == "incoming-request"]
    assert {(request["path"], request["mcpMethod"]) for request in requests} == {("/mcp", "server/discover")}


def find_sent_challenge(report: ScenarioReport) -> str:
    """The header WWW-Authenticate that the suite has sent."""
    responses = [check["details"] for check in report.checks if check["id"] == "outgoing-response"]
    (header,) = {response["headers"]["www-authenticate"] for response in responses if response["statusCode"] == 401}
    return str(header)


def find_parameter(header: str, name: str) -> str:
    match = re.search(rf'\b{name}="([^"]*)"', header)
    return match[1] if match else ""
