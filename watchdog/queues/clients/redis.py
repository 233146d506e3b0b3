"""Redis, where several systems keep their jobs: a connection that tries nothing twice, its troubles in our words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator

from watchdog.config_types import ALLOW_FROM_FILE, split_url
from watchdog.domain.text import to_single_line
from watchdog.domain.timestamps import MAX_EPOCH_MS
from watchdog.net.errors import ProbeError, error_from_exception
from watchdog.queues.base import ConnectContext, QueueDriver, broker_unreachable_error, resolve_reachable_address
from watchdog.queues.clients.redis_limits import install_bounded_reader

DEFAULT_REDIS_PORT = 6379


def _validate_redis_url(text: str) -> str:
    split_url(text, ("redis", "rediss"), "redis://host:6379/0, or rediss:// for TLS")
    return text


RedisUrl = Annotated[str, AfterValidator(_validate_redis_url), ALLOW_FROM_FILE]


class RedisQueueDriver(QueueDriver):
    """A system that keeps its jobs in Redis."""

    required_modules: ClassVar[tuple[str, ...]] = ("redis",)

    redis: RedisUrl
    """`redis://user:password@host:6379/0`, or `rediss://` for TLS."""

    @property
    def host(self) -> str:
        return url_host(self.redis)

    def open_client(self, context: ConnectContext) -> AbstractAsyncContextManager[Any]:
        """A client. Raises Fault."""
        return open_redis_client(self.redis, context)


def url_host(url: str) -> str:
    return urlsplit(url).hostname or ""


@asynccontextmanager
async def open_redis_client(url: str, context: ConnectContext) -> AsyncIterator[Any]:
    """A client of a Redis, with one connection, to the address that passed our filter, that tries nothing twice. Raises
    Fault."""
    import redis.asyncio as redis

    address = await resolve_reachable_address(context, url_host(url), urlsplit(url).port or DEFAULT_REDIS_PORT)
    client = redis.Redis.from_url(
        url,
        decode_responses=True,
        encoding_errors="replace",
        socket_timeout=context.timeout_s,
        socket_connect_timeout=context.timeout_s,
        retry=None,
        single_connection_client=True,
        redis_connect_func=install_bounded_reader,
    )
    client.connection_pool.connection_class = _pin_connection_address(client.connection_pool.connection_class, address)
    try:
        with map_redis_errors():
            await client.ping()
        yield client
    finally:
        await client.aclose()


def _pin_connection_address(connection_class: Any, address: str) -> Any:
    """A kind of connection that asks nobody again where its host is."""

    class Led(connection_class):  # type: ignore[misc] # of whichever kind
        def _connection_arguments(self) -> dict[str, Any]:
            told = super()._connection_arguments()
            name = {"server_hostname": told["host"]} if "ssl" in told else {}  # TLS is about the name
            return {**told, **name, "host": address}

    return Led


@contextmanager
def map_redis_errors() -> Iterator[None]:
    """Redis' troubles in our words. A cancellation gets out, too: before Python 3.12, redis loses one that comes as its
    own waiting for a write ends."""
    import redis.exceptions as refusals

    try:
        yield
    except refusals.AuthenticationError:
        raise broker_unreachable_error("Redis refuses the password") from None
    except refusals.NoPermissionError as e:
        raise ProbeError("broker.refused", f"Redis does not allow it: {redis_error_message(e)}") from None
    except (refusals.ConnectionError, refusals.TimeoutError, OSError) as e:
        fault = error_from_exception(e)
        raise broker_unreachable_error(fault.message if fault else redis_error_message(e)) from None
    except refusals.RedisError as e:
        raise ProbeError("broker.refused", f"Redis answers: {redis_error_message(e)}") from None
    except (ValueError, RecursionError):  # what an answer leads to that nobody can read
        raise ProbeError("broker.refused", "what answers does not speak the protocol of Redis") from None
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def parse_redis_time_ms(time: Sequence[int | str]) -> int:
    """What the server's clock says, of an answer to TIME, in ms. Raises ValueError where no clock shows that."""
    seconds, micros = map(int, time)
    now = seconds * 1000 + micros // 1000
    if not 0 <= now < MAX_EPOCH_MS:
        raise ValueError(now)
    return now


def redis_error_message(error: Exception) -> str:
    return to_single_line(str(error))
