"""The WebSocket probe, with servers that others have written, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pydantic import ValidationError

from tests.support.polling import HANG_S, wait_until_async
from tests.support.ports import find_free_port
from tests.support.probe_runs import EMPTY_MASK, IgnoringLagMonitor, run_probe
from tests.support.scripted_servers import (
    CertificateAuthority,
    ConnectionHandler,
    count_open_descriptors,
    http_response,
    running_server,
    send_parts,
)
from tests.support.scripted_websockets import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    accept_handshake,
    build_frame,
    close_frame,
    open_websocket_and_play,
    read_frame,
    read_to_end,
)
from tests.support.third_party import ThirdPartyServers, listening_process
from watchdog.domain.model import ClaimedSlot, Outcome, ResultToRecord
from watchdog.net import NetworkAccess, SecretMask
from watchdog.net.websocket_session import MAX_WEBSOCKET_EXCERPT_CHARS
from watchdog.probes import WebSocketProbe
from watchdog.service.clock import read_wall_clock_ms
from watchdog.service.runner import RetryingProbeRunner

SERVERS = Path(__file__).parents[1] / "support/protocol_servers"


def build_probe(websocket: Any, **fields: Any) -> WebSocketProbe:
    return WebSocketProbe.model_validate({"name": "Feed", "websocket": websocket, **fields})


async def run_against(
    handler: ConnectionHandler, websocket: dict[str, Any] | None = None, mask: SecretMask = EMPTY_MASK, **fields: Any
) -> ResultToRecord:
    async with running_server(handler, read_request=False) as server:
        url = server.url_of("/feed?key=of-query", scheme="ws")
        return await run_probe(build_probe({"url": url, **(websocket or {})}, **fields), mask=mask)


# --- servers that others have written

SCRIPTS = {"websockets": "websocket_server.py", "uvicorn": "websocket_asgi_server.py", "ws": "websocket_server.cjs"}
"""By the library of the server."""


@dataclass(frozen=True)
class ServerProgram:
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def running(self, pem_file: str = "") -> Iterator[int]:
        """The port of a server."""
        port = find_free_port()
        with listening_process([*self.command, str(port), *([pem_file] if pem_file else [])], port, self.env):
            yield port


@pytest.fixture(scope="module", params=SCRIPTS)
def program(request: pytest.FixtureRequest) -> ServerProgram:
    script = str(SERVERS / SCRIPTS[request.param])
    if not script.endswith(".cjs"):
        return ServerProgram((sys.executable, script))
    peers: ThirdPartyServers = request.getfixturevalue("peers")
    return ServerProgram((peers.node, script), {"NODE_PATH": str(peers.node_modules)})


@pytest.fixture(scope="module")
def plaintext_port(program: ServerProgram) -> Iterator[int]:
    with program.running() as port:
        yield port


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls_port(program: ServerProgram, authority: CertificateAuthority) -> Iterator[int]:
    with program.running(authority.issue_certificate("localhost")) as port:
        yield port


def test_the_handshake_and_a_ping(plaintext_port: int) -> None:
    recorded = asyncio.run(run_probe(build_probe(f"ws://127.0.0.1:{plaintext_port}/feed?key=of-query")))
    assert (recorded.result.outcome, recorded.result.message) == (Outcome.PASS, "")
    assert list(recorded.result.phases) == ["connect", "upgrade", "ping"]
    assert recorded.evidence.facts["address"] == f"127.0.0.1:{plaintext_port}"


def test_a_message_and_its_answer(plaintext_port: int) -> None:
    websocket = {"url": f"ws://127.0.0.1:{plaintext_port}/feed?a=%20b", "send": "grüße", "contains": "echo: grüße"}
    recorded = asyncio.run(run_probe(build_probe(websocket)))
    assert (recorded.result.outcome, recorded.result.message) == (Outcome.PASS, "")
    assert list(recorded.result.phases) == ["connect", "upgrade", "message"]
    assert recorded.evidence.facts["messages"] == 2
    assert recorded.evidence.excerpt.splitlines() == ["path /feed?a=%20b", "echo: grüße"]


def test_the_server_selects_the_subprotocol(plaintext_port: int) -> None:
    url = f"ws://127.0.0.1:{plaintext_port}/feed"
    assert asyncio.run(run_probe(build_probe({"url": url, "subprotocol": "chat.v2"}))).result.message == ""
    refused = asyncio.run(run_probe(build_probe({"url": url, "subprotocol": "chat.v3"})))
    assert refused.result.reason in ("websocket.subprotocol_refused", "http.400")


def test_the_server_closes_with_a_code(plaintext_port: int) -> None:
    recorded = asyncio.run(run_probe(build_probe(f"ws://127.0.0.1:{plaintext_port}/closed")))
    assert recorded.result.reason == "websocket.closed"
    assert "with code 4401 (token expired), before the response to a ping" in recorded.result.message
    assert recorded.evidence.facts["close_code"] == 4401


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_server_with_tls(
    tls_port: int, authority: CertificateAuthority, run: Callable[[Coroutine[Any, Any, ResultToRecord]], ResultToRecord]
) -> None:
    websocket = {"url": f"wss://localhost:{tls_port}/", "tls": {"ca_file": authority.ca_file}}
    recorded = run(run_probe(build_probe(websocket, expect=["cert_days > 1"], prefer=["cert_days >= 100"])))
    assert (recorded.result.outcome, recorded.result.message) == (Outcome.PASS, "")
    assert list(recorded.result.phases) == ["dns", "connect", "tls", "upgrade", "ping"]
    assert recorded.result.measurements == {"cert_days": 89}
    assert "preference" in recorded.result.listings
    assert run(run_probe(build_probe(f"wss://localhost:{tls_port}/"))).result.reason == "tls.untrusted"


# --- the handshake


async def read_handshake(websocket: dict[str, Any], url_userinfo: str = "") -> dict[str, str]:
    """The headers of the request, by lower-case name, and its first line as the name ""."""
    head: dict[str, str] = {}

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        pairs = [line.partition(": ")[::2] for line in lines]
        assert len({name.lower() for name, _ in pairs}) == len(pairs), "a header is sent once"
        head.update({"": first, **{name.lower(): value for name, value in pairs}})
        await send_parts(http_response(b"", "404 Not Found"))(reader, writer)

    async with running_server(refuse, read_request=False) as server:
        url = f"ws://{url_userinfo}127.0.0.1:{server.port}/feed?a=b"
        await run_probe(build_probe({"url": url, **websocket}))
        head["port"] = str(server.port)
    return head


async def test_the_headers_of_the_handshake() -> None:
    head = await read_handshake({"headers": {"Origin": "https://acme.example"}, "subprotocol": "chat.v2"})
    assert head[""] == "GET /feed?a=b HTTP/1.1"
    assert (head["host"], head["user-agent"]) == (f"127.0.0.1:{head['port']}", "watchdog-monitor")
    assert (head["upgrade"], head["connection"], head["sec-websocket-version"]) == ("websocket", "Upgrade", "13")
    assert (head["origin"], head["sec-websocket-protocol"]) == ("https://acme.example", "chat.v2")
    assert "sec-websocket-extensions" not in head


async def test_configured_headers_replace_the_default_ones() -> None:
    headers = {"Host": "feed.acme.example", "user-agent": "other", "X": "grüße €"}
    head = await read_handshake({"headers": headers})
    assert {name: head[name.lower()] for name in headers} == headers


@pytest.mark.parametrize(
    ("websocket", "userinfo", "authorization"),
    [
        ({"auth": {"bearer": "t0ken"}}, "", "Bearer t0ken"),
        ({"auth": {"basic": {"username": "a", "password": "b"}}}, "", "Basic YTpi"),
        ({}, "a:b@", "Basic YTpi"),
        ({"headers": {"Authorization": "Token x"}}, "", "Token x"),
    ],
)
async def test_credentials(websocket: dict[str, Any], userinfo: str, authorization: str) -> None:
    assert (await read_handshake(websocket, userinfo))["authorization"] == authorization


async def test_a_refusal_shows_its_response_without_secrets() -> None:
    response = http_response(
        b'{"error": "no seat for s3cr3t-t0ken"}', "403 Forbidden", X_Request_Id="r1", Set_Cookie="a=b"
    )

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await send_parts(response)(reader, writer)

    recorded = await run_against(refuse, {"auth": {"bearer": "s3cr3t-t0ken"}}, SecretMask(["s3cr3t-t0ken"]))
    assert (recorded.result.reason, recorded.result.message) == ("http.403", "HTTP 403, expected a WebSocket")
    assert recorded.evidence.facts["status"] == 403
    assert recorded.evidence.excerpt == 'HTTP/1.1 403 Forbidden\nx-request-id: r1\n\n{"error": "no seat for •••"}'


async def test_the_body_of_a_refusal_does_not_end() -> None:
    """The fault is known by then, and is not reported as a timeout."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await send_parts(b"HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\n\r\nno such", delay_s=HANG_S)(reader, writer)

    recorded = await run_against(refuse, timeout="500ms")
    assert recorded.result.reason == "http.404"
    assert recorded.evidence.excerpt.endswith("\n\nno such")


