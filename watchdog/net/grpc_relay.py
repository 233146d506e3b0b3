"""Lets gRPC's library talk to a target over a connection of Watchdog's own.

The library resolves names, connects and negotiates TLS by itself, without the address filter, without Watchdog's TLS
options, and with errors that do not state the cause. So it connects to a Unix socket of this process instead, and what
it sends there is passed on, in both directions.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

from watchdog.domain.text import truncate_to_single_line
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.foreign_protocol import MAX_FOREIGN_BANNER_BYTES, find_foreign_protocol_error
from watchdog.net.http2_frames import Http2FrameScanner
from watchdog.net.phases import PhaseTimer
from watchdog.net.received_body import format_binary_byte_size
from watchdog.net.target_connection import TARGET_READ_CHUNK_BYTES, TargetConnection

MAX_GRPC_RECEIVED_BYTES = 256 << 10
"""Of the whole connection. The response to a health check has a few bytes."""


class GrpcRelay:
    """Accepts one connection at `address`, and passes on bytes until one side closes. `close` ends it."""

    def __init__(self, connection: TargetConnection, phase_timer: PhaseTimer, tls_remedy: str) -> None:
        self._connection, self._phase_timer, self._tls_remedy = connection, phase_timer, tls_remedy
        self.frames = Http2FrameScanner()
        self.failure: Exception | None = None
        """Why nothing more can be passed on."""
        self.is_closed_by_target = False
        self._response_start = bytearray()
        self._library: socket.socket | None = None
        """The connection that the library has made."""
        self._tasks: list[asyncio.Task[None]] = []
        self._folder = tempfile.mkdtemp(prefix="watchdog-grpc-")  # only this user can connect to a socket in it
        try:
            self._listener = _listen_at_unix_socket(self._socket_path)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    @classmethod
    def start(cls, connection: TargetConnection, phase_timer: PhaseTimer, tls_remedy: str) -> Self:
        """Raises ProbeError (internal) if this machine cannot create a Unix socket."""
        try:
            return cls(connection, phase_timer, tls_remedy)
        except OSError as os_error:
            raise build_probe_error_from_exception(os_error) or ProbeError.from_reason(
                "watchdog.temporary_folder", problem=os_error.strerror or str(os_error)
            ) from None

    @property
    def address(self) -> str:
        """The target of a channel."""
        return f"unix:{self._socket_path}"

    async def close(self) -> None:
        """Raises what is a bug."""
        if self._library is None:
            self._remove_listener()
            return
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.wait(self._tasks)
        finally:
            self._library.close()
        for task in self._tasks:
            if not task.cancelled() and (bug := task.exception()):
                raise bug

    @property
    def _socket_path(self) -> str:
        return str(Path(self._folder, "grpc"))

    def _accept(self) -> None:
        """In a callback, because a task that is cancelled at this moment would lose the connection."""
        try:
            library, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as os_error:  # this process is out of descriptors
            self.failure = os_error
            self._remove_listener()
            return
        self._remove_listener()
        library.setblocking(False)
        self._library = library
        self._tasks = [
            asyncio.create_task(self._pass_on_requests(library)),
            asyncio.create_task(self._pass_on_responses(library)),
        ]

    def _remove_listener(self) -> None:
        if (descriptor := self._listener.fileno()) >= 0:
            asyncio.get_running_loop().remove_reader(descriptor)
            self._listener.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _pass_on_requests(self, library: socket.socket) -> None:
        with suppress(OSError):  # the library has closed its side
            while data := await asyncio.get_running_loop().sock_recv(library, TARGET_READ_CHUNK_BYTES):
                self._connection.write(data)

    async def _pass_on_responses(self, library: socket.socket) -> None:
        try:
            while data := await self._connection.read():
                self._inspect_received(data)
                with suppress(ConnectionError):  # the library has closed its side
                    await asyncio.get_running_loop().sock_sendall(library, data)
            self.is_closed_by_target = True
            if self._response_start and not self.frames.has_first_frame:
                raise self._build_not_http2_error()
        except (ProbeError, OSError) as error:
            self.failure = error
        finally:
            with suppress(OSError):
                library.shutdown(socket.SHUT_RDWR)  # the library's call ends

    def _inspect_received(self, data: bytes) -> None:
        """Raises ProbeError if the data must not be passed on."""
        self._phase_timer.end_phase("first_byte")
        if self._phase_timer.current_phase != "check":
            self._phase_timer.start_nestable_phase("check")
        if not self.frames.has_first_frame:
            self._response_start += data[: MAX_FOREIGN_BANNER_BYTES - len(self._response_start)]
        self.frames.feed(data)
        if not self.frames.is_http2:
            raise self._build_not_http2_error()
        if self._connection.received_bytes > MAX_GRPC_RECEIVED_BYTES:
            limit = format_binary_byte_size(MAX_GRPC_RECEIVED_BYTES)
            raise ProbeError.from_reason("grpc.invalid_response", problem=f"it is longer than {limit}")

    def _build_not_http2_error(self) -> ProbeError:
        foreign = find_foreign_protocol_error(bytes(self._response_start), self._tls_remedy)
        if foreign and foreign.reason == "protocol.tls_required":
            return foreign
        excerpt = self._response_start.decode(errors="replace")
        return ProbeError.from_reason("protocol.not_http2", excerpt=excerpt, problem="the response is not HTTP/2")

    async def explain_end(self) -> ProbeError | None:
        """Why the library could not complete its call; None: not because of the connection."""
        if isinstance(self.failure, ProbeError):
            return self.failure
        if self.frames.is_call_ended:
            return None
        if self.frames.goaway_text is not None:
            text = truncate_to_single_line(self.frames.goaway_text)
            message = f"the server announces that it closes the connection{f': {text}' if text else ''}"
            return ProbeError("connection.closed", message, retryable=True)
        if self.failure is None and not self.is_closed_by_target:
            return None
        return await self._connection.explain_end(self.failure)


def _listen_at_unix_socket(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.bind(path)
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener
