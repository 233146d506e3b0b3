"""Access tokens by client credentials: one request for all runs, renewed early, and a reason for each fault."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import SecretStr

from tests.support.polling import HANG_S, wait_until_async
from tests.support.scripted_servers import (
    OPEN_DESCRIPTORS,
    CertificateAuthority,
    ConnectionHandler,
    ScriptedServer,
    count_open_descriptors,
    http_response,
    running_server,
    send_parts,
)
from watchdog.domain.formatting import NBSP
from watchdog.domain.model import Outcome
from watchdog.net import NetworkAccess, PhaseTimer, ProbeError, oauth
from watchdog.net.auth import OAuth2ClientCredentials
from watchdog.net.http import HttpRequest, HttpResponse
from watchdog.net.oauth import MAX_TOKEN_LIFETIME_S, OAuthTokenCache
from watchdog.net.proxy import RequestRouting, parse_proxy_url
from watchdog.net.token_endpoint import TokenRequester
from watchdog.service.runner import build_timeout_observation

Run = Callable[[Coroutine[Any, Any, Any]], Any]
CLIENT_SECRET = "cl1ent s:cret/+&"


def credentials_for(token_url: str, **fields: Any) -> OAuth2ClientCredentials:
    return OAuth2ClientCredentials(
        token_url=token_url, client_id="watch dog", client_secret=SecretStr(CLIENT_SECRET), **fields
    )


def token_response(value: str = "t0ken-number-1", **fields: Any) -> bytes:
    return http_response(
        json.dumps({"access_token": value, "token_type": "Bearer", "expires_in": 3600, **fields}).encode(),
        Content_Type="application/json",
    )


class TokenServer:
    """A token endpoint that sends one reply after the other, the last one again and again, and records requests."""

    def __init__(self, *replies: bytes) -> None:
        self.replies = list(replies) or [token_response()]
        self.bodies: list[dict[str, str]] = []
        self.may_reply = asyncio.Event()
        self.may_reply.set()
        self.server: ScriptedServer

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = self.server.request_heads[-1]
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        body = parse_qs((await reader.readexactly(length)).decode())
        self.bodies.append({name: values[0] for name, values in body.items()})
        await self.may_reply.wait()
        writer.write(self.replies.pop(0) if len(self.replies) > 1 else self.replies[0])

    @property
    def request_count(self) -> int:
        return len(self.server.request_heads)

    def credentials(self, **fields: Any) -> OAuth2ClientCredentials:
        return credentials_for(self.server.url_of("/token"), **fields)


@asynccontextmanager
async def running_token_server(*replies: bytes) -> Any:
    token_server = TokenServer(*replies)
    async with running_server(token_server.handle) as token_server.server:
        yield token_server


async def send(
    network: NetworkAccess, target: ScriptedServer, auth: OAuth2ClientCredentials, **options: Any
) -> HttpResponse:
    async with asyncio.timeout(HANG_S):
        return await network.send_http_request(HttpRequest(target.url_of(), auth=auth, **options))


def tokens_received_by(server: ScriptedServer) -> list[str]:
    lines = [line for head in server.request_heads for line in head.split("\r\n")]
    return [line.removeprefix("Authorization: Bearer ") for line in lines if line.startswith("Authorization")]


OK = send_parts(http_response(b"in"))


# --- the request for a token


def test_a_token_is_requested_once_and_sent(run: Run) -> None:
    async def run_scenario() -> None:
        async with running_token_server() as tokens, running_server(OK) as target, NetworkAccess() as network:
            for _ in range(3):
                assert (await send(network, target, tokens.credentials())).body == b"in"
            assert tokens_received_by(target) == ["t0ken-number-1"] * 3
            assert tokens.request_count == 1
            head = tokens.server.request_heads[0]
            assert head.startswith("POST /token HTTP/1.1\r\n")
            assert "Content-Type: application/x-www-form-urlencoded\r\n" in head
            assert tokens.bodies == [{"grant_type": "client_credentials"}]
            encoded = head.partition("Authorization: Basic ")[2].partition("\r\n")[0]
            assert base64.b64decode(encoded) == b"watch%20dog:cl1ent%20s%3Acret%2F%2B%26"

    run(run_scenario())


def test_scope_audience_and_credentials_in_the_body() -> None:
    async def run_scenario() -> None:
        async with running_token_server() as tokens, running_server(OK) as target, NetworkAccess() as network:
            auth = tokens.credentials(scope="read write", audience="https://api.example/", client_auth="body")
            await send(network, target, auth)
            assert tokens.bodies[0] == {
                "grant_type": "client_credentials",
                "scope": "read write",
                "audience": "https://api.example/",
                "client_id": "watch dog",
                "client_secret": CLIENT_SECRET,
            }
            assert "authorization" not in tokens.server.request_heads[0].lower()

    asyncio.run(run_scenario())


def test_concurrent_runs_share_one_request(run: Run) -> None:
    async def run_scenario() -> None:
        async with running_token_server() as tokens, running_server(OK) as target, NetworkAccess() as network:
            tokens.may_reply.clear()
            runs = [asyncio.create_task(send(network, target, tokens.credentials())) for _ in range(20)]
            await wait_until_async(lambda: tokens.request_count == 1)
            await asyncio.sleep(0.05)
            tokens.may_reply.set()
            assert {response.status for response in await asyncio.gather(*runs)} == {200}
            assert tokens.request_count == 1

    run(run_scenario())


def test_tokens_are_kept_apart_by_credentials(run: Run) -> None:
    async def run_scenario() -> None:
        replies = [token_response(f"t0ken-number-{i}") for i in range(3)]
        async with running_token_server(*replies) as tokens, running_server(OK) as target, NetworkAccess() as network:
            for scope in ("a", "b", "a"):
                await send(network, target, tokens.credentials(scope=scope))
            assert tokens_received_by(target) == ["t0ken-number-0", "t0ken-number-1", "t0ken-number-0"]

    run(run_scenario())


def test_a_run_that_is_cancelled_leaves_the_request_to_the_others(run: Run) -> None:
    async def run_scenario() -> None:
        async with running_token_server() as tokens, running_server(OK) as target, NetworkAccess() as network:
            tokens.may_reply.clear()
            first, second = (asyncio.create_task(send(network, target, tokens.credentials())) for _ in range(2))
            await wait_until_async(lambda: tokens.request_count == 1)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            tokens.may_reply.set()
            assert (await second).status == 200
            assert tokens.request_count == 1

    run(run_scenario())


def test_the_last_run_that_is_cancelled_ends_the_request(run: Run) -> None:
    async def run_scenario() -> None:
        async with running_token_server() as tokens, running_server(OK) as target, NetworkAccess() as network:
            tokens.may_reply.clear()
            timer = PhaseTimer()
            request = HttpRequest(target.url_of(), auth=tokens.credentials())
            sending = asyncio.create_task(network.send_http_request(request, timer))
            await wait_until_async(lambda: tokens.request_count == 1)
            sending.cancel()
            following = asyncio.create_task(send(network, target, tokens.credentials()))
            await asyncio.gather(sending, return_exceptions=True)
            await wait_until_async(lambda: tokens.request_count == 2)
            tokens.may_reply.set()
            assert (await following).status == 200
            observation = build_timeout_observation(5_000, timer)
            assert (observation.outcome, observation.reason) == (Outcome.FAIL, "timeout.token")
            assert observation.message == f"timed out after 5{NBSP}s while requesting an access token"

    run(run_scenario())


def test_a_request_goes_through_the_proxy(run: Run, microsocks: int) -> None:
    async def run_scenario() -> None:
        routing = RequestRouting(parse_proxy_url(f"socks5://127.0.0.1:{microsocks}"), proxies_loopback=True)
        async with running_token_server() as tokens, running_server(OK) as target, NetworkAccess(routing) as network:
            response = await send(network, target, tokens.credentials())
            assert (response.status, response.proxy) == (200, f"127.0.0.1:{microsocks}")
            network.routing = RequestRouting(parse_proxy_url("socks5://127.0.0.1:1"), proxies_loopback=True)
            with pytest.raises(ProbeError) as caught:
                await send(network, target, tokens.credentials())
            assert caught.value.reason == "proxy.unreachable"

    run(run_scenario())


@pytest.mark.parametrize("ends_by", ["the deadline of the run", "the limit of token requests"])
def test_a_silent_proxy_is_not_the_fault_of_the_target(run: Run, ends_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts connections, and never begins TLS."""

    async def run_scenario(listener: socket.socket) -> None:
        proxy = f"127.0.0.1:{listener.getsockname()[1]}"
        routing = RequestRouting(parse_proxy_url(f"https://{proxy}"), proxies_loopback=True)
        async with running_token_server() as tokens, running_server(OK) as target, NetworkAccess(routing) as network:
            timer = PhaseTimer()
            request = HttpRequest(target.url_of(), auth=tokens.credentials())
            sending = asyncio.create_task(network.send_http_request(request, timer))
            if ends_by == "the limit of token requests":
                with pytest.raises(ProbeError) as caught:
                    await sending
                assert (caught.value.reason, caught.value.is_internal) == ("proxy.unreachable", True)
                assert proxy in caught.value.message
                return
            accepted, _ = await asyncio.get_running_loop().run_in_executor(None, listener.accept)
            with accepted:
                await asyncio.get_running_loop().run_in_executor(None, accepted.recv, 1)  # the client hello has arrived
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            observation = build_timeout_observation(5_000, timer)
            assert (observation.outcome, observation.reason) == (Outcome.ERROR, "proxy.unreachable")

    monkeypatch.setattr(oauth, "TOKEN_REQUEST_TIMEOUT_S", 0.5 if ends_by == "the limit of token requests" else 30)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        run(run_scenario(listener))


