"""Digest authentication: computed as RFC 7616 does, accepted by real servers, and sent to the right origin alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from tests.support.digest_servers import (
    DIGEST_BODY,
    DIGEST_PASSWORD,
    DIGEST_USER,
    running_apache_with_digest,
    running_lighttpd_with_digest,
)
from tests.support.polling import HANG_S
from tests.support.proxy_servers import find_system_program
from tests.support.scripted_servers import ConnectionHandler, ScriptedServer, http_response, running_server, send_parts
from watchdog.net import NetworkAccess, PhaseTimer
from watchdog.net.auth import HttpDigestAuth
from watchdog.net.digest_auth import DigestChallenge, build_digest_authorization, parse_digest_challenge
from watchdog.net.http import HttpRequest, HttpResponse
from watchdog.net.proxy import RequestRouting, parse_proxy_url

Run = Callable[[Coroutine[Any, Any, Any]], Any]
RFC_NONCE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
RFC_OPAQUE = "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"
RFC_CLIENT_NONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
RFC_CREDENTIALS = HttpDigestAuth(username="Mufasa", password=SecretStr("Circle of Life"))
CREDENTIALS = HttpDigestAuth(username=DIGEST_USER, password=SecretStr(DIGEST_PASSWORD))
OTHER_CREDENTIALS = HttpDigestAuth(username=DIGEST_USER, password=SecretStr("wrong"))


def challenge(**changes: Any) -> DigestChallenge:
    fields = {"realm": "http-auth@example.org", "nonce": RFC_NONCE, "algorithm": "md5", "algorithm_as_sent": "MD5"}
    return DigestChallenge(**{**fields, "opaque": RFC_OPAQUE, "has_qop": True, **changes})


def response_of(authorization: str) -> str:
    match = re.search(r'response="([0-9a-f]+)"', authorization)
    assert match is not None
    return match[1]


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_rfc_7616(algorithm: str, response: str) -> None:
    posed = challenge(algorithm=algorithm.lower(), algorithm_as_sent=algorithm)
    value = build_digest_authorization(posed, RFC_CREDENTIALS, "GET", "/dir/index.html", client_nonce=RFC_CLIENT_NONCE)
    assert value == (
        f'Digest username="Mufasa", realm="http-auth@example.org", nonce="{RFC_NONCE}", uri="/dir/index.html", '
        f'response="{response}", opaque="{RFC_OPAQUE}", cnonce="{RFC_CLIENT_NONCE}", algorithm={algorithm}, qop=auth, '
        "nc=00000001"
    )
    again = build_digest_authorization(posed, RFC_CREDENTIALS, "GET", "/dir/index.html", client_nonce=RFC_CLIENT_NONCE)
    assert "nc=00000002" in again
    assert response_of(again) != response


def test_the_example_of_rfc_2069() -> None:
    posed = challenge(
        realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", algorithm_as_sent="", has_qop=False
    )
    credentials = HttpDigestAuth(username="Mufasa", password=SecretStr("CircleOfLife"))
    value = build_digest_authorization(posed, credentials, "GET", "/dir/index.html", client_nonce="x")
    assert response_of(value) == "1949323746fe6a43ef61f9606e7febea"
    assert "qop" not in value
    assert "cnonce" not in value
    assert "algorithm" not in value


def test_a_user_name_may_be_hashed_and_is_escaped() -> None:
    posed = challenge(algorithm="sha-256", algorithm_as_sent="SHA-256", hashes_username=True)
    value = build_digest_authorization(posed, CREDENTIALS, "GET", "/", client_nonce="x")
    assert re.search(r'username="[0-9a-f]{64}"', value)
    assert value.endswith("userhash=true")
    odd = HttpDigestAuth(username='a"b\\c', password=SecretStr("p"))
    assert r'username="a\"b\\c"' in build_digest_authorization(challenge(), odd, "GET", "/", client_nonce="x")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Digest realm="a", nonce="b"', ("a", "b", "md5", False)),
        ('Digest realm="a",nonce="b",qop="auth,auth-int"', ("a", "b", "md5", True)),
        ('digest REALM="a", Nonce=b, Algorithm=SHA-256, qop=auth', ("a", "b", "sha-256", True)),
        ('Digest realm="a, \\"b\\"", nonce="c=,"', ('a, "b"', "c=,", "md5", False)),
        ('Basic realm="x", Digest realm="a", nonce="b"', ("a", "b", "md5", False)),
        ('Digest realm="a", nonce="b", Basic realm="x"', ("a", "b", "md5", False)),
        ('Negotiate, Digest realm="a", nonce="b", NTLM', ("a", "b", "md5", False)),
        (
            'Digest realm="a", nonce="1", algorithm=MD5, Digest realm="a", nonce="2", algorithm=SHA-256',
            ("a", "2", "sha-256", False),
        ),
        ('Digest realm="a", nonce="1", algorithm=SHA-512-256, Digest realm="a", nonce="2"', ("a", "2", "md5", False)),
        ('Digest realm="a", nonce="b", algorithm=MD5-sess, qop="auth"', ("a", "b", "md5-sess", True)),
    ],
)
def test_the_best_challenge_is_chosen(header: str, expected: tuple[str, str, str, bool]) -> None:
    parsed = parse_digest_challenge(header)
    assert parsed is not None
    assert (parsed.realm, parsed.nonce, parsed.algorithm, parsed.has_qop) == expected


@pytest.mark.parametrize(
    "header",
    [
        *("", 'Basic realm="x"', 'Digest realm="a"', 'Digest realm="a", nonce=""', "Digest", '"', "=,=,"),
        *('Digest realm="a", nonce="b", qop="auth-int"', 'Digest realm="a", nonce="b", algorithm=TOKEN'),
        *('Digest realm="unterminated, nonce="b"', 'Digest realm="a\\', "Digest " + "x" * 9_000),
    ],
)
def test_other_headers_are_no_challenge(header: str) -> None:
    assert parse_digest_challenge(header) is None


# --- real servers


@pytest.fixture(scope="module", params=["apache2-bin", "lighttpd MD5", "lighttpd SHA-256"])
def protected_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a file on a real server."""
    package, _, algorithm = request.param.partition(" ")
    if find_system_program(package.removesuffix("-bin")) is None:
        pytest.skip(f"{package} is missing: apt install {package}")
    with running_lighttpd_with_digest(algorithm) if algorithm else running_apache_with_digest() as url:
        yield url


