"""The TLS handshake, and what a failed one reveals about the server's certificates."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from watchdog.domain.formatting import DAY_MS
from watchdog.domain.model import Json
from watchdog.net.certificates import (
    Certificate,
    format_certificate_time,
    is_intermediate_certificate_missing,
    parse_certificates,
    read_peer_certificate_chain,
)
from watchdog.net.connector import TcpConnector
from watchdog.net.errors import (
    CONNECTION_LOSS_REASONS,
    ProbeError,
    build_probe_error_from_exception,
    refine_probe_error_until_deadline,
)
from watchdog.net.foreign_protocol import USE_HTTPS_TLS_REMEDY
from watchdog.net.http_exchange import HttpExchangeProtocol
from watchdog.net.phases import PhaseTimer
from watchdog.net.proxy import ProxyAddress
from watchdog.net.proxy_tunnel import ServerRoute, open_connection_by_route
from watchdog.net.text_connection import TextConnectionProtocol
from watchdog.net.tls import (
    HTTP_ALPN_PROTOCOLS,
    ClientCertificateRequestRecorder,
    TlsConfig,
    create_unverified_ssl_context,
)
from watchdog.net.url import ParsedHttpUrl

TlsStarter: TypeAlias = Callable[[ssl.SSLContext, str], Awaitable[Any]]
"""Performs a handshake with this context and server name. Returns the ssl.SSLObject of the connection."""
TlsRequester: TypeAlias = Callable[[TextConnectionProtocol], Awaitable[None]]
"""Requests TLS on a connection that begins without it."""
TLS_INSPECTION_TIMEOUT_S = 2.0
"""Timeout for the second handshake that explains why the first one failed."""


class EarliestCertificateExpiry(NamedTuple):
    """The certificate of a chain that expires first."""

    days: int
    """Whole days until then, negative once it has expired."""
    subject: str
    """As "CN=api.example"."""
    expires_at_text: str
    """ "1 Dec 2026 10:00 UTC"."""
    expires_at: int
    """In ms since the epoch."""

    def count_days_from(self, now: int) -> EarliestCertificateExpiry:
        """The same expiry, with the days from this instant on."""
        return self._replace(days=(self.expires_at - now) // DAY_MS)

    @property
    def description(self) -> str:
        return f"{self.subject} expires on {self.expires_at_text}"


class TlsSession(NamedTuple):
    """The certificates and parameters of a completed handshake."""

    chain: tuple[Certificate, ...]
    """The server's own certificate first; without those that cannot be read. Empty if its own is one of them."""
    tls_version: str
    """ "TLSv1.3"."""
    cipher: str
    """OpenSSL's name: "TLS_AES_256_GCM_SHA384"."""


def find_earliest_certificate_expiry(chain: tuple[Certificate, ...], now: int) -> EarliestCertificateExpiry | None:
    """None: there is no certificate."""
    first = min(chain, key=lambda certificate: certificate.expires_at, default=None)
    if first is None:
        return None
    expires_at_text = f"{format_certificate_time(first.expires_at)} UTC"
    days = (first.expires_at - now) // DAY_MS
    return EarliestCertificateExpiry(days, first.subject, expires_at_text, first.expires_at)


def find_certificate_date_error(certificate: Certificate, now: int) -> ProbeError | None:
    """None: the certificate is valid now."""
    if certificate.expires_at < now:
        return ProbeError.from_reason(
            "tls.expired", "tls", when=f" on {format_certificate_time(certificate.expires_at)} UTC"
        )
    if certificate.valid_from > now:
        when = f" before {format_certificate_time(certificate.valid_from)} UTC"
        return ProbeError.from_reason("tls.not_yet_valid", "tls", when=when)
    return None


@dataclass(frozen=True, slots=True)
class _UnverifiedTlsHandshakeResult:
    """What the server shows to a client that accepts everything."""

    chain: tuple[Certificate, ...] = ()
    requests_client_certificate: bool = False