def test_addresses_of_token_endpoints_are_filtered() -> None:
    async def run_scenario() -> ProbeError:
        async with running_server(OK) as target, NetworkAccess() as network:
            with pytest.raises(ProbeError) as caught:
                await send(network, target, credentials_for("http://169.254.169.254/token"))
            assert target.connection_count == 0
            return caught.value

    error = asyncio.run(run_scenario())
    assert error.reason == "auth.token_unavailable"
    assert "169.254.169.254 is a cloud metadata address" in str(error)


# --- lifetimes


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class TokenScenario:
    """A cache whose clock the test sets, and whose requests are answered in order."""

    def __init__(self, *replies: bytes | Exception) -> None:
        self.replies, self.request_count, self.clock = list(replies), 0, Clock()
        self.may_reply = asyncio.Event()
        self.may_reply.set()
        self.cache = OAuthTokenCache(self._send, self.clock, choose_fraction=lambda: 1.0)
        self.requester = TokenRequester(credentials_for("http://idp.example/token"), RequestRouting(), True)

    async def _send(
        self, request: HttpRequest, _timer: PhaseTimer, _now: int, _routing: RequestRouting
    ) -> HttpResponse:
        self.request_count += 1
        reply = self.replies.pop(0)
        await self.may_reply.wait()
        if isinstance(reply, Exception):
            raise reply
        async with running_server(send_parts(reply)) as server, NetworkAccess() as network:
            return await network.send_http_request(HttpRequest(server.url_of()))

    async def token(self, at_s: float) -> str:
        """The token that a run gets so long after the first one."""
        self.clock.now_s = 1_000.0 + at_s
        return await self.cache.get_token(self.requester, PhaseTimer(), 0)

    async def settle(self) -> None:
        await wait_until_async(lambda: len(asyncio.all_tasks()) == 1)


