"""Check-ins over a plain socket have the same outcome as with urllib, which sends those that a plain socket cannot."""

from __future__ import annotations

import socket
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.check_in_receiver import HEARTBEAT_TOKEN, FakeCheckInReceiver, unreachable_url
from tests.support.scripted_servers import CertificateAuthority
from watchdog import checkin
from watchdog.cli import exec_post, exec_process
from watchdog.cli.exec_post import CheckInPostError, post_check_in_or_raise

Server = Callable[[bytes], str]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in exec_post._PROXY_ENV_VARS:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def without_urllib(monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*_: object) -> None:
        raise AssertionError("urllib was used")

    monkeypatch.setattr(exec_post, "_post_check_in_with_urllib", unexpected)


@contextmanager
def answering(response: bytes, tls: ssl.SSLContext | None = None, times: int = 1) -> Iterator[tuple[int, list[bytes]]]:
    """A server that answers requests with these bytes. Yields its port, and the list of received requests."""
    requests: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            for _ in range(times):
                connection, _ = listener.accept()
                with tls.wrap_socket(connection, server_side=True) if tls else connection as peer:
                    request = b""
                    while not request.endswith(b"output"):
                        request += peer.recv(65_536)
                    requests.append(request)
                    peer.sendall(response)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1], requests
        thread.join(10)


def post(url: str) -> None:
    post_check_in_or_raise(url, "3", "run", 1.5, b"output")


def error_of(url: str) -> CheckInPostError:
    with pytest.raises(CheckInPostError) as caught:
        post(url)
    return caught.value


@pytest.mark.usefixtures("without_urllib")
def test_a_check_in_arrives(receiver: FakeCheckInReceiver) -> None:
    post(receiver.url + "/")
    ((path, run_id, ago_ms, body),) = receiver.received
    assert (path, run_id, ago_ms, body) == (f"/in/{HEARTBEAT_TOKEN}/3", "run", 1500, "output")


@pytest.mark.usefixtures("without_urllib")
@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 204 No Content\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nX: 1\r\n\r\nHTTP/1.1 201 Created\r\n\r\n",
        b"HTTP/1.1 200",
    ],
)
def test_a_response_is_a_success(response: bytes) -> None:
    with answering(response) as (port, requests):
        post(f"http://127.0.0.1:{port}/in/x")
    head, _, body = requests[0].partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    method, target, version = first.split()
    assert (method, version, body) == ("POST", "HTTP/1.1", b"output")
    assert parse_qs(urlsplit(target).query) == {"rid": ["run"], "ago": ["1500"]}
    assert {f"Host: 127.0.0.1:{port}", "Content-Length: 6", "Connection: close"} <= {*headers}


@pytest.mark.usefixtures("without_urllib")
@pytest.mark.parametrize(
    ("response", "message", "retryable"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "Watchdog answered HTTP 404", False),
        (
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 14\r\n\r\nago: expected\n",
            "Watchdog answered HTTP 400: ago: expected",
            False,
        ),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n<html>\n<p>no</p>", "Watchdog answered HTTP 400", False),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n\xff", "Watchdog answered HTTP 400", False),
        (b"HTTP/1.1 429 Too Many Requests\r\n\r\n", "Watchdog answered HTTP 429", True),
        (b"HTTP/1.1 503 Unavailable\r\n\r\n", "Watchdog answered HTTP 503", True),
        (b"", "connection closed without a response", True),
        (b"SSH-2.0-OpenSSH\r\n", "not an HTTP response", True),
    ],
)
def test_a_response_is_an_error(response: bytes, message: str, retryable: bool) -> None:
    with answering(response) as (port, _):
        error = error_of(f"http://127.0.0.1:{port}/in/x")
    assert (str(error), error.retryable) == (message, retryable)


@pytest.mark.usefixtures("without_urllib")
def test_a_server_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    url = unreachable_url()
    assert (str(error_of(url)), error_of(url).retryable) == ("connection refused", True)
    assert "name" in str(error_of("http://x.invalid/in/y")).lower()
    assert str(error_of("http://127.0.0.1:99999/in/y"))
    monkeypatch.setattr(exec_post, "CHECK_IN_SEND_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert str(error_of(f"http://127.0.0.1:{silent.getsockname()[1]}/in/y")) == "timed out"


@pytest.mark.usefixtures("without_urllib")
def test_https_verifies_the_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = CertificateAuthority(tmp_path)
    tls = authority.server_tls_context("localhost")
    with answering(b"HTTP/1.1 200 OK\r\n\r\n", tls) as (port, _):
        error = error_of(f"https://localhost:{port}/in/x")
        assert "certificate verify failed" in str(error)
        assert error.retryable
    monkeypatch.setenv("SSL_CERT_FILE", authority.ca_file)
    with answering(b"HTTP/1.1 200 OK\r\n\r\n", tls) as (port, requests):
        post(f"https://localhost:{port}/in/x")
    assert requests


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://a.example/", "http://[", "http://a b/", "http://user:pw@h.invalid/", "http://ü.invalid/"]
)
def test_unusual_urls_are_left_to_urllib(url: str) -> None:
    with pytest.raises(checkin.CheckInDeliveryError) as expected:
        checkin.send_check_in_once(url, "3", "run", 0, b"")
    error = error_of(url)
    assert (str(error), error.retryable) == (str(expected.value), expected.value.retryable)


def test_redirects_and_proxies_are_left_to_urllib(
    receiver: FakeCheckInReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "_opener", None)  # it caches the proxies of its first use
    redirect = f"HTTP/1.1 302 Found\r\nLocation: {receiver.url}\r\nConnection: close\r\n\r\n".encode()
    with answering(redirect, times=2) as (port, requests):
        assert str(error_of(f"http://127.0.0.1:{port}/in/x")) == "Watchdog answered HTTP 501"  # to the GET that follows
    assert len(requests) == 2
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{receiver.port}")
    post("http://watchdog.invalid/in/x")
    assert [received.path for received in receiver.received] == ["/in/x/3"]


def test_the_constants_are_those_of_the_library() -> None:
    """`exec` does not import it, because it is slow to load."""
    assert exec_process.CHECK_IN_URL_ENV_VAR == checkin.CHECK_IN_URL_ENV_VAR
    assert exec_process.MAX_WRAPPED_COMMAND_OUTPUT_TAIL_BYTES == checkin.MAX_CHECK_IN_OUTPUT_BYTES
    assert exec_post.CHECK_IN_SEND_TIMEOUT_S == checkin.CHECK_IN_SEND_TIMEOUT_S
