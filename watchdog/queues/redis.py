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
    """A client of a Redis, with one connection, to the address that passed our filter, that tries nothing twice. Raises
    Fault."""
    import redis.asyncio as redis

    address = await reachable(reach, host_of(url), urlsplit(url).port or PORT)
    client = redis.Redis.from_url(
        url, decode_responses=True, encoding_errors="replace", socket_timeout=reach.patience,
        socket_connect_timeout=reach.patience, retry=None, single_connection_client=True, redis_connect_func=bound,
    )  # fmt: skip
    client.connection_pool.connection_class = _led(client.connection_pool.connection_class, address)
    try:
        with spoken():
            await client.ping()
        yield client
    finally:
        await client.aclose()


def _led(kind: Any, address: str) -> Any:
    """A kind of connection that asks nobody again where its host is."""

    class Led(kind):  # type: ignore[misc] # of whichever kind
        def _connection_arguments(self) -> dict[str, Any]:
            told = super()._connection_arguments()
            name = {"server_hostname": told["host"]} if "ssl" in told else {}  # TLS is about the name
            return {**told, **name, "host": address}

    return Led


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
        raise Fault("broker.refused", f"Redis does not allow it: {said(e)}") from None
    except (refusals.ConnectionError, refusals.TimeoutError, OSError) as e:
        fault = fault_of(e)
        raise unreachable(fault.message if fault else said(e)) from None
    except refusals.RedisError as e:
        raise Fault("broker.refused", f"Redis answers: {said(e)}") from None
    except (ValueError, RecursionError):  # what an answer leads to that nobody can read
        raise Fault("broker.refused", "what answers does not speak the protocol of Redis") from None
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