def test_a_token_is_renewed_before_it_expires_while_the_old_one_is_used(run: Run) -> None:
    async def run_scenario() -> None:
        scenario = TokenScenario(token_response("old-t0ken"), token_response("new-t0ken"))
        assert [await scenario.token(at) for at in (0, 3_000, 3_479)] == ["old-t0ken"] * 3
        assert scenario.request_count == 1
        scenario.may_reply.clear()
        assert [await scenario.token(3_481) for _ in range(3)] == ["old-t0ken"] * 3
        await wait_until_async(lambda: scenario.request_count == 2)
        scenario.may_reply.set()
        await scenario.settle()
        assert await scenario.token(3_482) == "new-t0ken"
        assert scenario.request_count == 2

    run(run_scenario())


def test_renewals_are_spread_over_the_end_of_the_lifetime() -> None:
    async def renew_at(fraction: float, expires_in: int) -> float:
        scenario = TokenScenario(token_response("t0ken-1", expires_in=expires_in))
        scenario.cache = OAuthTokenCache(scenario._send, scenario.clock, choose_fraction=lambda: fraction)
        await scenario.token(0)
        token = scenario.cache._entries[scenario.requester].token
        assert token is not None
        return token.renew_at - 1_000

    assert [asyncio.run(renew_at(fraction, 3_600)) for fraction in (0.0, 0.5, 1.0)] == [3_540, 3_510, 3_480]
    assert [asyncio.run(renew_at(fraction, 10)) for fraction in (0.0, 1.0)] == [8, 6]


