"""What we do about habits of the client of Redis."""

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
from watchdog.domain.model import Outcome, RecordedResult
from watchdog.net import connector
from watchdog.net.connector import SocketAddress
from watchdog.net.errors import ProbeError
from watchdog.probes import JobsProbe
from watchdog.queues.clients import redis as redis_client
from watchdog.queues.clients.redis import map_redis_errors, parse_redis_time_ms


async def _loses_a_cancellation() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


def test_a_cancellation_that_the_client_loses_gets_out_yet() -> None:
    async def look() -> None:
        with map_redis_errors():
            await _loses_a_cancellation()
        raise AssertionError("it went on")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(look())


@pytest.mark.parametrize(
    "answer",
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
def test_what_is_no_redis_is_named(answer: bytes) -> None:
    report = asyncio.run(_told(answer))
    assert report.result.outcome is Outcome.FAIL, report.result.message
    assert report.result.reason in ("broker.refused", "broker.unreachable")


@pytest.mark.parametrize("begin", [b"*2000000000\r\n", b"~2000000000\r\n"])
def test_what_has_no_end_is_read_no_further_than_a_bound(begin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_client, "MAX_BYTES_PER_CONNECTION", 1_000_000)
    report = asyncio.run(_told(begin + b":1\r\n" * 10_000))
    assert report.result.reason == "broker.refused"
    assert "more than" in report.result.message


def test_others_have_a_turn_while_a_long_answer_is_read() -> None:
    async def look() -> int:
        stream = asyncio.StreamReader()
        stream.feed_data(b":1\r\n" * 100_000)
        reader = redis_client.BoundedReader(stream)
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        waiting = asyncio.create_task(others())
        for _ in range(100_000):
            await reader.readline()
        waiting.cancel()
        return turns

    assert asyncio.run(look()) >= 100


def test_a_clock_that_shows_no_time_is_an_answer_that_cannot_be_read() -> None:
    assert parse_redis_time_ms((1_700_000_000, 5_000)) == 1_700_000_000_005
    with pytest.raises(ProbeError), map_redis_errors():
        parse_redis_time_ms((10**18, 0))


async def _told(answer: bytes) -> RecordedResult:
    """What is said of somebody who answers so."""
    talks: list[asyncio.Task[None] | None] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(asyncio.current_task())
        if await reader.read(1):
            writer.write(answer)
            with suppress(ConnectionError):  # we hang up on what it still says
                await reader.read()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        jobs = {"bullmq": {"redis": f"redis://127.0.0.1:{port}", "queue": "mail"}}
        report = await run_probe(JobsProbe.model_validate({"name": "Mail", "jobs": jobs}))
        await asyncio.gather(*filter(None, talks))
        return report


def test_a_deadline_that_the_client_loses_is_one_yet() -> None:
    async def look() -> None:
        async with asyncio.timeout(0):
            with map_redis_errors(), suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        asyncio.run(look())


def _known_to_us_alone(host: str, port: int) -> list[SocketAddress]:
    assert host == "queue.example"
    return [(socket.AF_INET, ("127.0.0.1", port))]


def test_a_name_is_looked_up_once_and_what_passed_the_filter_is_connected_to(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "resolve_host", _known_to_us_alone)
    jobs = {"rq": {"redis": redis_server.url.replace("127.0.0.1", "queue.example")}}
    result = asyncio.run(run_probe(JobsProbe.model_validate({"name": "Cron", "jobs": jobs}))).result
    assert result.outcome is Outcome.PASS, result.message


def test_so_is_the_name_of_a_broker_of_celery(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector, "resolve_host", _known_to_us_alone)
    url = redis_server.url.replace("127.0.0.1", ":@queue.example")
    result = asyncio.run(
        run_probe(canary_probe({"celery": {"broker": url, "backend": url}, "finish_within": "1s"}))
    ).result
    assert (result.reason, result.message) == (
        "canary.not_finished",
        "not finished within 1\N{NO-BREAK SPACE}s: 1 waiting",
    )


def test_tls_is_about_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector, "resolve_host", _known_to_us_alone)
    authority, agreed = CertificateAuthority(tmp_path), list[str]()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        agreed.append(writer.get_extra_info("ssl_object").version())

    async def look() -> None:
        for name in ("queue.example", "another.example"):
            async with running_server(talk, authority.server_tls_context(name), read_request=False) as peer:
                url = f"rediss://queue.example:{peer.port}/0?ssl_ca_certs={authority.ca_file}"
                await run_probe(JobsProbe.model_validate({"name": "Cron", "jobs": {"rq": {"redis": url}}}))

    asyncio.run(look())
    assert len(agreed) == 1


@pytest.mark.parametrize(("system", "where"), [("bullmq", "redis"), ("celery", "broker"), ("rq", "redis")])
def test_a_user_without_the_right_to_a_command(redis_server: RedisServer, system: str, where: str) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.acl_setuser("sender", True, passwords=["+pw"], keys=["*"], commands=["+@connection", "+info"])
        url = redis_server.url.replace("//", "//sender:pw@")
        job = {system: {where: url, "queue": "mail", **({"backend": url} if system == "celery" else {})}}
        try:
            result = asyncio.run(run_probe(canary_probe(job))).result
        finally:
            client.acl_deluser("sender")
    assert (result.outcome, result.reason) == (Outcome.FAIL, "broker.refused")
    assert result.message.startswith("Redis denies access: ")


def test_a_user_of_celery_who_may_look_and_not_send(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.acl_setuser("sender", True, passwords=["+pw"], keys=["*"], commands=["+@all", "-lpush"])
        url = redis_server.url.replace("//", "//sender:pw@")
        try:
            result = asyncio.run(run_probe(canary_probe({"celery": {"broker": url, "backend": url}}))).result
        finally:
            client.acl_deluser("sender")
    assert (result.outcome, result.reason) == (Outcome.FAIL, "broker.refused")
    assert "'lpush'" in result.message
