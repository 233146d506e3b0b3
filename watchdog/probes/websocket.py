"""The `websocket` probe: opens a WebSocket, and can send a message and wait for another one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from watchdog.config_types import FILE_BACKED_FIELD_MARKER, ConfigModel, FieldPath, MultiFieldValidationError
from watchdog.config_values import describe_missing_package_extra
from watchdog.domain.model import Observation
from watchdog.net.auth import HttpAuth, build_basic_authorization, find_header_and_auth_problems
from watchdog.net.errors import ProbeError
from watchdog.net.redact import strip_url_to_scheme_host_and_path
from watchdog.net.targets import MaxBodySize
from watchdog.net.tls import TlsConfig
from watchdog.net.url import ParsedHttpUrl, parse_websocket_url
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.probes.connection_checks import (
    CONNECTION_EXPRESSION_VARIABLES,
    build_checked_connection_observation,
    require_tls_for_cert_days,
)
from watchdog.probes.expectations import build_observation_from_error

if TYPE_CHECKING:
    from watchdog.net.websocket_session import WebSocketRequest, WebSocketSession

_RESERVED_HANDSHAKE_HEADERS = frozenset(
    {"sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-key", "sec-websocket-version"}
)
MAX_SENT_MESSAGE_CHARS = 10_000
GOODBYE_RESERVE_S = 0.1
"""Left over from the time limit of a run for its own end."""


def _validate_websocket_url(text: str) -> str:
    parse_websocket_url(text)
    return text


WebSocketUrl = Annotated[
    str,
    AfterValidator(_validate_websocket_url),
    WithJsonSchema({"type": "string", "pattern": "^wss?://"}),
    FILE_BACKED_FIELD_MARKER,
]


class WebSocketTarget(ConfigModel):
    """A WebSocket, and what is exchanged over it. The short form is the URL alone."""

    shorthand_field: ClassVar[str] = "url"

    url: WebSocketUrl
    """The URL to open; wss:// or ws://. Redirects are not followed."""
    send: Annotated[str, Field(min_length=1, max_length=MAX_SENT_MESSAGE_CHARS)] | None = None
    """A text message to send once the WebSocket is open; at most 10,000 characters. Default: none."""
    contains: Annotated[str, Field(min_length=1, max_length=1_000)] | None = None
    """Text that a message of the server must contain. The run waits for such a message, and passes over other text
    messages; a binary message fails the run. Default: the server must respond to a ping instead."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers of the handshake request, such as `Origin`."""
    auth: HttpAuth | None = None
    """Credentials for the `Authorization` header."""
    tls: TlsConfig = TlsConfig()
    """How to verify the server's certificate, and which client certificate to send."""
    subprotocol: str = ""
    """The subprotocol that the server must select, such as `graphql-transport-ws`; default: none is offered."""
    max_message: MaxBodySize = 256 << 10
    """The maximum size of a message that is read, such as `2MiB`; at most 16 MiB. If the server sends a larger one, the
    outcome of the run is `error`. At most 1,000 messages are read in a run."""

    @model_validator(mode="after")
    def _validate_consistency(self) -> Self:
        if find_spec("websockets") is None:
            raise ValueError(f"a WebSocket needs the package websockets: {describe_missing_package_extra('websocket')}")
        errors: list[tuple[FieldPath, str]] = find_header_and_auth_problems(self.headers, self.auth)
        if self.auth and self.auth.negotiated:
            name = "digest" if self.auth.digest else "oauth2"
            errors.append((("auth", name), "not supported for WebSockets: use basic or bearer"))
        for name in self.headers:
            if name.lower() in _RESERVED_HANDSHAKE_HEADERS:
                errors.append((("headers", name), "Watchdog sets this header itself: remove it"))
            elif name.lower() == "sec-websocket-protocol":
                errors.append((("headers", name), "set subprotocol instead"))
        if self.subprotocol and not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", self.subprotocol):
            errors.append((("subprotocol",), "expected one word of letters, digits, '-', '.' and '_'"))
        if self.tls != TlsConfig() and not self.uses_tls:
            errors.append((("tls",), "`tls` has no effect with ws://: use wss://, or remove it"))
        if errors:
            raise MultiFieldValidationError(errors)
        return self

    @cached_property
    def _url(self) -> ParsedHttpUrl:
        return parse_websocket_url(self.url)

    @property
    def uses_tls(self) -> bool:
        return self._url.scheme == "https"

    @property
    def network_endpoint(self) -> str:
        return self._url.host_and_port

    def build_websocket_request(self, allow_private_addresses: bool) -> WebSocketRequest:
        from watchdog.net.target_connection import TargetEndpoint
        from watchdog.net.websocket_session import USE_WSS_TLS_REMEDY, WebSocketRequest

        endpoint = TargetEndpoint(self._url, self.tls, allow_private_addresses, tls_remedy=USE_WSS_TLS_REMEDY)
        authorization = self.auth.authorization_header if self.auth else build_basic_authorization(self._url.userinfo)
        headers = self.headers
        if authorization and "authorization" not in map(str.lower, self.headers):
            headers = {"Authorization": authorization} | self.headers
        return WebSocketRequest(endpoint, headers, self.subprotocol, self.max_message)