@dataclass(frozen=True, slots=True)
class TlsHandshaker:
    """A TLS handshake with one server."""

    connector: TcpConnector
    url: ParsedHttpUrl
    tls: TlsConfig
    allow_private_addresses: bool
    now: int
    """In epoch ms; the validity of certificates is checked against it."""
    alpn_protocols: tuple[str, ...] = HTTP_ALPN_PROTOCOLS
    """The protocols to offer; empty: none."""
    tls_remedy: str = USE_HTTPS_TLS_REMEDY
    """What to configure if the port speaks TLS although the URL states that it does not."""
    request_tls: TlsRequester | None = None
    """Called before the handshake of the second connection, which reads the certificates. None: TLS from the start."""
    describe_chain: Callable[[tuple[Certificate, ...]], dict[str, Json]] | None = None
    """The facts to add to the error of a failed handshake, about the certificates that the server sends."""
    proxy: ProxyAddress | None = None
    """Through which a connection of its own is opened; not together with `request_tls`. None: directly."""
    proxy_ca_file: str = ""

    def create_or_get_ssl_context(self) -> ssl.SSLContext:
        """Raises ProbeError (internal) if a file is unusable."""
        return self.connector.get_ssl_context(self.tls, self.alpn_protocols)

    async def perform_and_find_certificate_expiry(
        self, start_tls: TlsStarter, phase_timer: PhaseTimer
    ) -> EarliestCertificateExpiry | None:
        """Lets `start_tls` perform the handshake and times the phase `tls`. None: no certificate can be read. Raises
        ProbeError and OSError."""
        ssl_object = await self._perform(start_tls, phase_timer)
        chain = read_peer_certificate_chain(ssl_object, verified=self.tls.verify)
        return find_earliest_certificate_expiry(parse_certificates(chain), self.now)

    async def perform_and_read_session(self, start_tls: TlsStarter, phase_timer: PhaseTimer) -> TlsSession:
        """As `perform_and_find_certificate_expiry`, but returns the whole session."""
        ssl_object = await self._perform(start_tls, phase_timer)
        encoded_chain = read_peer_certificate_chain(ssl_object, verified=self.tls.verify)
        chain = parse_certificates(encoded_chain) if parse_certificates(encoded_chain[:1]) else ()
        cipher, _, _ = ssl_object.cipher()
        return TlsSession(chain, ssl_object.version(), cipher)

    async def _perform(self, start_tls: TlsStarter, phase_timer: PhaseTimer) -> Any:
        context = self.create_or_get_ssl_context()
        phase_timer.start_nestable_phase("tls")
        try:
            ssl_object = await start_tls(context, self._server_name)
        except ssl.SSLError as ssl_error:
            error = build_probe_error_from_exception(ssl_error)
            raise (
                error
                and await refine_probe_error_until_deadline(error, self._inspect_and_explain_handshake_error(error))
            ) or ssl_error from None
        except ConnectionError as connection_error:  # event loops differ in whether they pass on the alert before it
            lost = build_probe_error_from_exception(connection_error) or ProbeError(
                "connection.lost", "connection lost"
            )
            explained = await refine_probe_error_until_deadline(lost, self._inspect_and_explain_lost_connection(lost))
            raise (
                explained if explained is not lost else ProbeError.from_reason("tls.closed", "tls", retryable=True)
            ) from None
        phase_timer.end_phase("tls")
        return ssl_object

    @property
    def _server_name(self) -> str:
        return self.tls.server_name or self.url.host.rstrip(".")

    async def _inspect_and_explain_handshake_error(self, error: ProbeError) -> ProbeError:
        """A more specific error, by what a second handshake shows. It accepts every certificate and sends no data."""
        is_about_certificate = error.reason in _TLS_REASONS_ABOUT_CERTIFICATES and self.describe_chain is not None
        if error.reason not in _TLS_REASONS_EXPLAINED_BY_INSPECTION and not is_about_certificate:
            return error
        inspection = await self._inspect_server_without_verification()
        explained = (
            self._explain_refusal_by_client_certificate(error, inspection)
            or self._build_explained_certificate_error(error, inspection)
            or error
        )
        if inspection.chain:
            own = inspection.chain[0]
            explained.facts |= {"certificate": own.validity_period_text, "subject": own.subject, "issuer": own.issuer}
            if self.describe_chain is not None:
                explained.facts |= self.describe_chain(inspection.chain)
        return explained

    def _explain_refusal_by_client_certificate(
        self, error: ProbeError, inspection: _UnverifiedTlsHandshakeResult
    ) -> ProbeError | None:
        """Up to TLS 1.2 a server that misses the client certificate refuses the handshake without a reason."""
        if error.reason != "tls.handshake_refused" or not inspection.requests_client_certificate:
            return None
        if not self.tls.cert_file:
            return ProbeError.from_reason("tls.client_certificate", "tls")
        problem = "the server rejects the client certificate"
        return ProbeError.from_reason("tls.client_certificate_rejected", "tls", problem=problem)

    async def inspect_and_explain_unanswered_request(self, error: ProbeError) -> ProbeError:
        """A more specific error, if the connection was lost before the first byte of the first response."""
        is_tls = self.url.scheme == "https"
        explain = self._inspect_and_explain_lost_connection if is_tls else self._explain_plain_http_sent_to_tls_port
        return await refine_probe_error_until_deadline(error, explain(error))

    async def _inspect_and_explain_lost_connection(self, error: ProbeError) -> ProbeError:
        """From TLS 1.3 on, a server that misses the client certificate completes the handshake and closes the
        connection then; some do so without a TLS alert."""
        if (
            error.reason not in CONNECTION_LOSS_REASONS
            or self.tls.cert_file
            or not (await self._inspect_server_without_verification()).requests_client_certificate
        ):
            return error
        explained = ProbeError.from_reason("tls.client_certificate", "tls")
        explained.message += f": {error.message} after it asked for a client certificate"
        return explained

    async def _explain_plain_http_sent_to_tls_port(self, error: ProbeError) -> ProbeError:
        """On a port that speaks TLS, some servers close a connection without TLS, and answer nothing."""
        if (
            error.reason not in ("connection.closed", "connection.reset")
            or not (await self._inspect_server_without_verification()).chain
        ):
            return error
        return ProbeError.from_reason("protocol.tls_required", remedy=self.tls_remedy)

    def _build_explained_certificate_error(
        self, error: ProbeError, inspection: _UnverifiedTlsHandshakeResult
    ) -> ProbeError | None:
        if not inspection.chain:
            return None
        own, reason = inspection.chain[0], error.reason
        if reason in ("tls.expired", "tls.not_yet_valid"):
            return self._explain_certificate_date_error(inspection.chain)
        if reason == "tls.hostname":
            return ProbeError.from_reason(reason, "tls", host=self._server_name, names=own.valid_hosts_message_suffix)
        if reason == "tls.untrusted":
            last = inspection.chain[-1]
            if is_intermediate_certificate_missing(inspection.chain, self._list_ca_file_authorities()):
                return ProbeError.from_reason(
                    "tls.missing_intermediate", "tls", authority=f" {last.issuer_common_name}"
                )
            return ProbeError.from_reason(reason, "tls", authority=f": {last.issuer_common_name}")
        return None

    def _explain_certificate_date_error(self, chain: tuple[Certificate, ...]) -> ProbeError:
        """`chain`: as the server sent it. What is invalid may also be an authority that it does not send."""
        if own_error := find_certificate_date_error(chain[0], self.now):
            return own_error
        authority = next((c for c in chain[1:] if not c.valid_from <= self.now <= c.expires_at), None)
        detail = f": {authority.common_name} ({authority.validity_period_text})" if authority else ""
        return ProbeError.from_reason("tls.chain_expired", "tls", authority=detail)

    def _list_ca_file_authorities(self) -> tuple[Certificate, ...]:
        """The authorities of `ca_file`; none if the system's are used."""
        if not self.tls.ca_file:
            return ()
        return parse_certificates(self.create_or_get_ssl_context().get_ca_certs(binary_form=True))

    async def _inspect_server_without_verification(self) -> _UnverifiedTlsHandshakeResult:
        recorder = ClientCertificateRequestRecorder()
        chain: tuple[Certificate, ...] = ()
        with suppress(OSError, ProbeError):  # only the wording depends on it; TimeoutError is an OSError
            async with asyncio.timeout(TLS_INSPECTION_TIMEOUT_S):
                chain = await self._fetch_unverified_certificate_chain(recorder)
        return _UnverifiedTlsHandshakeResult(chain, recorder.requested)

    async def _fetch_unverified_certificate_chain(
        self, recorder: ClientCertificateRequestRecorder
    ) -> tuple[Certificate, ...]:
        connection = await self._open_connection_before_tls()
        try:
            context = create_unverified_ssl_context(self.tls, recorder, self.alpn_protocols)
            ssl_object = await connection.start_tls(context, self._server_name)
            return parse_certificates(read_peer_certificate_chain(ssl_object, verified=False))
        finally:
            connection.close()

    async def _open_connection_before_tls(self) -> HttpExchangeProtocol | TextConnectionProtocol:
        if self.request_tls is None:
            route = ServerRoute(self.url, self.allow_private_addresses, self.proxy, self.proxy_ca_file)
            return await open_connection_by_route(self.connector, HttpExchangeProtocol, route, PhaseTimer())
        connection = await self.connector.connect_protocol(
            TextConnectionProtocol,
            self.url.host,
            self.url.port,
            PhaseTimer(),
            allow_private_addresses=self.allow_private_addresses,
        )
        try:
            await self.request_tls(connection)
        except BaseException:
            connection.close()
            raise
        return connection


_TLS_REASONS_EXPLAINED_BY_INSPECTION = (
    "tls.expired",
    "tls.not_yet_valid",
    "tls.hostname",
    "tls.untrusted",
    "tls.handshake_refused",
)
"""Reasons whose message, or whose cause, a second handshake shows."""
_TLS_REASONS_ABOUT_CERTIFICATES = (
    "tls.self_signed",
    "tls.revoked",
    "tls.wrong_purpose",
    "tls.invalid_chain",
    "tls.weak_security",
)
"""Further reasons for which a second handshake reads the certificates."""