async def send(network: NetworkAccess, url: str, auth: HttpDigestAuth = CREDENTIALS, **options: Any) -> HttpResponse:
    async with asyncio.timeout(HANG_S):
        return await network.send_http_request(HttpRequest(url, auth=auth, **options))


def test_a_real_server_accepts_the_answer(run: Run, protected_url: str) -> None:
    async def run_scenario() -> None:
        async with NetworkAccess() as network:
            for path in ("", "?a=b%20c&d=ü"):
                for _ in range(3):
                    response = await send(network, protected_url + path)
                    assert (response.status, response.body) == (200, DIGEST_BODY)
            together = await asyncio.gather(*(send(network, protected_url) for _ in range(5)))
            assert {response.status for response in together} == {200}
            assert (await send(network, protected_url, method="HEAD")).status == 200
            assert (await network.send_http_request(HttpRequest(protected_url))).status == 401

    run(run_scenario())


def test_a_real_server_refuses_a_wrong_password(run: Run, protected_url: str) -> None:
    async def run_scenario() -> None:
        async with NetworkAccess() as network:
            assert (await send(network, protected_url, OTHER_CREDENTIALS)).status == 401
            assert (await send(network, protected_url, CREDENTIALS)).status == 200
            assert (await send(network, protected_url, OTHER_CREDENTIALS)).status == 401

    run(run_scenario())


def test_a_real_server_accepts_the_answer_through_a_real_proxy(protected_url: str, tinyproxy: int) -> None:
    async def run_scenario() -> None:
        routing = RequestRouting(parse_proxy_url(f"http://127.0.0.1:{tinyproxy}"), proxies_loopback=True)
        async with NetworkAccess(routing) as network:
            assert [(await send(network, protected_url)).status for _ in range(2)] == [200, 200]

    asyncio.run(run_scenario())


def test_a_nonce_that_has_expired_at_a_real_server_is_replaced() -> None:
    if find_system_program("apache2") is None:
        pytest.skip("apache2-bin is missing: apt install apache2-bin")

    async def run_scenario(url: str) -> None:
        async with NetworkAccess() as network:
            statuses = []
            for _ in range(2):
                statuses.append((await send(network, url)).status)
                await asyncio.sleep(1.1)  # the lifetime is counted in seconds
            assert statuses == [200, 200]

    with running_apache_with_digest(nonce_lifetime_s=1) as url:
        asyncio.run(run_scenario(url))


# --- scripted servers


def challenging_server(*replies: bytes) -> ConnectionHandler:
    """Sends one reply after the other."""
    remaining = iter(replies)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(remaining))
        await writer.drain()

    return handle


def refusal(nonce: str, *, stale: bool = False) -> bytes:
    value = f'Digest realm="r", nonce="{nonce}", qop="auth"{", stale=true" if stale else ""}'
    return http_response(b"no", "401 Unauthorized", WWW_Authenticate=value)


def authorizations(server: ScriptedServer) -> list[str]:
    return [
        (re.findall(r"(?im)^authorization: (.*)\r$", head) or [""])[0].replace("\r", "")
        for head in server.request_heads
    ]


def nonces(server: ScriptedServer) -> list[str]:
    """Of each request, and how often it was used; empty: the request had no credentials."""
    return [
        f"{match[1]} {int(match[2], 16)}" if (match := re.search(r'nonce="(\w+)".*nc=(\w+)', value)) else ""
        for value in authorizations(server)
    ]


OK = http_response(b"in")


