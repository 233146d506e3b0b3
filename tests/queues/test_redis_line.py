"""What we do about habits of the client of Redis."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
import redis

from tests.queues.runs import canary, once
from tests.redis_server import Redis
from watchdog.model import Outcome, Report
from watchdog.probes import JobsProbe
from watchdog.queues.redis import spoken


async def _loses_a_cancellation() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


def test_a_cancellation_that_the_client_loses_gets_out_yet() -> None:
    async def look() -> None:
        with spoken():
            await _loses_a_cancellation()
        raise AssertionError("it went on")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(look())


@pytest.mark.parametrize("answer", [b":x\r\n", b"$abc\r\n", b"+" + b"a" * 100_000 + b"\r\n"])
def test_what_is_no_redis_is_named(answer: bytes) -> None:
    talks: list[asyncio.Task[None] | None] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(asyncio.current_task())
        if await reader.read(1):
            writer.write(answer)
            await reader.read()
        writer.close()

    async def look() -> Report:
        async with await asyncio.start_server(talk, "127.0.0.1") as server:
            port = server.sockets[0].getsockname()[1]
            jobs = {"bullmq": {"redis": f"redis://127.0.0.1:{port}", "queue": "mail"}}
            report = await once(JobsProbe.model_validate({"name": "Mail", "jobs": jobs}))
            await asyncio.gather(*filter(None, talks))
            return report

    report = asyncio.run(look())
    assert report.result.outcome is Outcome.FAIL, report.result.message
    assert report.result.reason in ("broker_refused", "broker_unreachable")


def test_a_deadline_that_the_client_loses_is_one_yet() -> None:
    async def look() -> None:
        async with asyncio.timeout(0):
            with spoken(), suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        asyncio.run(look())


@pytest.mark.parametrize(("system", "where"), [("bullmq", "redis"), ("celery", "broker"), ("rq", "redis")])
def test_a_user_without_the_right_to_a_command(redis_server: Redis, system: str, where: str) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.acl_setuser("sender", True, passwords=["+pw"], keys=["*"], commands=["+@connection", "+info"])
        url = redis_server.url.replace("//", "//sender:pw@")
        job = {system: {where: url, "queue": "mail", **({"backend": url} if system == "celery" else {})}}
        try:
            result = asyncio.run(once(canary(job))).result
        finally:
            client.acl_deluser("sender")
    assert (result.outcome, result.reason) == (Outcome.FAIL, "broker_refused")
    assert result.message.startswith("Redis does not allow it: ")


def test_a_user_of_celery_who_may_look_and_not_send(redis_server: Redis) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.acl_setuser("sender", True, passwords=["+pw"], keys=["*"], commands=["+@all", "-lpush"])
        url = redis_server.url.replace("//", "//sender:pw@")
        try:
            result = asyncio.run(once(canary({"celery": {"broker": url, "backend": url}}))).result
        finally:
            client.acl_deluser("sender")
    assert (result.outcome, result.reason) == (Outcome.FAIL, "broker_refused")
    assert "'lpush'" in result.message