async def test_the_body_of_a_refusal_is_malformed() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await send_parts(b"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\nno chunk")(reader, writer)

    recorded = await run_against(refuse)
    assert (recorded.result.reason, recorded.evidence.facts["status"]) == ("http.401", 401)


async def test_the_text_of_a_close_frame_is_put_on_one_line() -> None:
    recorded = await run_against(open_websocket_and_play(close_frame(1008, "too\r\n\n many"), read_to_end))
    assert "with code 1008 (policy violation: too many)" in recorded.result.message


# --- messages


@pytest.mark.parametrize(
    ("sentence", "frames"),
    [
        ("in the first message", [build_frame(TEXT, b"a pong")]),
        ("in a later one", [build_frame(TEXT, b"hello"), build_frame(TEXT, b"pong")]),
        ("in parts", [build_frame(TEXT, b"po", fin=False), build_frame(PING, b"x"), build_frame(0, b"ng")]),
        ("in parts of a character", [build_frame(TEXT, b"pong \xc3", fin=False), build_frame(0, b"\xbc")]),
        ("with the handshake", [build_frame(TEXT, b"pong") + close_frame(1000)]),
        ("in a long message", [build_frame(TEXT, b"x" * 200_000 + b"pong")]),
    ],
)
async def test_the_expected_text(sentence: str, frames: list[bytes]) -> None:
    recorded = await run_against(open_websocket_and_play(*frames, read_to_end), {"contains": "pong"})
    assert (recorded.result.outcome, recorded.result.message) == (Outcome.PASS, ""), sentence


