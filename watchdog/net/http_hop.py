"""One request to one server and its response: on a connection of their own, or on one that is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from watchdog.domain.model import Evidence
from watchdog.net.connector import TcpConnector
from watchdog.net.errors import CONNECTION_LOSS_REASONS, ProbeError, build_probe_error_from_exception
from watchdog.net.foreign_protocol import build_http2_not_selected_error
from watchdog.net.handshake import EarliestCertificateExpiry, TlsHandshaker
from watchdog.net.http import HttpRequest, HttpResponse
from watchdog.net.http_exchange import HttpExchangeProtocol
from watchdog.net.kept_connections import KeepableConnection, KeptConnections
from watchdog.net.phases import PhaseTimer
from watchdog.net.proxy import ProxyAddress
from watchdog.net.proxy_errors import find_proxy_response_error
from watchdog.net.proxy_tunnel import ServerRoute, open_connection_by_route
from watchdog.net.received_body import BoundedBodyCollector
from watchdog.net.received_response import ReceivedHttpResponse
from watchdog.net.response_parser import HttpResponseParser, compute_max_raw_response_bytes, create_body_collector
from watchdog.net.tls import HTTP2_ALPN_PROTOCOL, HTTP_ALPN_PROTOCOLS, TlsConfig, read_tls_file_versions
from watchdog.net.url import ParsedHttpUrl

_TIMED_OUT_BEFORE_REQUEST_STATUS = 408
"""A server sends it when a connection was idle for too long, and closes the connection (RFC 9110, 15.5.9)."""


@dataclass(slots=True)
class HttpHop:
    """A request on its way to one server."""

    connector: TcpConnector
    kept_connections: KeptConnections
    request: HttpRequest
    url: ParsedHttpUrl
    """That of the request, or one that it was redirected to."""
    tls: TlsConfig
    now: int
    """In ms since the epoch; certificates are judged against it."""
    proxy: ProxyAddress | None = None
    proxy_ca_file: str = ""

    @property
    def uses_http2(self) -> bool:
        return self.request.http2 and self.url.scheme == "https"

    @property
    def alpn_protocols(self) -> tuple[str, ...]:
        return (HTTP2_ALPN_PROTOCOL, *HTTP_ALPN_PROTOCOLS) if self.request.http2 else HTTP_ALPN_PROTOCOLS

    def find_server(self) -> Hashable:
        """What a connection that may be used for this request has in common with it. Once a file for TLS is replaced
        or missing, none has."""
        files = read_tls_file_versions(*self.tls.files, self.proxy_ca_file)
        return self.url.origin, self.tls, files, self.request.allow_private_addresses, self.proxy

    @property
    def route(self) -> ServerRoute:
        return ServerRoute(self.url, self.request.allow_private_addresses, self.proxy, self.proxy_ca_file)

    def create_handshaker(self) -> TlsHandshaker:
        return TlsHandshaker(
            self.connector,
            self.url,
            self.tls,
            self.request.allow_private_addresses,
            self.now,
            alpn_protocols=self.alpn_protocols,
            proxy=self.proxy,
            proxy_ca_file=self.proxy_ca_file,
        )


async def exchange_with_server(
    hop: HttpHop, headers: Mapping[str, str] | None, phase_timer: PhaseTimer
) -> HttpResponse:
    """Sends the request and receives the response. `headers`: in place of those of the request. Raises ProbeError."""
    server = hop.find_server() if hop.request.keep_alive else None
    if hop.request.keep_alive and (connection := hop.kept_connections.take(server, hop.now)):
        response = await _exchange_on_kept_connection(hop, headers, connection, phase_timer)
        if response is not None:
            return response
    return await _exchange_on_new_connection(hop, server, headers, phase_timer)


async def _exchange_on_kept_connection(
    hop: HttpHop, headers: Mapping[str, str] | None, connection: KeepableConnection, phase_timer: PhaseTimer
) -> HttpResponse | None:
    """None: the server has closed the connection without a response to this request."""
    facts = {"address": connection.protocol.peer_address, "connection_reused": True}
    if hop.proxy is not None:
        facts["proxy"] = hop.proxy.host_and_port
    phase_timer.facts |= facts
    response = await _exchange_unless_connection_is_lost(hop, headers, connection, phase_timer)
    if response is None or (response.status == _TIMED_OUT_BEFORE_REQUEST_STATUS and not connection.is_idle):
        phase_timer.describe_response = Evidence
        for name in facts:
            del phase_timer.facts[name]
        return None
    response.is_connection_reused = True
    return response


async def _exchange_unless_connection_is_lost(
    hop: HttpHop, headers: Mapping[str, str] | None, connection: KeepableConnection, phase_timer: PhaseTimer
) -> HttpResponse | None:
    """None: the connection was lost before the first byte."""
    try:
        return await _exchange_and_keep_or_close(hop, headers, connection, phase_timer)
    except BaseException as exception:
        is_unanswered = phase_timer.current_phase == "first_byte"
        if is_unanswered:
            hop.kept_connections.close_idle(connection.server)
        error = build_probe_error_from_exception(exception) if isinstance(exception, Exception) else None
        if error is None:
            raise
        if is_unanswered and error.reason in CONNECTION_LOSS_REASONS:
            phase_timer.end_phase("first_byte")
            return None
        raise _add_connection_facts(error, hop, phase_timer) from None


async def _exchange_on_new_connection(
    hop: HttpHop, server: Hashable, headers: Mapping[str, str] | None, phase_timer: PhaseTimer
) -> HttpResponse:
    is_tls, route = hop.url.scheme == "https", hop.route
    if is_tls:
        hop.connector.get_ssl_context(hop.tls, hop.alpn_protocols)  # fails before connecting if a file is unusable
    protocol = await open_connection_by_route(hop.connector, HttpExchangeProtocol, route, phase_timer)
    connection = KeepableConnection(server, protocol, asyncio.get_running_loop().time())
    try:
        phase_timer.facts["address"] = protocol.peer_address
        if is_tls:
            connection.certificate_expiry = await _start_tls(hop, protocol, phase_timer)
        return await _exchange_and_keep_or_close(hop, headers, connection, phase_timer)
    except Exception as exception:
        error = build_probe_error_from_exception(exception)
        if error is None:
            raise
        if phase_timer.current_phase == "first_byte" and not route.is_forwarded:
            error = await hop.create_handshaker().inspect_and_explain_unanswered_request(error)
        raise _add_connection_facts(error, hop, phase_timer) from None


async def _start_tls(
    hop: HttpHop, protocol: HttpExchangeProtocol, phase_timer: PhaseTimer
) -> EarliestCertificateExpiry | None:
    """Closes the connection if that fails."""
    try:
        expiry = await hop.create_handshaker().perform_and_find_certificate_expiry(protocol.start_tls, phase_timer)
        if hop.uses_http2 and protocol.selected_alpn_protocol != HTTP2_ALPN_PROTOCOL:
            raise build_http2_not_selected_error()
    except BaseException:
        protocol.close()
        raise
    return expiry


def _add_connection_facts(error: ProbeError, hop: HttpHop, phase_timer: PhaseTimer) -> ProbeError:
    error.facts.setdefault("address", phase_timer.facts.get("address", ""))
    if hop.proxy is not None:
        error.facts.setdefault("proxy", hop.proxy.host_and_port)
    return error


async def _exchange_and_keep_or_close(
    hop: HttpHop, headers: Mapping[str, str] | None, connection: KeepableConnection, phase_timer: PhaseTimer
) -> HttpResponse:
    """Keeps the connection, or closes it, also if it raises."""
    protocol, expiry, is_kept = connection.protocol, connection.certificate_expiry, False
    peer_address = protocol.peer_address
    try:
        received = await _exchange(hop, hop.route, headers, protocol, phase_timer)
        is_kept = hop.request.keep_alive and received.allows_another_request
    finally:
        if not is_kept:
            protocol.close()
    if is_kept:
        hop.kept_connections.keep(connection)
    return _build_response(hop, received, peer_address, expiry and expiry.count_days_from(hop.now))


async def _exchange(
    hop: HttpHop,
    route: ServerRoute,
    headers: Mapping[str, str] | None,
    connection: HttpExchangeProtocol,
    phase_timer: PhaseTimer,
) -> ReceivedHttpResponse[BoundedBodyCollector]:
    request, is_head_request = hop.request, hop.request.method == "HEAD"
    if hop.uses_http2:
        return await _exchange_over_http2(hop, headers, connection, phase_timer)
    parser = HttpResponseParser(phase_timer, request.max_body_bytes, is_head_request=is_head_request)
    if route.is_forwarded or headers is not None:
        own_headers = request.headers_with_credentials if headers is None else headers
        request_bytes = request.encode_for(hop.url, own_headers, hop.proxy if route.is_forwarded else None)
    else:
        request_bytes = request.encoded
    await connection.exchange(request_bytes, parser, phase_timer)
    if (
        route.is_forwarded
        and hop.proxy
        and (error := find_proxy_response_error(parser.status, parser.headers, hop.proxy))
    ):
        error.facts["status"], error.excerpt = parser.status, parser.build_partial_response_evidence().excerpt
        raise error
    return parser


async def _exchange_over_http2(
    hop: HttpHop, headers: Mapping[str, str] | None, connection: HttpExchangeProtocol, phase_timer: PhaseTimer
) -> ReceivedHttpResponse[BoundedBodyCollector]:
    from watchdog.net.http2_response import Http2ResponseParser

    request = hop.request
    parser = Http2ResponseParser(
        phase_timer,
        lambda response_headers: create_body_collector(response_headers, request.max_body_bytes),
        connection.write,
        is_head_request=request.method == "HEAD",
        max_raw_bytes=compute_max_raw_response_bytes(request.max_body_bytes),
    )
    own_headers = request.headers_with_credentials if headers is None else headers
    phase_timer.start_nestable_phase("first_byte")
    parser.send_request(request.list_http2_head_for(hop.url, own_headers), request.body)
    await connection.receive(parser)
    return parser


def _build_response(
    hop: HttpHop,
    received: ReceivedHttpResponse[BoundedBodyCollector],
    peer_address: str,
    expiry: EarliestCertificateExpiry | None,
) -> HttpResponse:
    """Without what depends on the hops before."""
    return HttpResponse(
        status=received.status,
        reason_phrase=received.reason_phrase,
        headers=received.headers,
        received_body=received.received_body,
        elapsed_ms=0.0,
        http_version=received.http_version,
        peer_address=peer_address,
        url=hop.url.url_without_credentials,
        redirect_count=0,
        cert_days=expiry and expiry.days,
        cert_expiry=expiry.description if expiry else "",
        cert_expires_at_text=expiry.expires_at_text if expiry else "",
        set_cookies=received.set_cookies,
        proxy=hop.proxy.host_and_port if hop.proxy else "",
    )