class WebSocketProbe(Probe):
    """Opens a WebSocket. Without `contains`, the run passes if the server completes the handshake and responds to a
    ping; with `contains`, if a message of the server contains this text. Requires the `websocket` extra. Proxies from
    the environment are ignored, and no compression is offered."""

    kind: ClassVar[str] = "websocket"
    example: ClassVar[str] = """
        probes:
          - name: Price feed
            websocket:
              url: wss://feed.acme.example/prices
              send: '{"subscribe": "EUR"}'
              contains: '"pair":"EUR'
              headers: {Origin: "https://acme.example"}
            prefer: ["elapsed_ms <= 2000", "cert_days >= 14"]
          - {name: Chat, websocket: "wss://chat.acme.example/ws"}
    """
    expression_variables: ClassVar[Mapping[str, str]] = CONNECTION_EXPRESSION_VARIABLES
    form_fields: ClassVar[tuple[str, ...]] = ("websocket.url", "websocket.send", "websocket.contains")

    websocket: WebSocketTarget
    """The WebSocket to open. The short form is the URL alone."""

    @model_validator(mode="after")
    def _require_tls_for_cert_days(self) -> Self:
        if not self.websocket.uses_tls:
            require_tls_for_cert_days(self, "use wss://")
        return self

    @property
    def target(self) -> str:
        return strip_url_to_scheme_host_and_path(self.websocket.url)

    @property
    def sends_http_requests(self) -> bool:
        return True

    @property
    def may_change_target(self) -> bool:
        return self.websocket.send is not None

    @property
    def may_run_without_store(self) -> bool:
        return not self.may_change_target

    @property
    def network_endpoint(self) -> str:
        return self.websocket.network_endpoint

    def preload(self) -> None:
        from watchdog.net.websocket_session import preload_websocket_client

        preload_websocket_client()

    @cached_property
    def _request(self) -> WebSocketRequest:
        return self.websocket.build_websocket_request(self.allow_private_addresses)

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        from watchdog.net.websocket_session import open_websocket_session

        request = replace(self._request, endpoint=self._request.endpoint.route_by(context.network.routing))
        timer, deadline = context.phase_timer, monotonic() + context.remaining_s - GOODBYE_RESERVE_S
        try:
            session = await open_websocket_session(context.network.connector, request, timer, now=context.started_at)
            try:
                await self._exchange_messages(session, context)
                observation = build_checked_connection_observation(
                    self, context, session.connection.certificate_expiry, session.received_evidence
                )
                await session.say_goodbye(deadline - monotonic())
            finally:
                session.close()
        except ProbeError as error:
            error.record_interrupted_phase(timer)
            return build_observation_from_error(error, timer)
        return observation

    async def _exchange_messages(self, session: WebSocketSession, context: ProbeAttemptContext) -> None:
        """Raises ProbeError."""
        await session.perform_handshake(context.phase_timer)
        context.phase_timer.describe_response = lambda: session.received_evidence
        if self.websocket.send is not None:
            session.send_text(self.websocket.send)
        if self.websocket.contains is None:
            await session.measure_ping(context.phase_timer)
        else:
            await session.receive_message_containing(self.websocket.contains, context.phase_timer)
