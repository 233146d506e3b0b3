"""The `tls` probe: performs one TLS handshake, and checks the certificate of the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictInt

from watchdog.domain.model import Evidence, Json, Observation
from watchdog.expressions import CelExpression, compile_expression
from watchdog.net.errors import ProbeError
from watchdog.net.host_names import normalize_host_name
from watchdog.net.server_address import ServerTarget
from watchdog.net.tls import TlsConfig
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.probes.expectations import (
    ExpressionEvaluationContext,
    build_cert_days_template,
    build_observation_from_error,
    judge_expressions_inline_or_in_worker,
)

if TYPE_CHECKING:
    from watchdog.net.handshake import EarliestCertificateExpiry
    from watchdog.net.server_certificates import TlsHandshakeRequest, TlsHandshakeResult

DEFAULT_MIN_CERTIFICATE_DAYS, MAX_MIN_CERTIFICATE_DAYS = 14, 3650
_DEFAULT_TLS_PORT = 443
DEFAULT_PORT_BY_STARTTLS_PROTOCOL = {"smtp": 25, "imap": 143, "postgres": 5432}
_WILDCARD_PREFIX = "*."


def _normalize_certificate_name(name: str) -> str:
    is_wildcard = name.startswith(_WILDCARD_PREFIX)
    try:
        host = normalize_host_name(name.removeprefix(_WILDCARD_PREFIX).strip("[]").lower())
    except ValueError:
        expected = "a host name such as www.acme.example, a wildcard such as *.acme.example, or an address"
        raise ValueError(f"expected {expected}, found {name!r}") from None
    return f"{_WILDCARD_PREFIX}{host}" if is_wildcard else host


CertificateName = Annotated[str, AfterValidator(_normalize_certificate_name)]
"""A host name, `*.` and a host name, or an address."""


class CertificateTarget(ServerTarget):
    """What is expected of the certificate of a server."""

    min_days: Annotated[StrictInt, Field(ge=0, le=MAX_MIN_CERTIFICATE_DAYS)] = DEFAULT_MIN_CERTIFICATE_DAYS
    """The number of days for which every certificate of the chain must still be valid; otherwise the probe is
    degraded, as with `prefer: ["cert_days >= 14"]`. 0 turns this off. Once a certificate has expired, the probe is
    down."""
    names: tuple[CertificateName, ...] = ()
    """Names that the certificate must be valid for in addition to the host, such as `www.acme.example`; otherwise the
    probe is down. A wildcard in the certificate stands for one label. `*.acme.example` here requires that wildcard."""
    starttls: Literal["smtp", "imap", "postgres"] | None = None
    """The protocol in which to request TLS, for a port that begins without it; default: TLS from the start. The default
    port is 25 for `smtp`, 143 for `imap`, 5432 for `postgres`, and 443 without `starttls`."""

    @property
    def default_port(self) -> int:
        return DEFAULT_PORT_BY_STARTTLS_PROTOCOL[self.starttls] if self.starttls else _DEFAULT_TLS_PORT


class TlsTarget(TlsConfig, CertificateTarget):
    """A server that speaks TLS. The short form is host and port; the port can be omitted if it is 443."""

    verify: StrictBool = True
    """Whether the certificate must be signed by a trusted authority and valid for the host. With `false`, only its
    dates, `min_days` and `names` are checked."""

    @property
    def tls_config(self) -> TlsConfig:
        """Without what is expected of the certificate."""
        return TlsConfig(**{name: getattr(self, name) for name in TlsConfig.model_fields})


class TlsProbe(Probe):
    """Performs one TLS handshake. The certificate must be trusted and valid for the host, and must not expire soon."""

    kind: ClassVar[str] = "tls"
    example: ClassVar[str] = """
        probes:
          - {name: Certificate, tls: acme.example}
          - name: Mail certificate
            every: 1h
            tls:
              host: mail.acme.example:587
              starttls: smtp
              min_days: 21
              names: [smtp.acme.example, imap.acme.example]
            expect: ["tls_version == 'TLSv1.3'"]
    """
    expression_variables: ClassVar[Mapping[str, str]] = {
        "cert_days": "int",
        "elapsed_ms": "int",
        "subject": "string",
        "issuer": "string",
        "names": "list",
        "tls_version": "string",
        "cipher": "string",
    }
    form_fields: ClassVar[tuple[str, ...]] = ("tls.host", "tls.min_days", "tls.starttls")
    cards: ClassVar[tuple[str, ...]] = ("certificates", "latency", "phases")

    tls: TlsTarget
    """The server to connect to. The short form is host and port. In expressions, `cert_days` is the number of days
    until the first certificate of the chain expires; `subject`, `issuer` and `names` are those of the server's
    own certificate."""

    @property
    def target(self) -> str:
        return f"tls://{self.tls.network_endpoint}"

    @property
    def may_run_without_store(self) -> bool:
        return True

    @property
    def network_endpoint(self) -> str:
        return self.tls.network_endpoint

    @cached_property
    def preference_expressions(self) -> tuple[CelExpression, ...]:
        """`prefer` and `min_days`, compiled."""
        by_days = f"cert_days >= {self.tls.min_days}"
        texts = dict.fromkeys((*self.prefer, *([by_days] if self.tls.min_days else [])))
        return tuple(compile_expression(text, self.expression_variables) for text in texts)

    @cached_property
    def _request(self) -> TlsHandshakeRequest:
        from watchdog.net.server_certificates import TlsHandshakeRequest

        return TlsHandshakeRequest(
            host=self.tls.server_host,
            port=self.tls.server_port,
            tls=self.tls.tls_config,
            starttls=self.tls.starttls or "",
            allow_private_addresses=self.allow_private_addresses,
        )

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        from watchdog.net.handshake import find_earliest_certificate_expiry
        from watchdog.net.server_certificates import perform_tls_handshake

        phase_timer, now = context.phase_timer, context.started_at
        try:
            result = await perform_tls_handshake(context.network.connector, self._request, phase_timer, now)
            expiry = find_earliest_certificate_expiry(result.session.chain, now)
            if expiry is None:
                raise ProbeError.from_reason("tls.unreadable_certificate", "tls")
            observation = await self._judge(result, expiry, context)
        except ProbeError as error:
            return build_observation_from_error(error, phase_timer)
        return replace(observation, phases=phase_timer.phase_durations_ms)

    async def _judge(
        self, result: TlsHandshakeResult, expiry: EarliestCertificateExpiry, context: ProbeAttemptContext
    ) -> Observation:
        """Without phases. Raises ProbeError."""
        facts, measurements = self._build_evidence_facts(result, expiry), {"cert_days": expiry.days}
        if error := self._find_certificate_error(result, context.started_at):
            failed = build_observation_from_error(error, context.phase_timer)
            evidence = replace(failed.evidence, facts={**failed.evidence.facts, **facts})
            return replace(failed, measurements=measurements, evidence=evidence)
        expression_context = self._build_expression_context(result, expiry)
        verdict, listings = await judge_expressions_inline_or_in_worker(
            context, expression_context, self.expectation_expressions, self.preference_expressions
        )
        if verdict.evidence:
            facts["expect"] = verdict.evidence
        return Observation(
            verdict.outcome,
            verdict.reason,
            verdict.message,
            duration=result.elapsed_ms,
            measurements=measurements,
            listings=listings,
            evidence=Evidence(facts),
        )

    def _find_certificate_error(self, result: TlsHandshakeResult, now: int) -> ProbeError | None:
        from watchdog.net.certificates import find_uncovered_names
        from watchdog.net.handshake import find_certificate_date_error

        own = result.session.chain[0]
        if not self.tls.verify and (date_error := find_certificate_date_error(own, now)):
            return date_error  # the only check of the handshake that `verify: false` does not turn off here
        if missing := find_uncovered_names(self.tls.names, own.names):
            listed = " and ".join(missing)
            return ProbeError.from_reason(
                "tls.missing_names", "tls", missing=listed, names=own.valid_hosts_message_suffix
            )
        return None

    def _build_expression_context(
        self, result: TlsHandshakeResult, expiry: EarliestCertificateExpiry
    ) -> ExpressionEvaluationContext:
        session, own = result.session, result.session.chain[0]
        variables: dict[str, Json] = {
            "cert_days": expiry.days,
            "elapsed_ms": round(result.elapsed_ms),
            "subject": own.subject,
            "issuer": own.issuer,
            "names": list(own.names),
            "tls_version": session.tls_version,
            "cipher": session.cipher,
        }
        whose = "certificate" if expiry.subject == own.subject else f"certificate of the authority {expiry.subject}"
        template = build_cert_days_template(expiry.days, expiry.expires_at_text, whose)
        return ExpressionEvaluationContext(variables, value_templates={"cert_days": template})

    def _build_evidence_facts(self, result: TlsHandshakeResult, expiry: EarliestCertificateExpiry) -> dict[str, Json]:
        from watchdog.net.server_certificates import build_certificate_evidence

        session = result.session
        return {
            "address": result.peer_address,
            "elapsed_ms": round(result.elapsed_ms),
            **({"starttls": self.tls.starttls} if self.tls.starttls else {}),
            "tls_version": session.tls_version,
            "cipher": session.cipher,
            "certificate": expiry.description,
            **build_certificate_evidence(session.chain),
        }