def test_a_renewal_that_fails_is_repeated_and_the_old_token_used(run: Run) -> None:
    async def run_scenario() -> None:
        down = http_response(status="503 Down")
        scenario = TokenScenario(token_response("old-t0ken"), down, down, token_response("new-t0ken"))
        await scenario.token(0)
        for at_s, requests in ((3_481, 2), (3_482, 2), (3_492, 3), (3_503, 4)):
            assert await scenario.token(at_s) == "old-t0ken"
            await scenario.settle()
            assert scenario.request_count == requests
        assert await scenario.token(3_504) == "new-t0ken"

    run(run_scenario())


def test_a_token_that_has_expired_is_not_used(run: Run) -> None:
    async def run_scenario() -> None:
        scenario = TokenScenario(token_response("old-t0ken"), http_response(status="503 Down"))
        await scenario.token(0)
        with pytest.raises(ProbeError, match=r"^no access token: HTTP 503$"):
            await scenario.token(3_600)

    run(run_scenario())


@pytest.mark.parametrize(
    ("expires_in", "lifetime_s"),
    [
        (60, 60),
        ("60", 60),
        (60.5, 60.5),
        (None, 300),
        ("soon", 300),
        (True, 300),
        ({"a": 1}, 300),
        ([], 300),
        ("NaN", 300),
        ("Infinity", MAX_TOKEN_LIFETIME_S),
        (10**15, MAX_TOKEN_LIFETIME_S),
        (10**400, MAX_TOKEN_LIFETIME_S),
        (0, 0),
        (-5, 0),
        ("-Infinity", 0),
    ],
    ids=str,
)
def test_every_kind_of_lifetime(expires_in: Any, lifetime_s: float) -> None:
    async def run_scenario() -> None:
        scenario = TokenScenario(token_response("t0ken-1", expires_in=expires_in), token_response("t0ken-2"))
        assert await scenario.token(0) == "t0ken-1"
        token = scenario.cache._entries[scenario.requester].token
        assert token is not None
        assert token.expires_at - 1_000 == lifetime_s
        assert await scenario.token(lifetime_s) == "t0ken-2"

    asyncio.run(run_scenario())


def test_a_lifetime_that_is_missing() -> None:
    reply = http_response(b'{"access_token": "t0ken-1"}')
    scenario_token = asyncio.run(TokenScenario(reply).token(0))
    assert scenario_token == "t0ken-1"


def test_a_token_that_the_target_does_not_accept_is_replaced_once_a_minute(run: Run) -> None:
    async def run_scenario() -> None:
        replies = [token_response(f"t0ken-number-{i}") for i in range(4)]
        refusals = [401, 200, 200, 401, 401, 401]
        remaining = iter(refusals)

        async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(http_response(status=f"{next(remaining)} X"))

        async with (
            running_token_server(*replies) as tokens,
            running_server(handle) as target,
            NetworkAccess() as network,
        ):
            clock = Clock()
            network.request_sender.tokens._clock = clock
            assert (await send(network, target, tokens.credentials())).status == 200
            assert tokens_received_by(target) == ["t0ken-number-0", "t0ken-number-1"]
            assert (await send(network, target, tokens.credentials())).status == 200
            assert (await send(network, target, tokens.credentials())).status == 401
            assert tokens.request_count == 2, "another token would be refused as well"
            clock.now_s += 61
            assert (await send(network, target, tokens.credentials())).status == 401
            assert tokens_received_by(target)[3:] == ["t0ken-number-1", "t0ken-number-1", "t0ken-number-2"]

    run(run_scenario())


def test_other_statuses_of_the_target_replace_no_token() -> None:
    async def run_scenario() -> None:
        forbidden = send_parts(http_response(status="403 Forbidden"))
        async with running_token_server() as tokens, running_server(forbidden) as target, NetworkAccess() as network:
            assert (await send(network, target, tokens.credentials())).status == 403
            assert (target.connection_count, tokens.request_count) == (1, 1)

    asyncio.run(run_scenario())


def test_a_token_goes_to_the_first_origin_alone(run: Run) -> None:
    async def run_scenario() -> None:
        async with running_token_server() as tokens, running_server(OK) as other:
            redirecting = send_parts(http_response(status="302 Found", Location=other.url_of()))
            async with running_server(redirecting) as target, NetworkAccess() as network:
                assert (await send(network, target, tokens.credentials(), follow_redirects=True)).body == b"in"
                assert tokens_received_by(target) == ["t0ken-number-1"]
                assert tokens_received_by(other) == []

    run(run_scenario())


