"""The `tcp` probe: connects to a port, and checks the text that the server sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import StrictBool, model_validator

from watchdog.config_types import FieldPath, MultiFieldValidationError
from watchdog.domain.model import Evidence, Json, Observation
from watchdog.domain.text import quote_json_value
from watchdog.net.errors import ProbeError
from watchdog.net.escaped_text import EscapedText, decode_escaped_text
from watchdog.net.foreign_protocol import TLS_ALERT_RECORD_STARTS
from watchdog.net.server_address import ServerTarget
from watchdog.net.tls import TlsConfig
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.probes.expectations import (
    ExpressionEvaluationContext,
    build_cert_days_template,
    build_observation_from_error,
    evaluate_expectations_to_verdict,
)

if TYPE_CHECKING:
    from watchdog.net.text_exchange import TextExchange, TextExchangeRequest

MAX_QUOTED_TEXT_CHARS = 100
_LINE_END = b"\n"


class TcpTarget(ServerTarget):
    r"""A TCP port. The short form is host and port: `db.acme.example:5432`."""

    send: EscapedText = ""
    r"""The text to send after connecting, at most 64 KiB. It can contain the escapes `\r`, `\n`, `\t`, `\0`, `\\` and
    `\xff` (any byte). `contains`, or an expression that uses `received`, is then required. Use a variable for a
    password."""
    contains: EscapedText = ""
    """The text that the server must send within `timeout`, anywhere in the first 64 KiB. It can contain the same
    escapes, and is not a pattern."""
    tls: StrictBool | TlsConfig = False
    """Whether to use TLS from the start, with the server's certificate verified: `true`, or how to verify it and which
    client certificate to send."""

    @property
    def tls_config(self) -> TlsConfig | None:
        """None: without TLS."""
        if isinstance(self.tls, TlsConfig):
            return self.tls
        return TlsConfig() if self.tls else None


class TcpProbe(Probe):
    """Connects to a TCP port. It can send text, and expect text in the response."""

    kind: ClassVar[str] = "tcp"
    example: ClassVar[str] = r"""
        probes:
          - {name: Postgres port, tcp: "db.acme.example:5432"}
          - name: Session store
            tcp:
              host: sessions.acme.example:6379
              send: 'PING\r\n'
              contains: +PONG
            prefer: ["elapsed_ms <= 50"]
          - name: Mail banner
            tcp: mail.acme.example:25
            expect: ["received.startsWith('220 ')"]
    """
    expression_variables: ClassVar[Mapping[str, str]] = {
        "received": "string",
        "elapsed_ms": "int",
        "cert_days": "int",
    }
    form_fields: ClassVar[tuple[str, ...]] = ("tcp.host", "tcp.send", "tcp.contains")

    tcp: TcpTarget
    """The port to connect to. The short form is host and port. In expressions, `received` is all text that had arrived
    when `contains` was found, or, without `contains`, the first line that the server sends."""

    @model_validator(mode="after")
    def _validate_what_is_received(self) -> Self:
        errors: list[tuple[FieldPath, str]] = []
        if self.tcp.send and not self._awaits_text:
            message = "the response would not be read: add `contains`, or an `expect` expression that uses `received`"
            errors.append((("tcp", "send"), message))
        if self.tcp.tls_config is None:
            errors += self.find_expressions_with_variable("cert_days", "cert_days requires `tls: true`")
        if errors:
            raise MultiFieldValidationError(errors)
        return self

    @property
    def target(self) -> str:
        return f"tcp://{self.tcp.network_endpoint}"

    @property
    def may_change_target(self) -> bool:
        return bool(self.tcp.send)

    @property
    def may_run_without_store(self) -> bool:
        return not self.may_change_target

    @property
    def network_endpoint(self) -> str:
        return self.tcp.network_endpoint

    @property
    def _awaits_text(self) -> bool:
        expressions = (*self.expectation_expressions, *self.preference_expressions)
        return bool(self.tcp.contains) or any("received" in expression.used_variables for expression in expressions)

    @cached_property
    def _request(self) -> TextExchangeRequest:
        from watchdog.net.text_exchange import TextExchangeRequest

        return TextExchangeRequest(
            host=self.tcp.server_host,
            port=self.tcp.server_port,
            sent=decode_escaped_text(self.tcp.send),
            awaited=(decode_escaped_text(self.tcp.contains) or _LINE_END) if self._awaits_text else None,
            tls=self.tcp.tls_config,
            allow_private_addresses=self.allow_private_addresses,
        )

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        from watchdog.net.text_exchange import exchange_text

        phase_timer = context.phase_timer
        try:
            exchange = await exchange_text(context.network.connector, self._request, phase_timer, context.started_at)
            if error := self._find_text_error(exchange):
                raise error
        except ProbeError as error:
            return build_observation_from_error(error, phase_timer)
        return replace(self._judge(exchange, context.slot), phases=phase_timer.phase_durations_ms)

    def _find_text_error(self, exchange: TextExchange) -> ProbeError | None:
        """None: what arrived is left to the expressions."""
        from watchdog.net.text_connection import MAX_RECEIVED_TEXT_BYTES

        if exchange.has_awaited:
            return None
        if self.tcp.tls_config is None and exchange.received.startswith(TLS_ALERT_RECORD_STARTS):
            return ProbeError.from_reason("protocol.tls_expected")
        if not self.tcp.contains:
            return None
        text = quote_json_value(exchange.received.decode(errors="backslashreplace"), MAX_QUOTED_TEXT_CHARS)
        if len(exchange.received) < MAX_RECEIVED_TEXT_BYTES:
            problem = f"the server sent {text} and closed the connection"
        else:
            problem = f"the server sent at least {MAX_RECEIVED_TEXT_BYTES >> 10} KiB, beginning with {text}"
        expected = quote_json_value(decode_escaped_text(self.tcp.contains).decode(errors="backslashreplace"), 100)
        return ProbeError.from_reason("protocol.unexpected_text", problem=problem, expected=expected)

    def _judge(self, exchange: TextExchange, slot: int) -> Observation:
        """Without phases."""
        expression_context = self._build_expression_context(exchange)
        preferences = self.preference_expressions
        verdict = evaluate_expectations_to_verdict(expression_context, self.expectation_expressions, preferences)
        return Observation(
            verdict.outcome,
            verdict.reason,
            verdict.message,
            duration=exchange.elapsed_ms,
            measurements=self._build_measurements(exchange),
            listings=expression_context.evaluate_all_preferences_as_listing_by_rule(preferences, slot)
            if not verdict.reason
            else {},
            evidence=self._build_evidence(exchange, verdict.evidence),
        )

    def _build_expression_context(self, exchange: TextExchange) -> ExpressionEvaluationContext:
        received = exchange.received if self.tcp.contains else exchange.received.partition(_LINE_END)[0].rstrip(b"\r")
        expiry = exchange.expiry
        variables: dict[str, Json] = {
            "received": received.decode(errors="replace"),
            "elapsed_ms": round(exchange.elapsed_ms),
            "cert_days": expiry and expiry.days,
        }
        templates = {"cert_days": build_cert_days_template(expiry.days, expiry.expires_at_text)} if expiry else {}
        return ExpressionEvaluationContext(variables, value_templates=templates)

    def _build_measurements(self, exchange: TextExchange) -> dict[str, str | int]:
        measurements: dict[str, str | int] = {"size": len(exchange.received)} if self._awaits_text else {}
        return measurements | ({"cert_days": exchange.expiry.days} if exchange.expiry else {})

    def _build_evidence(self, exchange: TextExchange, expectations: Mapping[str, str]) -> Evidence:
        from watchdog.net.text_connection import build_text_excerpt, format_received_text_size

        facts: dict[str, Json] = {"address": exchange.peer_address, "elapsed_ms": round(exchange.elapsed_ms)}
        if self._awaits_text:
            facts["received"] = format_received_text_size(exchange.received)
        if exchange.expiry:
            facts["certificate"] = exchange.expiry.description
        if expectations:
            facts["expect"] = dict(expectations)
        return Evidence(facts, build_text_excerpt(exchange.received))
