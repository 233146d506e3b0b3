"""MCP servers whose token endpoint is found through their metadata: where it may be, and a reason for each fault."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import uvicorn
from mcp.server import MCPServer
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.routes import create_auth_routes
from mcp.server.auth.settings import AuthSettings
from pydantic import AnyHttpUrl
from starlette.applications import Starlette

from tests.support.leftovers import requiring_no_leftovers
from tests.support.mcp_probe_runs import McpProbeRunner
from tests.support.mcp_servers.oauth_sites import (
    ISSUER_METADATA_PATH,
    NOT_FOUND,
    SERVER_METADATA_PATH,
    OAuthSites,
    json_page,
    running_oauth_sites,
)
from tests.support.polling import wait_until_async
from tests.support.scripted_servers import CertificateAuthority, http_response, running_server
from watchdog.domain.model import Observation, Outcome
from watchdog.net import NetworkAccess, oauth
from watchdog.net.proxy import RequestRouting

CLIENT_SECRET = "cl1ent-s3cret"
Scenario = Callable[[OAuthSites, McpProbeRunner], Awaitable[None]]


def with_oauth(url: str, transport: str = "url", **fields: str) -> dict[str, Any]:
    return {transport: url, "oauth": {"client_id": "watchdog", "client_secret": CLIENT_SECRET, **fields}}


def play(scenario: Scenario) -> None:
    async def run_scenario() -> None:
        async with running_oauth_sites() as sites, NetworkAccess() as network:
            await scenario(sites, McpProbeRunner(network))

    asyncio.run(run_scenario())


async def probe(sites: OAuthSites, runner: McpProbeRunner, **fields: str) -> Observation:
    return await runner.run_probe(with_oauth(sites.mcp.url, **fields))


async def require_pass(sites: OAuthSites, runner: McpProbeRunner, **fields: str) -> dict[str, str]:
    """The form of the last token request."""
    observation = await probe(sites, runner, **fields)
    assert observation.outcome is Outcome.PASS, observation.message
    return next(request for request in reversed(sites.issuer.requests) if request.line == "POST /token").form


# --- where the token endpoint is found


def test_a_token_is_requested_where_the_metadata_states() -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        observation = await probe(sites, runner)
        assert (observation.outcome, "token" in observation.phases) == (Outcome.PASS, True), observation.message
        assert sites.mcp.lines[:2] == ["POST /mcp", f"GET {SERVER_METADATA_PATH}"]
        assert sites.issuer.lines == [f"GET {ISSUER_METADATA_PATH}", "POST /token"]
        token_request = sites.issuer.requests[-1]
        assert token_request.form == {"grant_type": "client_credentials", "resource": sites.mcp.url}
        credentials = base64.b64decode(token_request.headers["authorization"].removeprefix("Basic "))
        assert credentials == f"watchdog:{CLIENT_SECRET}".encode()
        before = [request for request in sites.mcp.requests[:2] if "authorization" in request.headers]
        assert before == []
        assert {request.headers["authorization"] for request in sites.mcp.requests[2:]} == {"Bearer t0ken-number-1"}
        assert runner.network.mask_tokens("t0ken-number-1") == "•••"
        assert (await probe(sites, runner)).outcome is Outcome.PASS
        assert len(sites.issuer.lines) == 2

    play(scenario)


@pytest.mark.parametrize(
    ("issuer_path", "metadata_path"),
    [
        ("", "/.well-known/openid-configuration"),
        ("/tenants/a", "/.well-known/oauth-authorization-server/tenants/a"),
        ("/tenants/a", "/.well-known/openid-configuration/tenants/a"),
        ("/tenants/a", "/tenants/a/.well-known/openid-configuration"),
        ("/tenants/a/", "/tenants/a/.well-known/openid-configuration"),
    ],
)
def test_the_metadata_of_an_authorization_server_has_several_places(issuer_path: str, metadata_path: str) -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        issuer = sites.issuer.url_of(issuer_path)
        sites.set_server_metadata(authorization_servers=[issuer, "https://other.example"])
        del sites.issuer.pages[f"GET {ISSUER_METADATA_PATH}"]
        sites.set_issuer_metadata(metadata_path, issuer=issuer)
        await require_pass(sites, runner)

    play(scenario)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_final_slash_of_the_issuer_makes_no_difference(slash: str) -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        sites.set_server_metadata(authorization_servers=[sites.issuer.url_of(slash)])
        sites.set_issuer_metadata(issuer=sites.issuer.url_of("" if slash else "/"))
        await require_pass(sites, runner)

    play(scenario)


def test_the_metadata_of_a_server_without_a_path() -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        parent = sites.mcp.url_of("")
        sites.mcp.pages |= {
            f"GET {SERVER_METADATA_PATH}": NOT_FOUND,
            "GET /.well-known/oauth-protected-resource": json_page(
                {"resource": parent, "authorization_servers": [sites.issuer.url_of("")]}
            ),
        }
        assert (await require_pass(sites, runner))["resource"] == parent

    play(scenario)


def test_the_challenge_states_where_the_metadata_is_and_which_scope_is_required() -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        page = sites.mcp.pages.pop(f"GET {SERVER_METADATA_PATH}")
        sites.issuer.pages["GET /about?server=search"] = page
        url = sites.issuer.url_of("/about?server=search")
        sites.mcp.challenge = f'Basic realm="x", Bearer resource_metadata="{url}", scope="tools resources"'
        assert (await require_pass(sites, runner))["scope"] == "tools resources"
        assert sites.mcp.lines[1] == "POST /mcp"

    play(scenario)


@pytest.mark.parametrize(("configured", "scope"), [("", "read write"), ("read", "read")])
def test_scopes_are_those_of_the_metadata_unless_they_are_configured(configured: str, scope: str) -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        sites.set_server_metadata(scopes_supported=["read", 7, "write"])
        assert (await require_pass(sites, runner, scope=configured))["scope"] == scope

    play(scenario)


@pytest.mark.parametrize(
    ("methods", "is_in_body"),
    [
        (None, False),
        (["client_secret_post", "client_secret_basic"], False),
        (["private_key_jwt", "client_secret_post"], True),
    ],
)
def test_the_metadata_states_how_the_client_secret_is_sent(methods: list[str] | None, is_in_body: bool) -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        grants = ["authorization_code", "client_credentials"]
        sites.publish(token_endpoint_auth_methods_supported=methods, grant_types_supported=grants)
        form = await require_pass(sites, runner)
        assert ("client_secret" in form) is is_in_body
        assert ("authorization" in sites.issuer.requests[-1].headers) is not is_in_body

    play(scenario)


def test_a_configured_token_url_is_not_discovered() -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        sites.mcp.pages.clear()
        form = await require_pass(sites, runner, token_url=sites.issuer.url_of("/token"), scope="tools")
        assert form == {"grant_type": "client_credentials", "scope": "tools", "resource": sites.mcp.url}
        assert sites.issuer.lines == ["POST /token"]
        assert set(sites.mcp.lines) == {"POST /mcp"}

    play(scenario)


def test_the_headers_of_the_server_go_to_its_origin_only() -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        mcp = {**with_oauth(f"{sites.mcp.url}?key=s3cret-key"), "headers": {"X-Gateway": "open"}}
        assert (await runner.run_probe(mcp)).outcome is Outcome.PASS
        assert all(request.headers.get("x-gateway") == "open" for request in sites.mcp.requests)
        assert not any("x-gateway" in request.headers for request in sites.issuer.requests)
        assert not any("s3cret-key" in f"{request}" for request in sites.issuer.requests)

    play(scenario)


def test_a_server_with_the_older_transport() -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        sites.mcp.pages["HEAD /mcp"] = http_response(b"", "401 Unauthorized", WWW_Authenticate='Bearer scope="sse"')
        await runner.run_probe(with_oauth(sites.mcp.url, "sse"))
        assert sites.issuer.requests[-1].form["scope"] == "sse"

    play(scenario)


# --- an endpoint that is discovered anew


def move_token_endpoint(sites: OAuthSites, former: bytes) -> None:
    """The former one responds with this from now on."""
    sites.issuer.pages |= {
        "POST /token": former,
        "POST /new-token": json_page({"access_token": "t0ken-number-2", "expires_in": 3600}),
    }
    sites.set_issuer_metadata(token_endpoint=sites.issuer.url_of("/new-token"))


def expire_token(runner: McpProbeRunner) -> None:
    (entry,) = runner.network.request_sender.tokens._entries.values()
    assert entry.token is not None
    entry.token = entry.token._replace(expires_at=0)


@pytest.mark.parametrize(
    "former",
    [
        json_page({"error": "invalid_client"}, "401 Unauthorized"),
        NOT_FOUND,
        b"",  # closes the connection
    ],
)
def test_an_endpoint_that_refuses_is_discovered_anew_at_once(former: bytes) -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        await require_pass(sites, runner)
        expire_token(runner)
        move_token_endpoint(sites, former)
        sites.mcp.accepted_tokens = {"t0ken-number-2"}
        observation = await probe(sites, runner)
        assert observation.outcome is Outcome.PASS, observation.message
        assert sites.issuer.lines[2:] == ["POST /token", f"GET {ISSUER_METADATA_PATH}", "POST /new-token"]
        expire_token(runner)
        assert (await probe(sites, runner)).outcome is Outcome.PASS
        assert sites.issuer.lines[5:] == ["POST /new-token"]

    play(scenario)


def test_an_endpoint_that_is_overloaded_is_kept() -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        await require_pass(sites, runner)
        for page, reason in ((http_response(status="503 Down"), "auth.token_unavailable"), (None, "")):
            expire_token(runner)
            sites.issuer.pages["POST /token"] = page or json_page({"access_token": "t0ken-number-1"})
            assert (await probe(sites, runner)).reason == reason
        assert sites.issuer.lines[2:] == ["POST /token"] * 2

    play(scenario)


def test_a_server_that_rejects_a_token_may_have_another_authorization_server() -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        await require_pass(sites, runner)
        sites.mcp.accepted_tokens = {"t0ken-number-2"}
        assert (await probe(sites, runner)).reason == "http.401"
        move_token_endpoint(sites, json_page({"access_token": "t0ken-number-1"}))
        assert (await probe(sites, runner)).outcome is Outcome.PASS

    play(scenario)


# --- faults

Change = Callable[[OAuthSites], Any]
METADATA = "no access token: the metadata of the"
FAULTS: dict[str, tuple[Change, str, str]] = {
    "the server has no metadata": (
        lambda sites: sites.mcp.pages.clear(),
        "auth.metadata_missing",
        "no access token: there is no metadata of the MCP server: "
        "HTTP 404 at MCP_URL/.well-known/oauth-protected-resource",
    ),
    "its metadata is HTML": (
        lambda sites: sites.mcp.pages.update({f"GET {SERVER_METADATA_PATH}": http_response(b"<html>")}),
        "auth.metadata_invalid",
        f"{METADATA} MCP server is not usable: it is not a JSON object",
    ),
    "its metadata is too large": (
        lambda sites: sites.set_server_metadata(resource_name="x" * 100_000),
        "auth.metadata_invalid",
        f"{METADATA} MCP server is not usable: it is not a JSON object",
    ),
    "its metadata has no resource": (
        lambda sites: sites.set_server_metadata(resource=None),
        "auth.metadata_invalid",
        f"{METADATA} MCP server is not usable: it has no resource",
    ),
    "its metadata is of another server": (
        lambda sites: sites.set_server_metadata(resource="https://other.example/mcp"),
        "auth.metadata_invalid",
        f"{METADATA} MCP server is not usable: it is that of https://other.example/mcp",
    ),
    "its metadata is of another path": (
        lambda sites: sites.set_server_metadata(resource=sites.mcp.url_of("/mc")),
        "auth.metadata_invalid",
        f"{METADATA} MCP server is not usable: it is that of MCP_URL/mc",
    ),
    "it names no authorization server": (
        lambda sites: sites.set_server_metadata(authorization_servers=[]),
        "auth.metadata_invalid",
        f"{METADATA} MCP server is not usable: it names no authorization server",
    ),
    "it names an authorization server by its name": (
        lambda sites: sites.set_server_metadata(authorization_servers=["acme login"]),
        "auth.metadata_invalid",
        f"{METADATA} MCP server is not usable: acme login is not the URL of an authorization server",
    ),
    "it names an authorization server that is not encrypted": (
        lambda sites: sites.set_server_metadata(authorization_servers=["http://login.example"]),
        "auth.endpoint_insecure",
        "no access token: the MCP server names a URL that is not encrypted: http://login.example",
    ),
    "its challenge names metadata elsewhere that is not encrypted": (
        lambda sites: setattr(sites.mcp, "challenge", "Bearer resource_metadata=http://evil.example/x?y=z"),
        "auth.endpoint_insecure",
        "no access token: the MCP server names a URL that is not encrypted: http://evil.example/x",
    ),
    "its challenge names metadata that is not there": (
        lambda sites: setattr(sites.mcp, "challenge", f"Bearer resource_metadata={sites.mcp.url_of('/none')}"),
        "auth.metadata_missing",
        "no access token: there is no metadata of the MCP server: HTTP 404 at MCP_URL/none",
    ),
    "the metadata of the authorization server redirects": (
        lambda sites: sites.issuer.pages.update(
            {
                f"GET {ISSUER_METADATA_PATH}": http_response(status="302 Found", Location="/login"),
                "GET /.well-known/openid-configuration": http_response(status="302 Found", Location="/login"),
            }
        ),
        "auth.metadata_missing",
        "no access token: there is no metadata of the authorization server: "
        "HTTP 302 at ISSUER_URL/.well-known/openid-configuration",
    ),
    "the authorization server is down": (
        lambda sites: sites.issuer.pages.update({f"GET {ISSUER_METADATA_PATH}": http_response(status="503 Down")}),
        "auth.token_unavailable",
        f"no access token: HTTP 503 at ISSUER_URL{ISSUER_METADATA_PATH}",
    ),
    "the authorization server closes": (
        lambda sites: sites.issuer.pages.update({f"GET {ISSUER_METADATA_PATH}": b""}),
        "auth.token_unavailable",
        "no access token: connection closed by the server (127.0.0.1:PORT)",
    ),
    "the authorization server is another one": (
        lambda sites: sites.set_issuer_metadata(issuer="https://evil.example/a?b=c"),
        "auth.issuer_mismatch",
        f"{METADATA} authorization server ISSUER_URL states the issuer https://evil.example/a",
    ),
    "the authorization server states no issuer": (
        lambda sites: sites.set_issuer_metadata(issuer=None),
        "auth.metadata_invalid",
        f"{METADATA} authorization server is not usable: it has no issuer",
    ),
    "it does not support client credentials": (
        lambda sites: sites.publish(grant_types_supported=["authorization_code", "refresh_token"]),
        "auth.grant_not_supported",
        "no access token: the authorization server ISSUER_URL does not support client credentials",
    ),
    "it accepts no client secret": (
        lambda sites: sites.publish(token_endpoint_auth_methods_supported=["private_key_jwt", "none"]),
        "auth.client_auth_not_supported",
        "no access token: the authorization server ISSUER_URL accepts no client secret",
    ),
    "it has no token endpoint": (
        lambda sites: sites.publish(token_endpoint=None),
        "auth.metadata_invalid",
        f"{METADATA} authorization server is not usable: it has no token_endpoint",
    ),
    "its token endpoint is a path": (
        lambda sites: sites.publish(token_endpoint="/token"),
        "auth.metadata_invalid",
        f"{METADATA} authorization server is not usable: its token_endpoint is not a URL",
    ),
    "its token endpoint is not encrypted": (
        lambda sites: sites.publish(token_endpoint="http://login.example/token?x=y"),
        "auth.endpoint_insecure",
        "no access token: the authorization server names a URL that is not encrypted: http://login.example/token",
    ),
    "it refuses the client": (
        lambda sites: sites.issuer.pages.update(
            {"POST /token": json_page({"error": "invalid_client"}, "401 Unauthorized")}
        ),
        "auth.token_refused",
        "the token endpoint refuses an access token: HTTP 401 (invalid_client)",
    ),
    "it refuses the server": (
        lambda sites: sites.issuer.pages.update({"POST /token": json_page({"error": "invalid_target"}, "400 Bad")}),
        "auth.token_refused",
        "the token endpoint refuses an access token: HTTP 400 (invalid_target)",
    ),
    "it issues nothing": (
        lambda sites: sites.issuer.pages.update({"POST /token": json_page({"token_type": "Bearer"})}),
        "auth.token_invalid",
        "the response of the token endpoint is not usable: it has no access_token",
    ),
    "the server itself is down": (
        lambda sites: sites.mcp.pages.update({"POST /mcp": http_response(status="503 Down")}),
        "http.503",
        "HTTP 503, expected an MCP response",
    ),
    "the server itself closes": (
        lambda sites: sites.mcp.pages.update({"POST /mcp": b""}),
        "connection.closed",
        "connection closed by the server",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_a_reason(name: str) -> None:
    change, reason, message = FAULTS[name]

    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        change(sites)
        async with requiring_no_leftovers():
            observation = await probe(sites, runner)
        expected = message.replace("MCP_URL", sites.mcp.url_of("")).replace("ISSUER_URL", sites.issuer.url_of(""))
        expected = expected.replace("PORT", str(sites.issuer.server.port))
        assert (observation.outcome, observation.reason) == (Outcome.FAIL, reason), observation.message
        assert observation.message.removesuffix(" while requesting an access token") == expected
        assert not any("authorization" in request.headers for request in sites.mcp.requests)
        assert CLIENT_SECRET not in f"{observation.message} {observation.evidence}"
        if reason.startswith("auth.metadata") or reason in ("auth.issuer_mismatch", "auth.grant_not_supported"):
            assert "POST /token" not in sites.issuer.lines
            assert str(observation.evidence.facts["metadata_url"]).startswith("http://127.0.0.1:")

    play(scenario)


def test_the_evidence_lists_where_metadata_was_expected() -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        sites.issuer.pages.clear()
        sites.set_server_metadata(authorization_servers=[sites.issuer.url_of("/a")])
        facts = (await probe(sites, runner)).evidence.facts
        assert facts["requested_urls"] == [
            sites.issuer.url_of("/.well-known/oauth-authorization-server/a"),
            sites.issuer.url_of("/.well-known/openid-configuration/a"),
            sites.issuer.url_of("/a/.well-known/openid-configuration"),
        ]

    play(scenario)


def test_a_server_that_refuses_connections() -> None:
    async def run_scenario() -> Observation:
        async with NetworkAccess() as network:
            return await McpProbeRunner(network).run_probe(with_oauth("http://127.0.0.1:1/mcp"))

    observation = asyncio.run(run_scenario())
    assert (observation.outcome, observation.reason) == (Outcome.FAIL, "connection.refused")


def test_metadata_that_never_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oauth, "TOKEN_REQUEST_TIMEOUT_S", 0.3)

    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        sites.issuer.pages[f"GET {ISSUER_METADATA_PATH}"] = None
        observation = await probe(sites, runner)
        expected = f"no access token: no response within 0.3 s (127.0.0.1:{sites.issuer.server.port})"
        assert (observation.reason, observation.message) == ("auth.token_unavailable", expected)

    play(scenario)


def test_a_run_whose_time_is_over_leaves_nothing_behind() -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        sites.issuer.pages[f"GET {ISSUER_METADATA_PATH}"] = None
        async with requiring_no_leftovers():
            observation = await runner.run_probe(with_oauth(sites.mcp.url), timeout_s=0.1, timeout_in_phase="token")
        assert observation.message == "timed out while requesting an access token"

    play(scenario)


def test_addresses_that_the_metadata_names_are_filtered() -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        sites.set_server_metadata(authorization_servers=["https://169.254.169.254"])
        observation = await probe(sites, runner)
        assert observation.reason == "auth.token_unavailable"
        assert "169.254.169.254 is a cloud metadata address" in observation.message

    play(scenario)


def test_an_encrypted_server_gets_no_secret_sent_in_plain_text(tmp_path_factory: pytest.TempPathFactory) -> None:
    authority = CertificateAuthority(tmp_path_factory.mktemp("authority"))

    async def run_scenario() -> Observation:
        async with running_oauth_sites() as sites:
            context = authority.server_tls_context("127.0.0.1")
            async with running_server(sites.mcp.handle, context) as sites.mcp.server:
                url = sites.mcp.server.url_of("/mcp", scheme="https")
                sites.set_server_metadata(resource=url)
                async with NetworkAccess(RequestRouting(ca_file=authority.ca_file)) as network:
                    observation = await McpProbeRunner(network).run_probe(with_oauth(url))
                assert "POST /token" not in sites.issuer.lines
                return observation

    assert asyncio.run(run_scenario()).reason == "auth.endpoint_insecure"


# --- a server that is built with the SDK


class IssuedTokens(TokenVerifier):
    """Accepts the token of the scripted authorization server."""

    def __init__(self, resource: str) -> None:
        self._resource = resource

    async def verify_token(self, token: str) -> AccessToken | None:
        if token != "t0ken-number-1":
            return None
        return AccessToken(token=token, client_id="watchdog", scopes=["tools"], resource=self._resource)


def build_sdk_server(url: str, issuer: str) -> Starlette:
    """Accepts only tokens for itself, with the scope `tools`."""
    settings = AuthSettings(
        issuer_url=AnyHttpUrl(issuer),
        resource_server_url=AnyHttpUrl(f"{url}/mcp"),
        required_scopes=["tools"],
        validate_token_resource=True,
    )
    server = MCPServer("Protected", auth=settings, token_verifier=IssuedTokens(f"{url}/mcp"))
    server.tool()(health_check)
    return server.streamable_http_app()


@asynccontextmanager
async def running_application(build: Callable[[str], Starlette]) -> AsyncIterator[str]:
    """The URL of an application, which is built for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(build(url), log_config=None))
        serving = asyncio.create_task(server._serve([listener]))
        await wait_until_async(lambda: server.started)
        try:
            yield url
        finally:
            server.should_exit = True
            await serving