# --- faults

FAULTS: dict[str, tuple[ConnectionHandler, str, str]] = {
    "it refuses the client": (
        send_parts(http_response(b'{"error": "invalid_client"}', "401 Unauthorized")),
        *("auth.token_refused", "the token endpoint refuses an access token: HTTP 401 (invalid_client)"),
    ),
    "it refuses the scope": (
        send_parts(http_response(b'{"error": "invalid_scope", "error_description": "no"}', "400 Bad Request")),
        *("auth.token_refused", "the token endpoint refuses an access token: HTTP 400 (invalid_scope)"),
    ),
    "it refuses without a code": (
        send_parts(http_response(b"<html>", "403 Forbidden")),
        *("auth.token_refused", "the token endpoint refuses an access token: HTTP 403"),
    ),
    "its code is no code": (
        send_parts(http_response(json.dumps({"error": f"leaks {CLIENT_SECRET}"}).encode(), "400 Bad Request")),
        *("auth.token_refused", "the token endpoint refuses an access token: HTTP 400"),
    ),
    "it does not exist": (
        send_parts(http_response(b"", "404 Not Found")),
        *("auth.token_refused", "the token endpoint refuses an access token: HTTP 404"),
    ),
    "it redirects": (
        send_parts(http_response(b"", "302 Found", Location="/login")),
        *("auth.token_refused", "the token endpoint refuses an access token: HTTP 302"),
    ),
    "it limits requests": (
        send_parts(http_response(b"", "429 Too Many")),
        *("auth.token_unavailable", "no access token: HTTP 429"),
    ),
    "it is down": (
        send_parts(http_response(b"", "503 Down")),
        *("auth.token_unavailable", "no access token: HTTP 503"),
    ),
    "it closes": (
        send_parts(),
        *("auth.token_unavailable", "no access token: connection closed by the server (127.0.0.1:PORT)"),
    ),
    "it speaks SSH": (
        send_parts(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"),
        *("auth.token_unavailable", "no access token: the response is not HTTP (127.0.0.1:PORT)"),
    ),
    "it sends HTML": (
        send_parts(http_response(b"<html>login</html>")),
        *("auth.token_invalid", "the response of the token endpoint is not usable: it has no access_token"),
    ),
    "it sends a list": (
        send_parts(http_response(b"[1]")),
        *("auth.token_invalid", "the response of the token endpoint is not usable: it has no access_token"),
    ),
    "it sends deep JSON": (
        send_parts(http_response(b"[" * 60_000)),
        *("auth.token_invalid", "the response of the token endpoint is not usable: it has no access_token"),
    ),
    "its token is a number": (
        send_parts(token_response(access_token=7)),
        *("auth.token_invalid", "the response of the token endpoint is not usable: it has no access_token"),
    ),
    "its token injects a header": (
        send_parts(token_response("t0ken\r\nX-Evil: 1")),
        *(
            "auth.token_invalid",
            "the response of the token endpoint is not usable: its access_token cannot be sent in a header",
        ),
    ),
    "its token is enormous": (
        send_parts(token_response("x" * 20_000)),
        *(
            "auth.token_invalid",
            "the response of the token endpoint is not usable: its access_token cannot be sent in a header",
        ),
    ),
    "its token is for another scheme": (
        send_parts(token_response(token_type="DPoP")),
        *("auth.token_invalid", "the response of the token endpoint is not usable: its token_type is not Bearer"),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_token_endpoint_has_a_reason(run: Run, name: str) -> None:
    handler, reason, message = FAULTS[name]

    async def run_scenario() -> None:
        async with running_server(handler) as tokens, running_server(OK) as target, NetworkAccess() as network:
            auth = credentials_for(tokens.url_of("/token?x=y"))
            errors = []
            for _ in range(2):
                with pytest.raises(ProbeError) as caught:
                    await send(network, target, auth)
                errors.append(caught.value)
            assert target.connection_count == 0
            for error in errors:
                assert (error.reason, str(error)) == (reason, message.replace("PORT", str(tokens.port)))
                assert (error.phase, error.is_internal) == ("token", False)
                assert error.retryable == (reason == "auth.token_unavailable")
                assert error.facts["token_endpoint"] == tokens.url_of("/token")
                if ": HTTP " in message:
                    assert error.facts["status"] == int(message.partition(": HTTP ")[2][:3])
                assert "t0ken" not in f"{error} {error.facts} {error.excerpt}"
            assert errors[0] is not errors[1]

    run(run_scenario())


def test_a_token_endpoint_that_refuses_connections(run: Run) -> None:
    async def run_scenario() -> ProbeError:
        async with running_server(OK) as target, NetworkAccess() as network:
            with pytest.raises(ProbeError) as caught:
                await send(network, target, credentials_for("http://127.0.0.1:1/token"))
            return caught.value

    error = run(run_scenario())
    assert (error.reason, str(error)) == (
        "auth.token_unavailable",
        "no access token: connection refused (127.0.0.1:1)",
    )


def test_a_token_endpoint_that_hangs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oauth, "TOKEN_REQUEST_TIMEOUT_S", 0.1)

    async def run_scenario() -> ProbeError:
        hanging = send_parts(delay_s=60)
        async with running_server(hanging) as tokens, running_server(OK) as target, NetworkAccess() as network:
            with pytest.raises(ProbeError) as caught:
                await send(network, target, credentials_for(tokens.url_of()))
            return caught.value

    error = run(run_scenario())
    assert error.reason == "auth.token_unavailable"
    assert str(error).startswith("no access token: no response within 0.1 s (127.0.0.1:")


def test_the_certificate_of_a_token_endpoint_is_verified(tmp_path_factory: pytest.TempPathFactory) -> None:
    authority = CertificateAuthority(tmp_path_factory.mktemp("authority"))

    async def run_scenario() -> None:
        context = authority.server_tls_context("127.0.0.1")
        async with running_server(send_parts(token_response()), context) as tokens, running_server(OK) as target:
            auth = credentials_for(tokens.url_of(scheme="https"))
            async with NetworkAccess(RequestRouting(ca_file=authority.ca_file)) as network:
                assert (await send(network, target, auth)).status == 200
            async with NetworkAccess() as network:
                with pytest.raises(ProbeError) as caught:
                    await send(network, target, auth)
                assert caught.value.reason == "auth.token_unavailable"
                assert "certificate is signed by an unknown authority" in str(caught.value)

    asyncio.run(run_scenario())


# --- secrets and leftovers


def test_tokens_are_masked(run: Run) -> None:
    async def run_scenario() -> None:
        replies = [token_response(f"t0ken-number-{i}") for i in range(3)]
        async with running_token_server(*replies) as tokens, running_server(OK) as target, NetworkAccess() as network:
            assert network.mask_tokens("nothing yet: t0ken-number-0") == "nothing yet: t0ken-number-0"
            await send(network, target, tokens.credentials())
            assert network.mask_tokens("Bearer t0ken-number-0!") == "Bearer •••!"
            entry = next(iter(network.request_sender.tokens._entries.values()))
            assert entry.token is not None
            entry.token = entry.token._replace(expires_at=0)
            await send(network, target, tokens.credentials())
            assert network.mask_tokens("t0ken-number-0 t0ken-number-1") == "••• •••"
            routed = network.route_by(lambda routing: routing)
            assert routed.mask_tokens("t0ken-number-1") == "•••"

    run(run_scenario())


async def renew_in_background(network: NetworkAccess, tokens: ScriptedServer, target: ScriptedServer) -> Any:
    """The entry of a token that is being renewed."""
    cache = network.request_sender.tokens
    credentials = credentials_for(tokens.url_of())
    requester = TokenRequester(credentials, RequestRouting(), True)
    entry = cache._entries.setdefault(requester, oauth._TokenEntry())
    entry.token = oauth.AccessToken("t0ken-number-1", renew_at=0, expires_at=float("inf"))
    assert (await send(network, target, credentials)).status == 200
    assert entry.request is not None
    return entry


@pytest.mark.skipif(not OPEN_DESCRIPTORS.exists(), reason="/proc is missing: open descriptors cannot be counted")
def test_nothing_is_left_when_the_network_is_closed(run: Run) -> None:
    async def run_scenario() -> None:
        descriptors = []
        for _ in range(2):
            async with running_server(send_parts(delay_s=60)) as tokens, running_server(OK) as target:
                async with NetworkAccess() as network:
                    entry = await renew_in_background(network, tokens, target)
                await asyncio.gather(entry.request, return_exceptions=True)
            descriptors.append(count_open_descriptors())
        await wait_until_async(lambda: count_open_descriptors() <= descriptors[0])
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    run(run_scenario())
