"""What has arrived of one HTTP response, over any version of HTTP."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

from watchdog.domain.model import Evidence
from watchdog.net.errors import ProbeError
from watchdog.net.http_head import format_response_head_excerpt, mask_secret_headers
from watchdog.net.phases import PhaseTimer

MAX_RESPONSE_HEADER_BYTES = 64 * 1024
"""Also limits the lines between two chunks of a body, and those after the last one."""
MIN_RAW_RESPONSE_BYTES_LIMIT = 1024 * 1024
"""The minimum of the limit on bytes that are read from a connection, headers included."""
MAX_INTERIM_RESPONSES = 20
"""The permitted number of interim (1xx) responses before the final one."""
MAX_RESPONSE_BODY_EXCERPT_BYTES = 5_000


class ResponseBody(Protocol):
    """Takes the body of a response as it arrives."""

    encoded_bytes: int
    """Received so far."""

    @property
    def progress_text(self) -> str:
        """What has arrived so far: "300 of 5000 bytes"."""

    @property
    def decompressed_body_start(self) -> bytes: ...

    def feed(self, data: bytes) -> None:
        """Raises ProbeError for bad data."""

    def mark_body_too_long(self) -> None:
        """Records that the rest of the body is not read."""

    def finish_and_require_complete_body(self) -> None:
        """Raises ProbeError."""


BodyT = TypeVar("BodyT", bound=ResponseBody)


class ReceivedHttpResponse(ABC, Generic[BodyT]):
    """One response within the limits. Provides the partial response to the phase timer.

    Call `feed` with the received data until `is_complete`, or `feed_eof` if the server closes the connection before.
    Both raise ProbeError. `create_body`: called with the headers once the head is complete.
    """

    def __init__(
        self, phase_timer: PhaseTimer, create_body: Callable[[Mapping[str, str]], BodyT], *, is_head_request: bool
    ) -> None:
        self.is_complete = False
        self.status, self.reason_phrase, self.http_version = 0, "", ""
        self.headers: dict[str, str] = {}
        """Lower-case name -> value; repeated ones joined by ", "."""
        self.raw_headers: list[tuple[bytes, bytes]] = []
        self._phase_timer, self._create_body, self._is_head_request = phase_timer, create_body, is_head_request
        self._body: BodyT | None = None
        """None until the head is complete."""
        self._response_start = b""
        self._interim_response_count = 0
        phase_timer.describe_response = self.build_partial_response_evidence

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Parses received data; of data after the response, only its existence is noted. Raises ProbeError."""

    @abstractmethod
    def feed_eof(self) -> None:
        """Handles that the server has closed the connection. Raises ProbeError if the response is incomplete."""

    @property
    def allows_another_request(self) -> bool:
        """Whether another request may follow on the same connection once this response is complete."""
        return False

    @property
    def has_head(self) -> bool:
        """Whether status and headers of the final response have arrived."""
        return self._body is not None

    @property
    def received_body(self) -> BodyT:
        """Of a response whose head is complete."""
        if self._body is None:
            raise RuntimeError("the head of the response is not complete")
        return self._body

    @property
    def set_cookies(self) -> tuple[str, ...]:
        """The values of the Set-Cookie headers."""
        if "set-cookie" not in self.headers:
            return ()
        return tuple(
            value.decode(errors="replace") for name, value in self.raw_headers if name.lower() == b"set-cookie"
        )

    def build_partial_response_evidence(self) -> Evidence:
        """The response so far, as evidence."""
        if self._body is None:
            return Evidence({}, self._response_start_excerpt)
        head = format_response_head_excerpt(self.http_version, self.status, self.reason_phrase, self.headers)
        body_start = self._body.decompressed_body_start[:MAX_RESPONSE_BODY_EXCERPT_BYTES].decode(errors="replace")
        facts = {"status": self.status, "received": self._body.progress_text}
        return Evidence(facts, f"{head}\n\n{body_start}".rstrip())

    @property
    def _response_start_excerpt(self) -> str:
        return mask_secret_headers(self._response_start.decode(errors="replace"))

    def _begin_body(self) -> None:
        """Status and headers are those of the final response."""
        self._body = self._create_body(self.headers)
        if self._is_head_request:
            self._complete()

    def _complete(self) -> None:
        self.received_body.finish_and_require_complete_body()
        self.is_complete = True
        self._phase_timer.end_phase("body")

    def _find_interim_response_error(self) -> ProbeError | None:
        """The error of an interim response of this status."""
        if self.status == 101:
            return ProbeError.from_reason("protocol.unexpected_upgrade")
        self._interim_response_count += 1
        if self._interim_response_count > MAX_INTERIM_RESPONSES:
            return ProbeError.from_reason("protocol.no_final_response", limit=str(MAX_INTERIM_RESPONSES))
        return None

    def _wait_for_final_response(self) -> None:
        self._phase_timer.end_phase("body")  # proxies send interim responses before the service has responded
        self._phase_timer.start_nestable_phase("first_byte")
        self.reason_phrase = ""

    def _switch_phase_timer_to_body(self) -> None:
        if self._phase_timer.current_phase == "first_byte":
            self._phase_timer.end_phase("first_byte")
            self._phase_timer.start_nestable_phase("body")