@pytest.mark.parametrize(
    ("replies", "statuses", "expected"),
    [
        ([refusal("a"), OK], [200], ["", "a 1"]),
        ([refusal("a"), OK, OK, OK], [200, 200, 200], ["", "a 1", "a 2", "a 3"]),
        ([refusal("a"), OK, refusal("b", stale=True), OK, OK], [200] * 3, ["", "a 1", "a 2", "b 1", "b 2"]),
        ([refusal("a"), refusal("a")], [401], ["", "a 1"]),
        ([refusal("a"), refusal("b")], [401], ["", "a 1"]),
        ([refusal("a"), refusal("b"), refusal("c"), OK], [401, 200], ["", "a 1", "", "c 1"]),
        ([refusal("a"), OK, refusal("a"), refusal("b"), OK], [200, 401, 200], ["", "a 1", "a 2", "", "b 1"]),
        ([OK, OK], [200, 200], ["", ""]),
        ([http_response(status="401 No", WWW_Authenticate="Basic realm=x"), OK], [401, 200], ["", ""]),
        ([http_response(status="401 No"), OK], [401, 200], ["", ""]),
        ([http_response(status="403 No", WWW_Authenticate='Digest realm="r", nonce="a"')], [403], [""]),
    ],
)
def test_a_challenge_is_answered_once_and_remembered(
    run: Run, replies: list[bytes], statuses: list[int], expected: list[str]
) -> None:
    handler = challenging_server(*replies)

    async def run_scenario() -> None:
        async with running_server(handler) as server, NetworkAccess() as network:
            assert [(await send(network, server.url_of("/x"))).status for _ in statuses] == statuses
            assert nonces(server) == expected

    run(run_scenario())


def test_a_body_is_sent_again(run: Run) -> None:
    bodies: list[bytes] = []
    replies = iter([refusal("a"), OK])

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await reader.readexactly(3))
        writer.write(next(replies))

    async def run_scenario() -> None:
        async with running_server(handle) as server, NetworkAccess() as network:
            assert (await send(network, server.url_of(), method="POST", body=b"abc")).status == 200
            assert bodies == [b"abc", b"abc"]

    run(run_scenario())


def test_the_phases_of_both_requests_add_up() -> None:
    handler = challenging_server(refusal("a"), OK)

    async def run_scenario() -> None:
        timer = PhaseTimer()
        async with running_server(handler) as server, NetworkAccess() as network:
            response = await network.send_http_request(HttpRequest(server.url_of(), auth=CREDENTIALS), timer)
            assert sum(timer.phase_durations_ms.values()) <= response.elapsed_ms
            assert timer.current_phase is None
            assert (response.redirect_count, response.body) == (0, b"in")

    asyncio.run(run_scenario())


def test_an_answer_goes_to_the_first_origin_alone(run: Run) -> None:
    async def run_scenario() -> None:
        async with running_server(send_parts(refusal("x"))) as other:
            location = http_response(status="302 Found", Location=other.url_of())
            handler = challenging_server(refusal("a"), location)
            async with running_server(handler) as server, NetworkAccess() as network:
                response = await send(network, server.url_of(), follow_redirects=True)
                assert response.status == 401
                assert nonces(server) == ["", "a 1"]
                assert authorizations(other) == [""]

    run(run_scenario())


def test_another_origin_gets_no_answer_to_its_challenge(run: Run) -> None:
    async def run_scenario() -> None:
        async with running_server(send_parts(refusal("x"))) as other:
            redirecting = send_parts(http_response(status="302 Found", Location=other.url_of()))
            async with running_server(redirecting) as server, NetworkAccess() as network:
                assert (await send(network, server.url_of(), follow_redirects=True)).status == 401
                assert authorizations(other) == [""]

    run(run_scenario())


def test_a_redirect_at_the_same_origin_is_answered_for_its_own_path(run: Run) -> None:
    handler = challenging_server(refusal("a"), http_response(status="302 Found", Location="/b?c=d"), OK)

    async def run_scenario() -> None:
        async with running_server(handler) as server, NetworkAccess() as network:
            assert (await send(network, server.url_of("/a"), follow_redirects=True)).status == 200
            assert nonces(server) == ["", "a 1", "a 2"]
            assert ['uri="/a"' in authorizations(server)[1], 'uri="/b?c=d"' in authorizations(server)[2]] == [True] * 2

    run(run_scenario())


def test_challenges_are_kept_apart_by_credentials(run: Run) -> None:
    handler = challenging_server(refusal("a"), OK, refusal("b"), OK)

    async def run_scenario() -> None:
        async with running_server(handler) as server, NetworkAccess() as network:
            for auth in (CREDENTIALS, OTHER_CREDENTIALS):
                assert (await send(network, server.url_of(), auth)).status == 200
            assert nonces(server) == ["", "a 1", "", "b 1"]

    run(run_scenario())


def test_the_password_is_never_sent(run: Run) -> None:
    handler = challenging_server(refusal("a"), OK)

    async def run_scenario() -> None:
        async with running_server(handler) as server, NetworkAccess() as network:
            await send(network, server.url_of())
            assert all(DIGEST_PASSWORD not in head for head in server.request_heads)

    run(run_scenario())