async def test_a_pong_that_was_not_asked_for_is_no_response() -> None:
    recorded = await run_against(open_websocket_and_play(build_frame(PONG), read_to_end), timeout="500ms")
    assert recorded.result.reason == "timeout.ping"


async def test_an_interim_response_precedes_the_handshake() -> None:
    async def hint_and_open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        await open_websocket_and_play(build_frame(TEXT, b"pong"), read_to_end)(reader, writer)

    assert (await run_against(hint_and_open, {"contains": "pong"})).result.message == ""


async def test_pings_of_the_server_are_answered() -> None:
    answers: list[tuple[int, bytes]] = []

    async def read_answer(reader: asyncio.StreamReader) -> None:
        answers.append(await read_frame(reader))

    handler = open_websocket_and_play(
        build_frame(PING, b"are you there"), read_answer, build_frame(TEXT, b"pong"), read_to_end
    )
    assert (await run_against(handler, {"contains": "pong"})).result.message == ""
    assert answers == [(PONG, b"are you there")]


@pytest.mark.parametrize("websocket", [{}, {"send": "hello"}, {"send": "hello", "contains": "pong"}])
async def test_the_server_closes_together_with_the_handshake(websocket: dict[str, Any]) -> None:
    recorded = await run_against(open_websocket_and_close_at_once, websocket)
    assert (recorded.result.reason, recorded.evidence.facts["close_code"]) == ("websocket.closed", 1013)


