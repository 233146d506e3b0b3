"""The gRPC probe, with servers of gRPC's own packages, and what it leaves behind."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pydantic import ValidationError

from tests.support.polling import wait_until_async
from tests.support.ports import find_free_port
from tests.support.probe_runs import EMPTY_MASK, IgnoringLagMonitor, run_probe
from tests.support.scripted_http2 import (
    SERVER_PREFACE,
    answer_call,
    grpc_message,
    grpc_status,
    play,
    read_request,
    read_to_end,
)
from tests.support.scripted_servers import (
    CertificateAuthority,
    ConnectionHandler,
    count_open_descriptors,
    running_server,
)
from tests.support.third_party import ThirdPartyServers, listening_process
from watchdog.domain.model import ClaimedSlot, Outcome, ResultToRecord
from watchdog.net import NetworkAccess, SecretMask
from watchdog.probes import GrpcProbe
from watchdog.service.clock import read_wall_clock_ms
from watchdog.service.runner import RetryingProbeRunner

SERVERS = Path(__file__).parents[1] / "support/protocol_servers"
SERVING, NOT_SERVING = grpc_message(b"\x08\x01"), grpc_message(b"\x08\x02")
TOKEN = "Bearer of-the-orders-team"


def build_probe(grpc: Any, **fields: Any) -> GrpcProbe:
    return GrpcProbe.model_validate({"name": "Orders", "grpc": grpc, **fields})


def run(grpc: Any, mask: SecretMask = EMPTY_MASK, **fields: Any) -> ResultToRecord:
    return asyncio.run(run_probe(build_probe(grpc, **fields), mask=mask))


async def run_against(handler: ConnectionHandler, **fields: Any) -> ResultToRecord:
    async with running_server(handler, read_request=False) as server:
        return await run_probe(build_probe(f"127.0.0.1:{server.port}", **fields))


# --- servers that others have written


@contextmanager
def running_grpc_server(
    peers: ThirdPartyServers | None, pem_file: str = "", script: str = "grpc_server", **env: str
) -> Iterator[int]:
    """The port of a server on Node.js, or in Python without `peers`."""
    port = find_free_port()
    program = [sys.executable, str(SERVERS / f"{script}.py")]
    if peers is not None:
        program, env = [peers.node, str(SERVERS / f"{script}.cjs")], {"NODE_PATH": str(peers.node_modules), **env}
    with listening_process([*program, str(port), *([pem_file] if pem_file else [])], port, env):
        yield port


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module", params=["python", "node"])
def grpc_peers(request: pytest.FixtureRequest) -> ThirdPartyServers | None:
    """What a server in this language needs."""
    return request.getfixturevalue("peers") if request.param == "node" else None


@pytest.fixture(scope="module")
def plaintext_port(grpc_peers: ThirdPartyServers | None) -> Iterator[int]:
    with running_grpc_server(grpc_peers) as port:
        yield port


@pytest.fixture(scope="module")
def tls_port(grpc_peers: ThirdPartyServers | None, authority: CertificateAuthority) -> Iterator[int]:
    with running_grpc_server(grpc_peers, authority.issue_certificate("localhost", "orders.example")) as port:
        yield port


@pytest.mark.parametrize(
    ("service", "outcome", "reason", "message"),
    [
        ("", Outcome.PASS, "", ""),
        ("down", Outcome.FAIL, "grpc.not_serving", "the health check reports NOT_SERVING for down"),
        ("starting", Outcome.FAIL, "grpc.health_unknown", "the health check reports UNKNOWN for starting"),
        ("orders.v1.Oders", Outcome.FAIL, "grpc.service_unknown", "the health check has no entry for orders.v1.Oders"),
    ],
)
def test_the_health_of_a_service(
    plaintext_port: int, service: str, outcome: Outcome, reason: str, message: str
) -> None:
    recorded = run({"target": f"127.0.0.1:{plaintext_port}", "service": service})
    assert (recorded.result.outcome, recorded.result.reason, recorded.result.message) == (outcome, reason, message)
    assert list(recorded.result.phases) == ["connect", "first_byte", "check"]
    assert recorded.evidence.facts["address"] == f"127.0.0.1:{plaintext_port}"
    assert recorded.evidence.facts["grpc_status"] == ("NOT_FOUND" if reason == "grpc.service_unknown" else "OK")
    assert recorded.result.duration is not None
    health = {"": "SERVING", "down": "NOT_SERVING", "starting": "UNKNOWN"}
    assert recorded.evidence.facts.get("health") == health.get(service)


def test_a_server_with_tls(tls_port: int, authority: CertificateAuthority) -> None:
    tls = {"ca_file": authority.ca_file}
    recorded = run(
        {"target": f"localhost:{tls_port}", "tls": tls}, prefer=["cert_days >= 100"], expect=["cert_days > 1"]
    )
    assert (recorded.result.outcome, recorded.result.message) == (Outcome.PASS, "")
    assert list(recorded.result.phases) == ["dns", "connect", "tls", "first_byte", "check"]
    assert recorded.result.measurements == {"cert_days": 89}
    [facts] = recorded.result.listings["preference"].subjects.values()
    assert str(facts[0]).startswith("certificate expires in 89 days")
    assert "CN=peer expires on" in str(recorded.evidence.facts["certificate"])
    other = run({"target": f"127.0.0.1:{tls_port}", "tls": {**tls, "server_name": "orders.example"}})
    assert other.result.outcome is Outcome.PASS
    unverified = run({"target": f"127.0.0.1:{tls_port}", "tls": {"verify": False}})
    assert unverified.result.outcome is Outcome.PASS
    untrusted = run({"target": f"127.0.0.1:{tls_port}", "tls": True})
    assert untrusted.result.reason == "tls.untrusted"


def test_a_server_without_a_health_service(peers: ThirdPartyServers) -> None:
    with running_grpc_server(peers, NO_HEALTH="1") as port:
        recorded = run(f"127.0.0.1:{port}")
    message = "the server has no health service (grpc.health.v1.Health)"
    assert (recorded.result.reason, recorded.result.message) == ("grpc.unimplemented", message)
    assert "Health" in str(recorded.evidence.facts["grpc_details"])


def test_metadata_is_sent_and_secrets_are_masked() -> None:
    mask = SecretMask(["Bearer of-another-team"])
    with running_grpc_server(None) as port:
        grpc = {"target": f"127.0.0.1:{port}", "service": "guarded"}
        refused = run({**grpc, "metadata": {"Authorization": "Bearer of-another-team"}}, mask)
        admitted = run({**grpc, "metadata": {"authorization": TOKEN}})
        aborted = run({**grpc, "service": "abort:RESOURCE_EXHAUSTED"})
    message = "the health check for guarded fails with status UNAUTHENTICATED: no access with •••"
    assert (refused.result.reason, refused.result.message) == ("grpc.unauthenticated", message)
    assert "another-team" not in str(refused)
    assert admitted.result.reason == "grpc.service_unknown", "it was let in"
    assert aborted.result.message.endswith("fails with status RESOURCE_EXHAUSTED: as requested by the test")
    assert aborted.evidence.facts["grpc_details"] == "as requested\nby the test"


@pytest.mark.parametrize(("status", "reason"), [("200", "grpc.not_grpc"), ("404", "http.404")])
def test_an_http2_server_that_is_no_grpc_server(peers: ThirdPartyServers, status: str, reason: str) -> None:
    with running_grpc_server(peers, script="http2_server", STATUS=status) as port:
        assert run(f"127.0.0.1:{port}").result.reason == reason


def test_the_request_is_that_of_a_client_that_connects_directly(
    peers: ThirdPartyServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies are not used."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    file = tmp_path / "request.json"
    with running_grpc_server(peers, script="http2_server", REQUEST_FILE=str(file)) as port:
        run({"target": f"127.0.0.1:{port}", "metadata": {"x-Team": "orders"}})
    head = json.loads(file.read_text())
    assert (head[":scheme"], head[":authority"], head[":path"]) == (
        "http",
        f"127.0.0.1:{port}",
        "/grpc.health.v1.Health/Check",
    )
    assert (head["content-type"], head["te"], head["x-team"]) == ("application/grpc", "trailers", "orders")
    assert head["user-agent"].startswith("watchdog-monitor ")
    assert "grpc-timeout" not in head


async def test_over_tls_the_scheme_is_https(tmp_path: Path) -> None:
    """Proxies compare it with the connection."""
    authority, heads = CertificateAuthority(tmp_path), list[bytes]()

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"watchdog-monitor"))
        writer.close()

    context = authority.server_tls_context("127.0.0.1")
    context.set_alpn_protocols(["h2"])

    async def answer_and_record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SERVER_PREFACE)
        await record(reader, writer)

    async with running_server(answer_and_record, context, read_request=False) as server:
        await run_probe(build_probe({"target": f"127.0.0.1:{server.port}", "tls": {"ca_file": authority.ca_file}}))
    [head] = heads
    assert b"\x87" in head, "the entry of HPACK's static table for `:scheme: https`"


# --- the address filter


@pytest.mark.parametrize(
    ("target", "fields", "message"),
    [
        ("169.254.169.254:443", {}, "169.254.169.254 is a cloud metadata address, which is always refused"),
        ("[fe80::1]:50051", {}, "fe80::1 is a link-local address, which is always refused"),
        ("localhost:50051", {"allow_private_addresses": False}, "refused by `allow_private_addresses: false`"),
        ("127.1:50051", {"allow_private_addresses": False}, "refused by `allow_private_addresses: false`"),
        ("[::ffff:127.0.0.1]:50051", {"allow_private_addresses": False}, "refused by"),
    ],
)
def test_an_address_that_must_not_be_probed(target: str, fields: dict[str, Any], message: str) -> None:
    recorded = run(target, **fields)
    assert recorded.result.reason == "connection.address_blocked"
    assert message in recorded.result.message


async def test_a_name_is_resolved_once_and_the_library_connects_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """It connects to a Unix socket of this process alone."""
    lookups: list[str] = []
    resolve = socket.getaddrinfo

    def record_and_resolve(host: str, *rest: Any, **named: Any) -> Any:
        lookups.append(host)
        return resolve(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", record_and_resolve)
    async with running_server(answer_call(SERVING), read_request=False) as server:
        recorded = await run_probe(build_probe(f"localhost:{server.port}"))
        assert recorded.result.outcome is Outcome.PASS, recorded.result.message
        assert (lookups, server.connection_count) == (["localhost"], 1)


# --- what a run leaves behind

HANDLERS: dict[str, ConnectionHandler] = {
    "it passes": answer_call(SERVING),
    "it fails": answer_call(NOT_SERVING),
    "a status": answer_call(grpc_status(14, "draining")),
    "closed": play(SERVER_PREFACE, read_request),
    "not HTTP/2": play(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "the deadline": play(read_to_end),
    "the deadline, after the request": play(SERVER_PREFACE, read_request, read_to_end),
    "silent": play(read_to_end),
    "silent after the settings": play(SERVER_PREFACE, read_to_end),
    "silent after the request": play(SERVER_PREFACE, read_request, read_to_end),
}
Runner = Callable[[Coroutine[Any, Any, None]], None]


def count_threads() -> int:
    """Those of Python and those of libraries."""
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="/proc is missing: threads cannot be counted")
@pytest.mark.parametrize("run_in_loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("sentence", HANDLERS)
def test_a_run_leaves_no_thread_descriptor_task_or_file(
    sentence: str, run_in_loop: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it need the garbage collector for that."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def run_scenario() -> None:
        async with NetworkAccess() as network, running_server(HANDLERS[sentence], read_request=False) as server:
            timeout = "300ms" if "deadline" in sentence else "60s"
            probe, runs = build_probe(f"127.0.0.1:{server.port}", timeout=timeout), list[bool]()
            probe.preload()
            tasks, descriptor_count, thread_count = asyncio.all_tasks(), count_open_descriptors(), count_threads()
            for _ in range(3):
                observe = asyncio.create_task(observe_once(network, probe))
                if sentence.startswith("silent"):
                    await wait_until_async(lambda: server.connection_count > len(runs))
                    await wait_until_async(lambda: count_threads() > thread_count)
                    observe.cancel()
                await asyncio.wait([observe])
                runs.append(observe.cancelled())
                assert runs[-1] == sentence.startswith("silent")
            await wait_until_async(lambda: asyncio.all_tasks() <= tasks)
            await wait_until_async(lambda: count_threads() <= thread_count)
            await wait_until_async(lambda: count_open_descriptors() <= descriptor_count)
        assert threading.active_count() == 1

    gc.disable()
    try:
        run_in_loop(run_scenario())
    finally:
        gc.enable()
    assert list(tmp_path.iterdir()) == []


async def observe_once(network: NetworkAccess, probe: GrpcProbe) -> ResultToRecord:
    async with IgnoringLagMonitor() as lag:
        runner = RetryingProbeRunner(network, EMPTY_MASK, read_wall_clock_ms, lag, tuple)
        return await runner.run(probe, ClaimedSlot(1, read_wall_clock_ms(), "local", None), {})


async def test_runs_at_the_same_time() -> None:
    async with NetworkAccess() as network, running_server(answer_call(SERVING), read_request=False) as server:
        probes = [build_probe(f"127.0.0.1:{server.port}", name=f"P{n}", timeout="60s") for n in range(40)]
        results = await asyncio.gather(*(observe_once(network, probe) for probe in probes))
        assert {recorded.result.message for recorded in results} == {""}


async def test_a_process_is_started_during_a_call(capfd: pytest.CaptureFixture[str]) -> None:
    """The library reacts to a fork with messages, unless that is turned off."""

    async def start_process(_: asyncio.StreamReader) -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "", preexec_fn=os.getpid)
        assert await process.wait() == 0

    recorded = await run_against(play(SERVER_PREFACE, read_request, start_process, SERVING, read_to_end))
    assert (recorded.result.message, capfd.readouterr()) == ("", ("", ""))


async def test_this_machine_cannot_create_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    for place, problem in ((folder, "AF_UNIX path too long"), (tmp_path / "missing", "No such file or directory")):
        monkeypatch.setattr("tempfile.tempdir", str(place))
        recorded = await run_against(answer_call(SERVING))
        assert (recorded.result.outcome, recorded.result.reason) == (Outcome.ERROR, "watchdog.temporary_folder")
        assert problem in recorded.result.message
    assert list(folder.iterdir()) == []


async def test_this_process_is_out_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    class FullListener(socket.socket):
        def accept(self) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

    def listen(path: str) -> socket.socket:
        listener = FullListener(socket.AF_UNIX)
        listener.setblocking(False)
        listener.bind(path)
        listener.listen()
        return listener

    monkeypatch.setattr("watchdog.net.grpc_relay._listen_at_unix_socket", listen)
    recorded = await run_against(answer_call(SERVING))
    assert (recorded.result.outcome, recorded.result.reason) == (Outcome.ERROR, "watchdog.out_of_resources")


# --- configuration


@pytest.mark.parametrize(
    ("grpc", "uses_tls", "target"),
    [
        ("orders.acme.example:443", True, "grpc://orders.acme.example:443"),
        ("orders.acme.example:50051", False, "grpc://orders.acme.example:50051"),
        ({"target": "orders.acme.example:50051", "tls": True}, True, "grpc://orders.acme.example:50051"),
        ({"target": "orders.acme.example:443", "tls": False}, False, "grpc://orders.acme.example:443"),
        ({"target": "[2001:db8::1]:443", "tls": {}, "service": "a.B"}, True, "grpc://[2001:db8::1]:443, service a.B"),
    ],
)
def test_the_target_and_whether_it_uses_tls(grpc: Any, uses_tls: bool, target: str) -> None:
    probe = build_probe(grpc)
    assert (probe.grpc.uses_tls, probe.target) == (uses_tls, target)
    assert probe.network_endpoint == target.removeprefix("grpc://").partition(",")[0]
    assert (probe.may_change_target, probe.may_run_without_store) == (False, True)


@pytest.mark.parametrize(
    ("grpc", "fields", "message"),
    [
        ("https://orders.acme.example:443", {}, "expected a host and a port"),
        ("orders.acme.example", {}, "expected a host and a port without a scheme and path"),
        ("orders.acme.example:443/x", {}, "expected a host and a port without a scheme and path"),
        ("user@orders.acme.example:443", {}, "expected a host and a port without a scheme and path"),
        ("orders.acme.example:70000", {}, "expected a host and a port"),
        ({"target": "a:1", "metadata": {"grpc-timeout": "1"}}, {}, "names that start with grpc- are reserved"),
        ({"target": "a:1", "metadata": {"trace-bin": "1"}}, {}, "binary values, which are not supported"),
        ({"target": "a:1", "metadata": {"x y": "1"}}, {}, "not a valid"),
        ({"target": "a:1", "metadata": {"x!": "1"}}, {}, "not a valid name of metadata"),
        ({"target": "a:1", "metadata": {"User-Agent": "1"}}, {}, "Watchdog sets this header itself"),
        ({"target": "a:1", "metadata": {"x": "ü"}}, {}, "ASCII"),
        ({"target": "a:1", "service": "a\nb"}, {}, "expected the full name of a service"),
        ("a:1", {"prefer": ["cert_days > 1"]}, "cert_days requires TLS: set `tls: true`"),
        ("a:1", {"expect": ["status == 1"]}, "status"),
    ],
)
def test_an_invalid_configuration(grpc: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        build_probe(grpc, **fields)
    assert message in str(caught.value)


def test_without_the_packages_the_error_states_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchdog.probes.grpc.find_spec", lambda name: None if name == "grpc_health" else name)
    with pytest.raises(ValidationError, match=r"grpcio-health-checking: install Watchdog with the `grpc` extra"):
        build_probe("a:1")


async def test_an_expectation_about_the_elapsed_time() -> None:
    recorded = await run_against(answer_call(SERVING), expect=["elapsed_ms < 0"])
    assert (recorded.result.reason, recorded.result.outcome) == ("expectation.failed", Outcome.FAIL)
    assert recorded.result.message.startswith("elapsed_ms is ")