def health_check() -> str:
    return '{"healthy": true}'


def test_a_server_of_the_sdk() -> None:
    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        async with running_application(lambda url: build_sdk_server(url, sites.issuer.url_of(""))) as site:
            url = f"{site}/mcp"
            observation = await runner.run_probe({**with_oauth(url), "tools": ["health_check"]})
            assert observation.outcome is Outcome.PASS, observation.message
            form = sites.issuer.requests[-1].form
            assert form == {"grant_type": "client_credentials", "resource": url, "scope": "tools"}
            sites.issuer.pages["POST /token"] = json_page({"access_token": "another-t0ken"})
            expire_token(runner)
            assert (await runner.run_probe(with_oauth(url))).reason == "http.401"

    play(scenario)


def test_the_authorization_server_of_the_sdk_does_not_support_client_credentials() -> None:
    def build(url: str) -> Starlette:
        return Starlette(routes=create_auth_routes(cast("Any", None), AnyHttpUrl(url)))

    async def scenario(sites: OAuthSites, runner: McpProbeRunner) -> None:
        async with running_application(build) as url:
            sites.set_server_metadata(authorization_servers=[url])
            observation = await probe(sites, runner)
            assert observation.reason == "auth.grant_not_supported", observation.message
            assert url in observation.message

    play(scenario)
