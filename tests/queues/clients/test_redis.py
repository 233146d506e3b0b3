"""The Redis client: cancellations, limits, addresses and permissions."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from tests.support.probe_runs import canary_probe, run_probe
from tests.support.redis_server import RedisServer
from tests.support.scripted_servers import CertificateAuthority, running_server
from watchdog.domain.model import Outcome, ResultToRecord
from watchdog.net import name_lookup
from watchdog.net.errors import ProbeError
from watchdog.net.name_lookup import SocketAddress
from watchdog.probes import JobsProbe
from watchdog.queues.clients import redis as redis_client
from watchdog.queues.clients.redis import parse_redis_time_ms, translate_redis_errors


async def _lose_a_cancellation() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


def test_a_cancellation_that_the_client_loses_is_raised() -> None:
    async def run() -> None:
        with translate_redis_errors():
            await _lose_a_cancellation()
        raise AssertionError("the cancellation was lost")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())


@pytest.mark.parametrize(
    "response",
    [
        b":x\r\n",
        b"$abc\r\n",
        b"$-7\r\n",
        b"$2000000000\r\n",
        b"+" + b"a" * 100_000 + b"\r\n",
        b"*1\r\n" * 100_000,
        b">1\r\n:1\r\n" * 100_000,
    ],
)
def test_a_server_that_is_not_redis(response: bytes) -> None:
    report = asyncio.run(_report_for_response(response))
    assert report.result.outcome is Outcome.FAIL, report.result.message
    assert report.result.reason in ("broker.refused", "broker.unreachable")


@pytest.mark.parametrize("response_start", [b"*2000000000\r\n", b"~2000000000\r\n"])
def test_an_endless_response_is_read_up_to_a_limit(response_start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_client, "MAX_REDIS_BYTES_PER_CONNECTION", 1_000_000)
    report = asyncio.run(_report_for_response(response_start + b":1\r\n" * 10_000))
    assert report.result.reason == "broker.refused"
    assert "more than" in report.result.message


def test_other_tasks_run_while_a_long_response_is_read() -> None:
    async def run() -> int:
        stream = asyncio.StreamReader()
        stream.feed_data(b":1\r\n" * 100_000)
        reader = redis_client.RedisReaderWithConnectionByteLimit(stream)
        turns = 0

        async def run_other_task() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other_task = asyncio.create_task(run_other_task())
        for _ in range(100_000):
            await reader.readline()
        other_task.cancel()
        return turns

    assert asyncio.run(run()) >= 100


def test_an_impossible_server_time() -> None:
    assert parse_redis_time_ms((1_700_000_000, 5_000)) == 1_700_000_000_005
    with pytest.raises(ProbeError), translate_redis_errors():
        parse_redis_time_ms((10**18, 0))


async def _report_for_response(response: bytes) -> ResultToRecord:
    """The report of a probe whose server sends this response."""
    connections: list[asyncio.Task[None] | None] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        if await reader.read(1):
            writer.write(response)
            with suppress(ConnectionError):  # the client closes the connection early
                await reader.read()
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        jobs = {"bullmq": {"redis": f"redis://127.0.0.1:{port}", "queue": "mail"}}
        report = await run_probe(JobsProbe.model_validate({"name": "Mail", "jobs": jobs}))
        await asyncio.gather(*filter(None, connections))
        return report


def test_a_deadline_that_the_client_loses_is_raised() -> None:
    async def run() -> None:
        async with asyncio.timeout(0):
            with translate_redis_errors(), suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        asyncio.run(run())


def _resolve_queue_example(host: str, port: int) -> list[SocketAddress]:
    assert host == "queue.example"
    return [(socket.AF_INET, ("127.0.0.1", port))]


def test_the_checked_address_is_the_one_that_is_connected_to(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_lookup, "resolve_host_blocking", _resolve_queue_example)
    url = redis_server.url.replace("127.0.0.1", "queue.example").replace("/0", "/14")  # a database without schedulers
    result = asyncio.run(run_probe(JobsProbe.model_validate({"name": "Cron", "jobs": {"rq": {"redis": url}}}))).result
    assert (result.outcome, result.reason) == (Outcome.FAIL, "job.none_listed"), result.message


def test_celery_connects_to_the_checked_address_too(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_lookup, "resolve_host_blocking", _resolve_queue_example)
    url = redis_server.url.replace("127.0.0.1", ":@queue.example")
    result = asyncio.run(
        run_probe(canary_probe({"celery": {"broker": url, "backend": url}, "finish_within": "1s"}))
    ).result
    assert (result.reason, result.message) == (
        "canary.not_finished",
        "canary job not finished within 1\N{NO-BREAK SPACE}s: 1 waiting",
    )


def test_tls_verifies_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_lookup, "resolve_host_blocking", _resolve_queue_example)
    authority, tls_versions = CertificateAuthority(tmp_path), list[str]()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls_versions.append(writer.get_extra_info("ssl_object").version())

    async def run() -> None:
        for name in ("queue.example", "another.example"):
            async with running_server(respond, authority.server_tls_context(name), read_request=False) as peer:
                url = f"rediss://queue.example:{peer.port}/0?ssl_ca_certs={authority.ca_file}"
                await run_probe(JobsProbe.model_validate({"name": "Cron", "jobs": {"rq": {"redis": url}}}))

    asyncio.run(run())
    assert len(tls_versions) == 1


@pytest.mark.parametrize(("system", "url_field"), [("bullmq", "redis"), ("celery", "broker"), ("rq", "redis")])
def test_a_user_without_permission_for_a_command(redis_server: RedisServer, system: str, url_field: str) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.acl_setuser("sender", True, passwords=["+pw"], keys=["*"], commands=["+@connection", "+info"])
        url = redis_server.url.replace("//", "//sender:pw@")
        job = {system: {url_field: url, "queue": "mail", **({"backend": url} if system == "celery" else {})}}
        try:
            result = asyncio.run(run_probe(canary_probe(job))).result
        finally:
            client.acl_deluser("sender")
    assert (result.outcome, result.reason) == (Outcome.FAIL, "broker.refused")
    assert result.message.startswith("Redis denies access: ")


def test_a_celery_user_that_can_read_and_not_send(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.acl_setuser("sender", True, passwords=["+pw"], keys=["*"], commands=["+@all", "-lpush"])
        url = redis_server.url.replace("//", "//sender:pw@")
        try:
            result = asyncio.run(run_probe(canary_probe({"celery": {"broker": url, "backend": url}}))).result
        finally:
            client.acl_deluser("sender")
    assert (result.outcome, result.reason) == (Outcome.FAIL, "broker.refused")
    assert "'lpush'" in result.message
