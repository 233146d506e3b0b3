"""One request and its response on an open connection. Every phase is timed, every length bounded."""

from __future__ import annotations

import asyncio

import h11

from watchdog.domain.model import Evidence
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.foreign_protocol import MAX_FOREIGN_BANNER_BYTES, find_foreign_protocol_error
from watchdog.net.http_head import format_response_head_excerpt
from watchdog.net.phases import PhaseTimer
from watchdog.net.received_body import BoundedBodyCollector

MAX_RESPONSE_HEADER_BYTES = 64 * 1024
MIN_RAW_RESPONSE_BYTES_LIMIT = 1024 * 1024
"""Bytes read from a connection, headers included, if `max_body` is smaller; the rest is not read."""
MAX_INTERIM_RESPONSES = 20
"""Interim (1xx) responses before the final one."""
MAX_RESPONSE_BODY_EXCERPT_BYTES = 5_000
HTTP_READ_CHUNK_BYTES = 16 * 1024
"""Small, because a hostile response costs the most time per byte, and the event loop waits meanwhile."""


class HttpResponseReader:
    """Reads one response within the limits. Keeps in the phase timer what is known of it so far."""

    def __init__(
        self, connection: h11.Connection, reader: asyncio.StreamReader, phase_timer: PhaseTimer, max_body_bytes: int
    ) -> None:
        self._connection, self._reader, self._phase_timer = connection, reader, phase_timer
        self._max_body_bytes = max_body_bytes
        self._response_start, self._raw_bytes_read = b"", 0
        self._status, self._head_text = 0, ""
        self._body: BoundedBodyCollector | None = None
        phase_timer.describe_response = self.build_partial_response_evidence

    def build_partial_response_evidence(self) -> Evidence:
        """What has arrived so far, as evidence."""
        if self._body is None:
            return Evidence({}, self._response_start.decode(errors="replace"))
        facts = {"status": self._status, "received": self._body.progress_text}
        body_start = self._body.decompressed_body_start[:MAX_RESPONSE_BODY_EXCERPT_BYTES].decode(errors="replace")
        return Evidence(facts, f"{self._head_text}\n\n{body_start}".rstrip())

    async def read(self) -> tuple[h11.Response, dict[str, str], BoundedBodyCollector]:
        self._phase_timer.start_nestable_phase("first_byte")
        try:
            response = await self._read_response_head()
            headers = combine_response_headers(response)
            version, phrase = response.http_version.decode(), response.reason.decode(errors="replace")
            self._status = response.status_code
            self._head_text = format_response_head_excerpt(version, self._status, phrase, headers)
            body = await self._read_body(headers)
        except h11.RemoteProtocolError as error:
            raise self._build_malformed_response_error(error) from None
        self._phase_timer.end_phase("body")
        return response, headers, body

    async def _read_response_head(self) -> h11.Response:
        for _ in range(MAX_INTERIM_RESPONSES + 1):
            event = await self._read_next_h11_event()
            if isinstance(event, h11.Response):
                self._switch_phase_timer_to_body()
                return event
            self._phase_timer.end_phase("body")  # proxies send interim responses before the service has responded
            self._phase_timer.start_nestable_phase("first_byte")
        raise ProbeError.from_reason("protocol.no_final_response", limit=str(MAX_INTERIM_RESPONSES))

    async def _read_body(self, headers: dict[str, str]) -> BoundedBodyCollector:
        body = self._body = BoundedBodyCollector(
            headers.get("content-encoding", ""), self._max_body_bytes, headers.get("content-length", "")
        )
        max_raw_bytes = max(MIN_RAW_RESPONSE_BYTES_LIMIT, self._max_body_bytes + MAX_RESPONSE_HEADER_BYTES)
        while isinstance(event := await self._read_next_h11_event(), h11.Data):
            body.feed(event.data)
            if self._raw_bytes_read >= max_raw_bytes:
                body.mark_body_too_long()
                break
        body.finish_and_require_complete_body()
        return body

    async def _read_next_h11_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            if self._raw_bytes_read:
                if foreign := find_foreign_protocol_error(self._response_start):
                    raise foreign
                await asyncio.sleep(0)  # a read returns at once while data is buffered; let other tasks run
            data = await self._reader.read(HTTP_READ_CHUNK_BYTES)
            if not self._raw_bytes_read and not data:
                raise ProbeError("connection.closed", "connection closed by the server", retryable=True)
            self._switch_phase_timer_to_body()
            if len(self._response_start) < MAX_FOREIGN_BANNER_BYTES:
                self._response_start += data[: MAX_FOREIGN_BANNER_BYTES - len(self._response_start)]
            self._raw_bytes_read += len(data)
            self._connection.receive_data(data)
        return event

    def _switch_phase_timer_to_body(self) -> None:
        if self._phase_timer.current_phase == "first_byte":
            self._phase_timer.end_phase("first_byte")
            self._phase_timer.start_nestable_phase("body")

    def _build_malformed_response_error(self, error: h11.RemoteProtocolError) -> ProbeError:
        translated = build_probe_error_from_exception(error) or ProbeError.from_reason(
            "protocol.invalid_response", problem=""
        )
        if translated.reason == "protocol.invalid_response":
            facts = translated.facts
            translated = find_foreign_protocol_error(self._response_start) or translated
            translated.facts |= facts
        translated.excerpt = self._response_start.decode(errors="replace")
        return translated


def combine_response_headers(response: h11.Response) -> dict[str, str]:
    """Lower-case name -> value; repeated ones joined by ", "."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("ascii", "replace"), raw_value.decode(errors="replace")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