async def open_websocket_and_close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(accept_handshake(await reader.readuntil(b"\r\n\r\n")) + close_frame(1013))
    await read_to_end(reader)


async def test_binary_messages_do_not_matter_without_an_expected_text() -> None:
    handler = open_websocket_and_play(build_frame(BINARY, b"\0"), read_to_end, answers_pings=True)
    recorded = await run_against(handler)
    assert (recorded.result.message, recorded.evidence.facts["messages"]) == ("", 0)


async def test_the_websocket_is_closed_in_an_orderly_way() -> None:
    frames: list[tuple[int, bytes]] = []

    async def read_and_confirm(reader: asyncio.StreamReader) -> None:
        frames.append(await read_frame(reader))

    handler = open_websocket_and_play(build_frame(TEXT, b"pong"), read_and_confirm, close_frame(1000))
    recorded = await run_against(handler, {"contains": "pong"})
    assert (recorded.result.message, frames) == ("", [(CLOSE, (1000).to_bytes(2))])


async def test_a_server_that_does_not_confirm_the_end_delays_no_result() -> None:
    """Even if the deadline is close."""
    handler = open_websocket_and_play(build_frame(TEXT, b"pong"), read_to_end)
    recorded = await run_against(handler, {"contains": "pong"}, timeout="300ms")
    assert (recorded.result.outcome, recorded.result.message) == (Outcome.PASS, "")
    assert sum(recorded.result.phases.values()) == pytest.approx(recorded.result.duration, abs=1)


async def test_the_excerpt_of_messages_is_bounded_and_masked() -> None:
    secret = "s3cr3t-of-the-feed"
    handler = open_websocket_and_play(
        build_frame(TEXT, secret.encode()), *[build_frame(TEXT, b"x" * 3_000)] * 3, read_to_end
    )
    recorded = await run_against(handler, {"contains": "pong"}, SecretMask([secret]), timeout="500ms")
    assert recorded.result.reason == "timeout.message"
    assert recorded.evidence.facts["messages"] == 4
    assert recorded.evidence.excerpt.startswith("•••\nxxx")
    assert len(recorded.evidence.excerpt) < MAX_WEBSOCKET_EXCERPT_CHARS
    closing = open_websocket_and_play(close_frame(1008, f"bad {secret}"), read_to_end)
    recorded = await run_against(closing, {"contains": "pong"}, SecretMask([secret]))
    assert "code 1008 (policy violation: bad •••)" in recorded.result.message


# --- proxies and the address filter


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    recorded = await run_against(open_websocket_and_play(read_to_end, answers_pings=True))
    assert recorded.result.outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("url", "fields"),
    [
        ("ws://169.254.169.254/", {}),
        ("wss://[fe80::1]/", {}),
        ("ws://localhost:9/", {"allow_private_addresses": False}),
        ("ws://127.1:9/", {"allow_private_addresses": False}),
    ],
)
async def test_an_address_that_must_not_be_probed(url: str, fields: dict[str, Any]) -> None:
    assert (await run_probe(build_probe(url, **fields))).result.reason == "connection.address_blocked"


# --- what a run leaves behind


