"""Redis as queue systems use it: one connection per run that never retries, with bounded reads and the messages of
Watchdog."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator

from watchdog.config_types import FILE_BACKED_FIELD_MARKER, split_and_validate_url
from watchdog.domain.text import truncate_to_single_line
from watchdog.domain.timestamps import MAX_EPOCH_MS
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.queues.base import (
    QueueConnectContext,
    QueueSystemConfig,
    build_broker_unreachable_error,
    connect_once_to_find_reachable_address,
)

DEFAULT_REDIS_PORT = 6379
MAX_REDIS_BYTES_PER_CONNECTION = 64 * 1024 * 1024
REDIS_CHUNK_OVERHEAD_BYTES = 128
"""Counted for each part of a response besides its own size: roughly the memory that holds it."""
REDIS_CHUNKS_BETWEEN_YIELDS = 1_000
"""After this many parts other tasks run: parts that have already arrived are read without waiting."""


def _validate_redis_url(text: str) -> str:
    split_and_validate_url(text, ("redis", "rediss"), "redis://host:6379/0, or rediss:// for TLS")
    return text


RedisUrl = Annotated[str, AfterValidator(_validate_redis_url), FILE_BACKED_FIELD_MARKER]


class RedisQueueSystemConfig(QueueSystemConfig):
    """A queue system that keeps its jobs in Redis."""

    required_modules: ClassVar[tuple[str, ...]] = ("redis",)

    redis: RedisUrl
    """`redis://user:password@host:6379/0`, or `rediss://` for TLS."""

    @property
    def host(self) -> str:
        return parse_url_host(self.redis)


def parse_url_host(url: str) -> str:
    return urlsplit(url).hostname or ""


# --- the connection


@asynccontextmanager
async def open_redis_client(url: str, context: QueueConnectContext) -> AsyncIterator[Any]:
    """A client with one connection, to the address that passed the address filter, without retries. Raises
    ProbeError."""
    import redis.asyncio as redis

    address = await connect_once_to_find_reachable_address(
        context, parse_url_host(url), urlsplit(url).port or DEFAULT_REDIS_PORT
    )
    client = redis.Redis.from_url(
        url,
        decode_responses=True,
        encoding_errors="replace",
        socket_timeout=context.timeout_s,
        socket_connect_timeout=context.timeout_s,
        retry=None,
        single_connection_client=True,
        redis_connect_func=_install_bounded_reader,
    )
    client.connection_pool.connection_class = _create_address_pinned_redis_connection_class(
        client.connection_pool.connection_class, address
    )
    try:
        with translate_redis_errors():
            await client.ping()
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def open_redis_client_mapping_errors(url: str, context: QueueConnectContext) -> AsyncIterator[Any]:
    """As `open_redis_client`; errors of the commands inside the block are raised as ProbeError as well."""
    async with open_redis_client(url, context) as client:
        with translate_redis_errors():
            yield client


def _create_address_pinned_redis_connection_class(connection_class: Any, address: str) -> Any:
    """A connection class that uses the given address instead of resolving the host's name."""

    class PinnedConnection(connection_class):  # type: ignore[misc] # the base is known at run time only
        def _connection_arguments(self) -> dict[str, Any]:
            arguments = super()._connection_arguments()
            tls = {"server_hostname": arguments["host"]} if "ssl" in arguments else {}  # certificates name the host
            return {**arguments, **tls, "host": address}

    return PinnedConnection


class RedisReaderWithConnectionByteLimit:
    """An asyncio.StreamReader that raises ProbeError once a connection has read more than any queue should hold.

    It also gives other tasks their turn while a large response is parsed.
    """

    def __init__(self, stream: Any) -> None:
        self._stream, self._bytes_left, self._chunk_count = stream, MAX_REDIS_BYTES_PER_CONNECTION, 0

    async def readline(self) -> bytes:
        return await self._read_within_byte_limit(self._stream.readline())

    async def read(self, n: int = -1) -> bytes:
        return await self._read_within_byte_limit(self._stream.read(n))

    async def readexactly(self, n: int) -> bytes:
        if n > self._bytes_left:
            raise _build_redis_response_too_large_error()
        return await self._read_within_byte_limit(self._stream.readexactly(n))

    async def _read_within_byte_limit(self, pending_read: Awaitable[bytes]) -> bytes:
        import asyncio

        chunk = await pending_read
        self._bytes_left -= len(chunk) + REDIS_CHUNK_OVERHEAD_BYTES
        if self._bytes_left < 0:
            raise _build_redis_response_too_large_error()
        self._chunk_count += 1
        if self._chunk_count % REDIS_CHUNKS_BETWEEN_YIELDS == 0:
            await asyncio.sleep(0)
        return chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _build_redis_response_too_large_error() -> ProbeError:
    limit = f"{MAX_REDIS_BYTES_PER_CONNECTION // 1024**2} MB"
    return ProbeError("broker.refused", f"Redis sent more than {limit}, the limit for one connection")


async def _install_bounded_reader(connection: Any) -> None:
    connection._reader = RedisReaderWithConnectionByteLimit(connection._reader)
    await connection.on_connect()


# --- responses


@contextmanager
def translate_redis_errors() -> Iterator[None]:
    """Turns the client's exceptions into ProbeError, and raises a cancellation that the client lost.

    Before Python 3.12, redis swallows a cancellation that arrives just as its own wait for a write ends.
    """
    import asyncio

    import redis.exceptions

    try:
        yield
    except redis.exceptions.AuthenticationError:
        raise build_broker_unreachable_error("Redis rejects the password") from None
    except redis.exceptions.NoPermissionError as e:
        raise ProbeError("broker.refused", f"Redis denies access: {format_redis_error(e)}") from None
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as e:
        error = build_probe_error_from_exception(e)
        raise build_broker_unreachable_error(error.message if error else format_redis_error(e)) from None
    except redis.exceptions.RedisError as e:
        raise ProbeError("broker.refused", f"Redis returned an error: {format_redis_error(e)}") from None
    except (ValueError, RecursionError):  # from parsing a response that is not Redis'
        raise ProbeError("broker.refused", "the server does not speak the Redis protocol") from None
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def parse_redis_time_ms(time: Sequence[int | str]) -> int:
    """The response to TIME in ms since the epoch. Raises ValueError if it is not a credible time."""
    seconds, micros = map(int, time)
    now = seconds * 1000 + micros // 1000
    if not 0 <= now < MAX_EPOCH_MS:
        raise ValueError(now)
    return now


def format_redis_error(error: Exception) -> str:
    return truncate_to_single_line(str(error))
