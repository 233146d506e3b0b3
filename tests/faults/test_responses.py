"""Faults of HTTP responses on real sockets: each has its own reason, and a healthy neighbour is not blamed."""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.probe_runs import run_probe
from tests.support.scripted_servers import (
    ConnectionHandler,
    http_response,
    redirect_to,
    running_server,
    send_forever,
    send_parts,
)
from watchdog.domain.model import Outcome, ResultToRecord
from watchdog.probes.http import HttpProbe


@dataclass(frozen=True)
class ResponseFault:
    """One row: what the target sends, and what has to be reported."""

    name: str
    handler: ConnectionHandler
    reason: str
    facts: tuple[str, ...]
    """Parts of the message."""
    outcome: Outcome = Outcome.FAIL
    expect: tuple[str, ...] = ()
    http: dict[str, Any] = field(default_factory=dict)
    timeout: str = "5s"
    evidence: tuple[str, ...] = ()
    """Parts of the evidence."""
    shares_remedy_with: str = ""
    """The row that has the same reason, because the same has to be done about it."""


OK_JSON = ("body.status == 'ok'",)


def status(line: str, body: bytes = b"", **headers: str) -> ConnectionHandler:
    return send_parts(http_response(body, line, **headers))


def reply(body: bytes, **headers: str) -> ConnectionHandler:
    return send_parts(http_response(body, **headers))


