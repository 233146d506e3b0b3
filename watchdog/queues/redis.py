"""Redis, where several systems keep their jobs: a connection that tries nothing twice, its troubles in our words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator

from watchdog.fields import FROM_FILE
from watchdog.queues.base import LAST, Reach, System, reachable, unreachable
from watchdog.queues.redis_bound import bound
from watchdog.wire.faults import Fault, fault_of
from watchdog.wire.redact import cap

PORT = 6379


def _redis_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("expected redis://host:6379/0, or rediss:// for TLS")
    return text


RedisUrl = Annotated[str, AfterValidator(_redis_url), FROM_FILE]


class RedisSystem(System):
    """A system that keeps its jobs in Redis."""

    needs: ClassVar[tuple[str, ...]] = ("redis",)

    redis: RedisUrl
    """redis://user:password@host:6379/0, or rediss:// for TLS."""

    @property
    def host(self) -> str:
        return host_of(self.redis)

    def opened(self, reach: Reach) -> AbstractAsyncContextManager[Any]:
        """A client. Raises Fault."""
        return opened(self.redis, reach)


def host_of(url: str) -> str:
    return urlsplit(url).hostname or ""


@asynccontextmanager
async def opened(url: str, reach: Reach) -> AsyncIterator[Any]:
    """A client of a Redis that was knocked at first. Raises Fault."""
    await reachable(reach, host_of(url), urlsplit(url).port or PORT)
    async with connected(url, reach.patience) as client:
        yield client


@asynccontextmanager
async def connected(url: str, patience: float) -> AsyncIterator[Any]:
    """A client with one connection that tries nothing twice."""
    import redis.asyncio as redis

    client = redis.Redis.from_url(
        url, decode_responses=True, encoding_errors="replace", socket_timeout=patience,
        socket_connect_timeout=patience, retry=None, single_connection_client=True, redis_connect_func=bound,
    )  # fmt: skip
    try:
        with spoken():
            await client.ping()
        yield client
    finally:
        await client.aclose()


@contextmanager
def spoken() -> Iterator[None]:
    """Redis' troubles in our words. A cancellation gets out, too: before Python 3.12, redis loses one that comes as its
    own waiting for a write ends."""
    import redis.exceptions as refusals

    try:
        yield
    except refusals.AuthenticationError:
        raise unreachable("Redis refuses the password") from None
    except refusals.NoPermissionError as e:
        raise Fault("broker_refused", f"Redis does not allow it: {said(e)}") from None
    except (refusals.ConnectionError, refusals.TimeoutError, OSError) as e:
        fault = fault_of(e)
        raise unreachable(fault.message if fault else said(e)) from None
    except refusals.RedisError as e:
        raise Fault("broker_refused", f"Redis answers: {said(e)}") from None
    except (ValueError, RecursionError):  # what an answer leads to that nobody can read
        raise Fault("broker_refused", "what answers does not speak the protocol of Redis") from None
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def instant(time: Sequence[int | str]) -> int:
    """What the server's clock says, of an answer to TIME, in ms. Raises ValueError where no clock shows that."""
    seconds, micros = map(int, time)
    now = seconds * 1000 + micros // 1000
    if not 0 <= now < LAST:
        raise ValueError(now)
    return now


def said(error: Exception) -> str:
    return cap(" ".join(str(error).split()), 200)