async def read_until_closed(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await read_to_end(reader)


HANDLERS: dict[str, ConnectionHandler] = {
    "it passes": open_websocket_and_play(build_frame(TEXT, b"pong"), read_to_end),
    "it fails": open_websocket_and_play(close_frame(1011), read_to_end),
    "an invalid handshake": send_parts(b"HTTP/1.1 101 OK\r\n\r\n"),
    "refused": send_parts(http_response(b"", "404 Not Found")),
    "the deadline": open_websocket_and_play(read_to_end),
    "the deadline during TLS": read_until_closed,
    "not TLS": send_parts(http_response(b"", "400 Bad Request")),
    "silent": read_until_closed,
    "silent during TLS": read_until_closed,
    "silent after the handshake": open_websocket_and_play(read_to_end),
}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="/proc is missing: descriptors cannot be counted")
@pytest.mark.parametrize("run_in_loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("sentence", HANDLERS)
def test_a_run_leaves_no_descriptor_and_no_task(
    sentence: str, run_in_loop: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def run_scenario() -> None:
        async with NetworkAccess() as network, running_server(HANDLERS[sentence], read_request=False) as server:
            url = server.url_of(scheme="wss" if "TLS" in sentence else "ws")
            timeout = "300ms" if "deadline" in sentence else "60s"
            probe, runs = build_probe({"url": url, "contains": "pong"}, timeout=timeout), list[bool]()
            tasks, descriptor_count = asyncio.all_tasks(), count_open_descriptors()
            for _ in range(3):
                observe = asyncio.create_task(observe_once(network, probe))
                if sentence.startswith("silent"):
                    await wait_until_async(lambda: server.connection_count > len(runs))
                    observe.cancel()
                await asyncio.wait([observe])
                runs.append(observe.cancelled())
                assert runs[-1] == sentence.startswith("silent")
            await wait_until_async(lambda: asyncio.all_tasks() <= tasks)
            await wait_until_async(lambda: count_open_descriptors() <= descriptor_count)

    gc.disable()
    try:
        run_in_loop(run_scenario())
    finally:
        gc.enable()


async def observe_once(network: NetworkAccess, probe: WebSocketProbe) -> ResultToRecord:
    async with IgnoringLagMonitor() as lag:
        runner = RetryingProbeRunner(network, EMPTY_MASK, read_wall_clock_ms, lag, tuple)
        return await runner.run(probe, ClaimedSlot(1, read_wall_clock_ms(), "local", None), {})


# --- configuration


@pytest.mark.parametrize(
    ("websocket", "target", "endpoint", "may_change"),
    [
        ("wss://feed.acme.example/p?token=x", "wss://feed.acme.example/p", "feed.acme.example:443", False),
        ("ws://user:pass@feed.acme.example", "ws://feed.acme.example", "feed.acme.example:80", False),
        ({"url": "ws://[::1]:8080/", "send": "x"}, "ws://[::1]:8080/", "[::1]:8080", True),
    ],
)
def test_the_target(websocket: Any, target: str, endpoint: str, may_change: bool) -> None:
    probe = build_probe(websocket)
    assert (probe.target, probe.network_endpoint, probe.may_change_target) == (target, endpoint, may_change)
    assert probe.may_run_without_store is not may_change


URL = "wss://feed.acme.example/"


@pytest.mark.parametrize(
    ("websocket", "fields", "message"),
    [
        ("https://feed.acme.example/", {}, "expected a URL that starts with wss:// or ws://"),
        ("wss://", {}, "the URL has no host"),
        ("wss://a b/", {}, "invalid host name"),
        ({"url": URL, "send": ""}, {}, "at least 1"),
        ({"url": URL, "send": "x" * 10_001}, {}, "at most 10000"),
        ({"url": URL, "contains": ""}, {}, "at least 1"),
        ({"url": URL, "max_message": "17MiB"}, {}, "expected 1KiB to 16MiB"),
        ({"url": URL, "subprotocol": "a b"}, {}, "expected one word"),
        ({"url": URL, "headers": {"Upgrade": "x"}}, {}, "Watchdog sets this header itself"),
        ({"url": URL, "headers": {"Sec-WebSocket-Key": "x"}}, {}, "Watchdog sets this header itself"),
        ({"url": URL, "headers": {"Sec-WebSocket-Protocol": "x"}}, {}, "set subprotocol instead"),
        ({"url": URL, "headers": {"Authorization": "x"}, "auth": {"bearer": "x"}}, {}, "cannot be combined"),
        ({"url": "ws://a/", "tls": {"verify": False}}, {}, "no effect with ws://"),
        ("ws://a/", {"prefer": ["cert_days > 1"]}, "cert_days requires TLS: use wss://"),
    ],
)
def test_an_invalid_configuration(websocket: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        build_probe(websocket, **fields)
    assert message in str(caught.value)


def test_without_the_package_the_error_states_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchdog.probes.websocket.find_spec", lambda name: None)
    with pytest.raises(ValidationError, match=r"package websockets: install Watchdog with the `websocket` extra"):
        build_probe(URL)