FAULTS = [
    ResponseFault("401", status("401 Unauthorized"), "http.401", ("HTTP 401, expected 2xx",)),
    ResponseFault("403", status("403 Forbidden"), "http.403", ("HTTP 403, expected 2xx",)),
    ResponseFault("404", status("404 Not Found"), "http.404", ("HTTP 404, expected 2xx",)),
    ResponseFault("418", status("418 Teapot"), "http.418", ("HTTP 418, expected 2xx",)),
    ResponseFault(
        "429", status("429 Slow Down", Retry_After="30"), "http.429", ("HTTP 429",), evidence=("retry-after: 30",)
    ),
    ResponseFault("500", status("500 Oops"), "http.500", ("HTTP 500, expected 2xx",)),
    ResponseFault("502", status("502 Bad Gateway"), "http.502", ("HTTP 502, expected 2xx",)),
    ResponseFault(
        "503 with two broken expectations",
        status("503 Busy", b'{"status": "down", "queue": 99}'),
        "http.503",
        ("HTTP 503, expected 2xx", "body.status is 'down'", "body.queue is 99"),
        expect=(*OK_JSON, "body.queue < 50"),
    ),
    ResponseFault("999", status("999 Denied"), "http.999", ("HTTP 999, expected 2xx",)),
    ResponseFault(
        "a redirect that is not followed",
        redirect_to("/login"),
        "http.302",
        ("HTTP 302, expected 2xx",),
        http={"follow_redirects": False},
        evidence=("location: /login",),
    ),
    ResponseFault(
        "redirects in a circle", redirect_to("/again"), "http.too_many_redirects", ("more than 20", "/again")
    ),
    ResponseFault("a redirect to nowhere", redirect_to("ftp://x/"), "http.invalid_redirect", ("ftp://x/",)),
    ResponseFault(
        "an SSH server",
        send_parts(b"SSH-2.0-OpenSSH_9.2\r\n"),
        "protocol.not_http",
        ("not HTTP",),
        evidence=("SSH-2.0",),
    ),
    ResponseFault(
        "a malformed header",
        send_parts(b"HTTP/1.1 200 OK\r\nA B: c\r\n\r\n"),
        "protocol.invalid_response",
        ("not valid HTTP: a header line is malformed",),
    ),
    ResponseFault(
        "endless headers",
        send_forever(b"A: b\r\n" * 999, first=b"HTTP/1.1 200 OK\r\n"),
        "protocol.headers_too_large",
        ("headers",),
    ),
    ResponseFault(
        "a switch of protocols",
        send_parts(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", delay_s=9),
        "protocol.unexpected_upgrade",
        ("HTTP 101",),
    ),
    ResponseFault(
        "interim responses alone",
        send_forever(b"HTTP/1.1 102 Processing\r\n\r\n"),
        "protocol.no_final_response",
        ("20 interim",),
    ),
    ResponseFault(
        "half a body",
        send_parts(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc"),
        "body.truncated",
        ("received 3 bytes, expected 99",),
    ),
    ResponseFault(
        "a body that is not gzip",
        reply(b"plain", Content_Encoding="gzip"),
        "body.invalid_encoding",
        ("not compressed",),
    ),
    ResponseFault(
        "a body over the limit",
        reply(b"x" * 300_000),
        "body.too_large",
        ("256 KiB (max_body)",),
        Outcome.ERROR,
        expect=("body.contains('ok')",),
    ),
    ResponseFault(
        "a compressed body over the limit",
        reply(gzip.compress(b"x" * 300_000), Content_Encoding="gzip"),
        "body.decoded_too_large",
        ("256 KiB (max_body)",),
        Outcome.ERROR,
        expect=("body.contains('ok')",),
    ),
    ResponseFault(
        "an unknown compression",
        reply(b"?", Content_Encoding="compress"),
        "body.unsupported_encoding",
        ("compress",),
        Outcome.ERROR,
        expect=OK_JSON,
    ),
    ResponseFault(
        "half a JSON document", reply(b'{"status": "o'), "json.truncated", ("13 characters",), expect=OK_JSON
    ),
    ResponseFault(
        "a warning in JSON", reply(b'{"status": ok}'), "json.invalid", ("line 1, column 12",), expect=OK_JSON
    ),
    ResponseFault(
        "JSON nested too deeply",
        reply(b'{"status": ' + b"[" * 50_000),
        "json.too_complex",
        ("deeper",),
        Outcome.ERROR,
        expect=OK_JSON,
    ),
    ResponseFault(
        "another value", reply(b'{"status": "bad"}'), "expectation.failed", ("body.status is 'bad'",), expect=OK_JSON
    ),
    ResponseFault(
        "no such field", reply(b'{"state": "ok"}'), "expectation.evaluation_failed", ("status",), expect=OK_JSON
    ),
    ResponseFault(
        "more entries than may be compared",
        reply(json.dumps({"n": list(range(20_000))}).encode()),
        "expectation.over_budget",
        ("more entries than Watchdog allows",),
        Outcome.ERROR,
        expect=("body.n.all(a, body.n.all(b, a >= 0))",),
    ),
    ResponseFault(
        "no response", send_parts(delay_s=9), "timeout.first_byte", ("timed out after 4", "first byte"), timeout="4s"
    ),
    ResponseFault(
        "a response that stops",
        send_parts(b"HTTP/1.1 200 OK\r\nServer: slow\r\nContent-Length: 900\r\n\r\nhalf", delay_s=9),
        "timeout.body",
        ("timed out after 4", "reading the response"),
        timeout="4s",
        evidence=("server: slow", "half", "4 of 900 bytes"),
    ),
    ResponseFault(
        "no answer, only a close",
        send_parts(),
        "connection.closed",
        ("closed by the server", "first byte"),
        shares_remedy_with="closed after the handshake",
    ),
]


async def run_beside_neighbour(fault: ResponseFault) -> tuple[ResultToRecord, ResultToRecord]:
    async with running_server(fault.handler) as target, running_server(reply(b'{"status": "ok"}')) as healthy:
        probe = HttpProbe.model_validate(
            {
                "name": "Target",
                "http": {"url": target.url_of(), **fault.http},
                "expect": list(fault.expect),
                "timeout": fault.timeout,
            }
        )
        neighbour = HttpProbe.model_validate({"name": "Neighbour", "http": healthy.url_of(), "expect": list(OK_JSON)})
        result, neighbour_result = await asyncio.gather(run_probe(probe), run_probe(neighbour))
        return result, neighbour_result


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_its_reason_its_facts_and_its_evidence(fault: ResponseFault) -> None:
    recorded, neighbour = asyncio.run(run_beside_neighbour(fault))
    result, message = recorded.result, recorded.result.message.replace("\N{NO-BREAK SPACE}", " ")
    assert (result.outcome, result.reason) == (fault.outcome, fault.reason), message
    assert [fact for fact in fault.facts if fact not in message] == [], message
    evidence = f"{recorded.evidence.excerpt}\n{recorded.evidence.facts}"
    assert [part for part in fault.evidence if part not in evidence] == [], evidence
    assert (neighbour.result.outcome, neighbour.result.message) == (Outcome.PASS, "")
