"""Sends text to a server and waits for text from it, on a connection of its own."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from watchdog.domain.model import Evidence
from watchdog.net.connector import TcpConnector
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.handshake import EarliestCertificateExpiry, TlsHandshaker
from watchdog.net.phases import PhaseTimer
from watchdog.net.text_connection import TextConnectionProtocol, build_text_excerpt, format_received_text_size
from watchdog.net.tls import TlsConfig
from watchdog.net.url import ParsedHttpUrl


@dataclass(frozen=True, slots=True, kw_only=True)
class TextExchangeRequest:
    """The text to send and the text to wait for. The caller limits the time."""

    host: str
    port: int
    sent: bytes = b""
    awaited: bytes | None = None
    """Reading ends with the first occurrence of these bytes. None: nothing is read."""
    tls: TlsConfig | None = None
    """None: without TLS."""
    allow_private_addresses: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TextExchange:
    """A connection and the data that arrived over it."""

    received: bytes
    """At most MAX_RECEIVED_TEXT_BYTES."""
    has_awaited: bool
    """Whether the awaited bytes have arrived; true if none were awaited."""
    elapsed_ms: float
    """From the name lookup to the arrival of the awaited bytes."""
    peer_address: str
    """Address and port of the server."""
    expiry: EarliestCertificateExpiry | None
    """None: without TLS, or no certificate can be read."""


async def exchange_text(
    connector: TcpConnector, request: TextExchangeRequest, phase_timer: PhaseTimer, now: int
) -> TextExchange:
    """Connects, sends and reads. `now`: in epoch ms; the validity of certificates is checked against it. Raises
    ProbeError, also if the server closes the connection before it has sent any awaited data."""
    try:
        return await _TextExchangeRun(connector, request, phase_timer, now).exchange()
    except ProbeError as error:
        error.record_interrupted_phase(phase_timer)
        raise


class _TextExchangeRun:
    """One connection."""

    def __init__(
        self, connector: TcpConnector, request: TextExchangeRequest, phase_timer: PhaseTimer, now: int
    ) -> None:
        self._connector, self._request, self._phase_timer = connector, request, phase_timer
        self._handshaker = TlsHandshaker(
            connector,
            ParsedHttpUrl("https" if request.tls else "http", request.host, request.port, "/"),
            request.tls or TlsConfig(),
            request.allow_private_addresses,
            now,
            alpn_protocols=(),
        )

    async def exchange(self) -> TextExchange:
        request, phase_timer = self._request, self._phase_timer
        if request.tls:
            self._handshaker.create_or_get_ssl_context()  # fails before connecting if a file is unusable
        started_monotonic_s = perf_counter()
        expiry: EarliestCertificateExpiry | None = None
        connection = await self._connector.connect_protocol(
            TextConnectionProtocol,
            request.host,
            request.port,
            phase_timer,
            allow_private_addresses=request.allow_private_addresses,
        )
        try:
            phase_timer.facts["address"] = peer_address = connection.peer_address
            if request.tls:
                expiry = await self._handshaker.perform_and_find_certificate_expiry(connection.start_tls, phase_timer)
            has_awaited = request.awaited is None or await self._send_and_receive(connection, request.awaited)
        except Exception as exception:
            error = build_probe_error_from_exception(exception)
            if error is None:
                raise
            raise await self._explain_unanswered_text(error) from None
        finally:
            connection.close()
        return TextExchange(
            received=bytes(connection.received),
            has_awaited=has_awaited,
            elapsed_ms=(perf_counter() - started_monotonic_s) * 1000,
            peer_address=peer_address,
            expiry=expiry,
        )

    async def _send_and_receive(self, connection: TextConnectionProtocol, awaited: bytes) -> bool:
        """Whether it has arrived before the server closed the connection, and within MAX_RECEIVED_TEXT_BYTES."""
        phase_timer, received = self._phase_timer, connection.received
        phase_timer.describe_response = lambda: build_partial_text_evidence(received)
        phase_timer.start_nestable_phase("first_byte")
        if self._request.sent:
            connection.send(self._request.sent)
        search_start = 0
        while await connection.wait_for_more():
            if not search_start:
                phase_timer.end_phase("first_byte")
                phase_timer.start_nestable_phase("text")
            if received.find(awaited, max(search_start - len(awaited) + 1, 0)) >= 0:
                phase_timer.end_phase("text")
                return True
            search_start = len(received)
        if not received:
            raise ProbeError("connection.closed", "connection closed by the server", retryable=True)
        phase_timer.end_phase("text")
        return False

    async def _explain_unanswered_text(self, error: ProbeError) -> ProbeError:
        """Some servers that miss a client certificate close the connection without a TLS alert."""
        if self._request.tls and self._phase_timer.current_phase == "first_byte":
            return await self._handshaker.inspect_and_explain_unanswered_request(error)
        return error


def build_partial_text_evidence(received: bytearray) -> Evidence:
    """What has arrived so far."""
    facts = {"received": format_received_text_size(received)} if received else {}
    return Evidence(facts, build_text_excerpt(received))
