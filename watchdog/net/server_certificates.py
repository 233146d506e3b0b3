"""Performs one TLS handshake with a server, and reads the certificates that it sends."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from watchdog.domain.formatting import format_iso8601
from watchdog.domain.model import Evidence, Json
from watchdog.net.certificates import Certificate
from watchdog.net.connector import TcpConnector
from watchdog.net.errors import build_probe_error_from_exception
from watchdog.net.handshake import TlsHandshaker, TlsRequester, TlsSession
from watchdog.net.phases import PhaseTimer
from watchdog.net.starttls import TLS_REQUESTER_BY_STARTTLS_PROTOCOL
from watchdog.net.text_connection import TextConnectionProtocol, build_text_excerpt
from watchdog.net.tls import TlsConfig
from watchdog.net.url import ParsedHttpUrl

MAX_CERTIFICATES_IN_EVIDENCE, MAX_NAMES_OF_CERTIFICATE_IN_EVIDENCE = 10, 50


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsHandshakeRequest:
    """The server and the settings of the handshake. The caller limits the time."""

    host: str
    port: int
    tls: TlsConfig
    starttls: str = ""
    """One of TLS_REQUESTER_BY_STARTTLS_PROTOCOL; empty: the server begins with TLS."""
    allow_private_addresses: bool = True


@dataclass(frozen=True, slots=True)
class TlsHandshakeResult:
    """The result of a completed handshake."""

    session: TlsSession
    elapsed_ms: float
    """From the name lookup to the end of the handshake."""
    peer_address: str
    """Address and port of the server."""


def build_certificate_evidence(chain: tuple[Certificate, ...]) -> dict[str, Json]:
    """Each certificate, the server's own first."""
    return {"certificates": [_describe_certificate(each) for each in chain[:MAX_CERTIFICATES_IN_EVIDENCE]]}


def _describe_certificate(certificate: Certificate) -> dict[str, Json]:
    names = certificate.names
    listed = list(names[:MAX_NAMES_OF_CERTIFICATE_IN_EVIDENCE])
    if more := len(names) - len(listed):
        listed.append(f"{more} more")
    return {
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        **({"names": listed} if names else {}),
        "valid_from": format_iso8601(certificate.valid_from),
        "expires_at": format_iso8601(certificate.expires_at),
    }


async def perform_tls_handshake(
    connector: TcpConnector, request: TlsHandshakeRequest, phase_timer: PhaseTimer, now: int
) -> TlsHandshakeResult:
    """`now`: in epoch ms; the validity of certificates is checked against it. Raises ProbeError."""
    handshaker = TlsHandshaker(
        connector,
        ParsedHttpUrl("https", request.host, request.port, "/"),
        request.tls,
        request.allow_private_addresses,
        now,
        alpn_protocols=(),
        request_tls=TLS_REQUESTER_BY_STARTTLS_PROTOCOL.get(request.starttls),
        describe_chain=build_certificate_evidence,
    )
    try:
        return await _connect_and_perform_handshake(handshaker, phase_timer)
    except Exception as exception:
        error = build_probe_error_from_exception(exception)
        if error is None:
            raise
        error.record_interrupted_phase(phase_timer)
        raise error from None


async def _connect_and_perform_handshake(handshaker: TlsHandshaker, phase_timer: PhaseTimer) -> TlsHandshakeResult:
    handshaker.create_or_get_ssl_context()  # if a file is unusable, fails before connecting
    started_monotonic_s = perf_counter()
    connection = await handshaker.connector.connect_protocol(
        TextConnectionProtocol,
        handshaker.url.host,
        handshaker.url.port,
        phase_timer,
        allow_private_addresses=handshaker.allow_private_addresses,
    )
    try:
        phase_timer.facts["address"] = peer_address = connection.peer_address
        if handshaker.request_tls is not None:
            await _request_tls(handshaker.request_tls, connection, phase_timer)
        session = await handshaker.perform_and_read_session(connection.start_tls, phase_timer)
    finally:
        connection.close()
    return TlsHandshakeResult(session, (perf_counter() - started_monotonic_s) * 1000, peer_address)


async def _request_tls(request_tls: TlsRequester, connection: TextConnectionProtocol, phase_timer: PhaseTimer) -> None:
    """Times the phase `starttls`. If it fails, the text that the server has sent is evidence."""
    phase_timer.describe_response = lambda: Evidence({}, build_text_excerpt(connection.received))
    phase_timer.start_nestable_phase("starttls")
    await request_tls(connection)
    phase_timer.end_phase("starttls")
    phase_timer.describe_response = Evidence
