"""`watchdog run`: logs where its pages are, stops on a signal, and explains in one line why it cannot start."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests.support.command_line import run_command
from tests.support.fakes import FakeHttpTarget
from tests.support.watchdog_process import run_watchdog
from watchdog.cli.run import print_page_address_on_terminal
from watchdog.service.process_resources import MAX_WEB_SERVER_CONNECTIONS

Write = Callable[..., Path]


def test_it_logs_where_its_pages_are_and_stops_in_order(write: Write, target: FakeHttpTarget) -> None:
    probe = {"name": "API", "every": "1s", "timeout": "1s", "http": target.url}
    receiver = {"log": {}, "webhook": {"url": target.url}}
    config = write(server={"listen": "127.0.0.1:0"}, probes=[probe], receivers={"oncall": receiver})
    with run_watchdog(config) as run:
        assert run.get().status_code == 200
        assert run.get("readyz").json() == {"status": "ready"}
        with socket.create_connection(("127.0.0.1", int(run.base_url.rpartition(":")[2].strip("/")))) as idler:
            idler.sendall(b"GET / HTTP/1.1\r\nHost: localh")
            assert run.stop() == 0
    assert [line["event"] for line in run.log_entries] == ["started", "stopping", "stopped"]
    assert run.log_entries[0] == run.log_entries[0] | {"url": run.base_url, "probe_count": 1, "destination_count": 2}


@pytest.mark.parametrize("terminals", [("stdout", "stderr"), ("stdout",), ("stderr",), ()], ids=str)
@pytest.mark.parametrize(
    ("public_url", "host", "address"),
    [
        ("https://status.acme.example/", "0.0.0.0", "https://status.acme.example/"),
        ("", "0.0.0.0", "http://127.0.0.1:8080"),
        ("", "::1", "http://[::1]:8080"),
    ],
)
def test_on_a_terminal_it_prints_where_its_pages_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminals: tuple[str, ...],
    public_url: str, host: str, address: str,
) -> None:  # fmt: skip
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(getattr(sys, name), "isatty", lambda name=name: name in terminals)
    print_page_address_on_terminal(public_url, host, 8080)
    line = f"Watchdog is starting. Pages: {address} · Ctrl-C stops it.\n"
    assert capsys.readouterr().out == (line if len(terminals) == 2 else "")


def test_a_port_in_use_is_an_error_before_anything_starts(write: Write, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        config = write(server={"listen": listen})
        ran = run_command("run", "-c", config, cwd=tmp_path)
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert ran.stderr == (
        f"watchdog: cannot listen on {listen}: another program, perhaps another `watchdog run`, uses this address: "
        "stop it, or change `server.listen`\n"
    )
    assert not (tmp_path / "watchdog.db").exists()


def test_an_address_of_another_machine(write: Write, tmp_path: Path) -> None:
    keys = [{"name": "a", "role": "reader", "key": "k" * 20}]
    config = write(server={"listen": "192.0.2.1:8080"}, access={"api_keys": keys})
    ran = run_command("run", "-c", config, cwd=tmp_path)
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert ran.stderr == "watchdog: cannot listen on 192.0.2.1:8080: Cannot assign requested address\n"
    assert not (tmp_path / "watchdog.db").exists()


def test_a_client_that_reads_nothing_does_not_delay_the_shutdown(write: Write, target: FakeHttpTarget) -> None:
    config = write(server={"listen": "127.0.0.1:0"}, probes=[{"name": "API", "http": target.url}])
    with run_watchdog(config) as run, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        slow.connect(("127.0.0.1", int(run.base_url.rpartition(":")[2].strip("/"))))
        slow.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
        assert run.stop() == 0


def test_clients_that_hold_connections_delay_no_probe_and_no_other_client(write: Write, target: FakeHttpTarget) -> None:
    """Each connection is an open file, and their number is limited."""
    config = write(server={"listen": "127.0.0.1:0"}, probes=[{"name": "API", "every": "1s", "http": target.url}])
    more = 40
    with run_watchdog(config) as run, ExitStack() as held:
        place = ("127.0.0.1", int(run.base_url.rpartition(":")[2].strip("/")))
        idlers = [
            held.enter_context(socket.create_connection(place, 10)) for _ in range(MAX_WEB_SERVER_CONNECTIONS + more)
        ]
        for idler in idlers:
            with suppress(OSError):
                idler.sendall(b"GET / HTTP/1.1\r\nHost: localh")
        assert run.get("healthz").status_code == 200
        assert sum(map(_is_over, idlers)) > more
        assert run.stop() == 0


@pytest.mark.parametrize(("trusted_proxies", "is_secure"), [([], False), (["127.0.0.1"], True)])
def test_the_scheme_of_a_proxy_counts_if_it_is_trusted(
    write: Write, trusted_proxies: list[str], is_secure: bool
) -> None:
    keys = [{"name": "ops", "role": "operator", "key": "k" * 30}]
    config = write(server={"listen": "127.0.0.1:0", "trusted_proxies": trusted_proxies}, access={"api_keys": keys})
    with run_watchdog(config) as run:
        headers = {"X-Forwarded-For": "198.51.100.1", "X-Forwarded-Proto": "https"}
        response = httpx.post(
            f"{run.base_url}login", data={"key": "k" * 30}, headers=headers, trust_env=False, timeout=60
        )
    assert response.status_code == 303
    assert ("secure" in response.headers["set-cookie"].lower()) is is_secure


def test_a_request_whose_head_does_not_end_is_refused(write: Write) -> None:
    with run_watchdog(write(server={"listen": "127.0.0.1:0"})) as run:
        place = ("127.0.0.1", int(run.base_url.rpartition(":")[2].strip("/")))
        with socket.create_connection(place, 10) as visitor:
            visitor.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
            with suppress(ConnectionError):  # the server closes while the client still sends
                for n in range(1_000):
                    visitor.sendall(b"X-%d: %s\r\n" % (n, b"x" * 1_000))
                assert visitor.recv(100).startswith(b"HTTP/1.1 400 ")
        with socket.create_connection(place, 30) as visitor:
            cookie = b"Cookie: a=" + b"x" * 60_000
            body = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\n%s\r\nContent-Length: 200000\r\n\r\n" % cookie
            visitor.sendall(body + b"x" * 200_000)
            assert not visitor.recv(100).startswith(b"HTTP/1.1 400 "), "bytes after the head are not counted"
        assert run.get("healthz").status_code == 200


def _is_over(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
