"""The `dns` probe: sends a query to a name server and evaluates the response."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, StrictInt, model_validator

from watchdog.config_types import (
    STRING_OR_LIST_SCHEMA,
    ConfigModel,
    FieldPath,
    MultiFieldValidationError,
    wrap_string_in_list,
)
from watchdog.domain.model import Evidence, Json, Observation, Outcome
from watchdog.domain.reasons import build_reason_and_message
from watchdog.net.dns_message import ADDRESS_RECORD_TYPES, normalize_dns_answer
from watchdog.net.errors import ProbeError
from watchdog.net.host_names import HostName, parse_dns_name
from watchdog.net.phases import RESPONSE_PROCESSING_PHASES
from watchdog.net.tls import TlsConfig
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.probes.expectations import (
    ExpressionEvaluationContext,
    build_observation_from_error,
    judge_expressions_inline_or_in_worker,
)

if TYPE_CHECKING:
    from watchdog.net.dns_client import DnsExchange, DnsQuestion
    from watchdog.net.dns_message import DnsReply

DnsRecordType = Literal[
    "A",
    "AAAA",
    "CAA",
    "CNAME",
    "DNSKEY",
    "DS",
    "HTTPS",
    "MX",
    "NAPTR",
    "NS",
    "PTR",
    "SOA",
    "SRV",
    "SVCB",
    "TLSA",
    "TXT",
]
MAX_ANSWERS_IN_MESSAGE, MAX_ANSWERS_IN_EVIDENCE, MAX_ANSWER_CHARS = 4, 20, 200
DEFAULT_PORT_BY_DNS_TRANSPORT = {"udp": 53, "tcp": 53, "tls": 853}
MAX_DNS_END_MARGIN_S = 0.25
"""How long before its deadline a run gives up, so that its message names the server."""
ExpectedAnswers = Annotated[tuple[str, ...], BeforeValidator(wrap_string_in_list), STRING_OR_LIST_SCHEMA]


class DnsTarget(ConfigModel):
    """A DNS query. The short form is the name alone."""

    shorthand_field: ClassVar[str] = "name"

    name: str
    """The name to look up, such as `acme.example`. No search domain is appended. With `type: PTR`, it can be an IP
    address."""
    type: DnsRecordType = "A"
    """The type of the records to look up."""
    server: HostName | None = None
    """The name server to query: an IP address or a host name; default: the name servers of Watchdog's own machine, in
    the order of `/etc/resolv.conf`. If one does not respond within 2 s, fails or refuses the query, the next one is
    queried."""
    port: Annotated[StrictInt, Field(ge=1, le=65535)] | None = None
    """The port of `server`; default: 53, or 853 with `protocol: tls`."""
    protocol: Literal["udp", "tcp", "tls"] = "udp"
    """How to send the query. If a response over UDP is truncated, the query is repeated over TCP. `tls` is DNS over
    TLS, and requires `server`."""
    tls: TlsConfig = TlsConfig()
    """For `protocol: tls`: how to verify the server's certificate. The default `server_name` is `server`."""
    contains: ExpectedAnswers = ()
    """One or several answers that the response must contain. They are written as in a zone file, but without quotes and
    final dots: `203.0.113.7`, `10 mail.acme.example`."""
    equals: ExpectedAnswers = ()
    """The answers that the response must contain, in any order, and no others. Cannot be combined with `contains`."""

    @model_validator(mode="before")
    @classmethod
    def _accept_upper_and_lower_case(cls, data: Any) -> Any:
        if isinstance(data, dict):
            folded = {"type": str.upper, "protocol": str.lower}
            return {k: folded[k](v) if k in folded and isinstance(v, str) else v for k, v in data.items()}
        return data

    @model_validator(mode="after")
    def _validate_consistency(self) -> Self:
        errors: list[tuple[FieldPath, str]] = []
        if problem := self._find_name_problem():
            errors.append((("name",), problem))
        if self.contains and self.equals:
            errors.append((("contains",), "`contains` and `equals` cannot be combined: remove one of them"))
        if self.server is None and self.port is not None:
            errors.append((("port",), "`port` requires `server`: set `server`, or remove `port`"))
        if self.server is None and self.protocol == "tls":
            errors.append((("protocol",), "`tls` requires `server`, whose certificate is verified: set `server`"))
        if self.protocol != "tls" and "tls" in self.model_fields_set:
            errors.append((("tls",), "`tls` requires `protocol: tls`: set `protocol`, or remove `tls`"))
        for name in ("contains", "equals"):
            errors += [((name,), text) for text in self._find_expected_answer_problems(getattr(self, name))]
        if errors:
            raise MultiFieldValidationError(errors)
        return self

    def _find_name_problem(self) -> str:
        try:
            if not _is_ip_address(self.name):
                parse_dns_name(self.name)
            elif self.type != "PTR":
                return "expected a name, found an IP address: to look up its name, set `type: PTR`"
        except ValueError as error:
            return str(error)
        return ""

    def _find_expected_answer_problems(self, answers: Iterable[str]) -> Iterable[str]:
        if self.type not in ADDRESS_RECORD_TYPES:
            return
        version, example = (4, "203.0.113.7") if self.type == "A" else (6, "2001:db8::7")
        for answer in answers:
            if not _is_ip_address(answer) or ip_address(answer).version != version:
                yield f"expected an IPv{version} address, such as {example}, found '{answer[:80]}'"

    @property
    def record_name(self) -> str:
        """In ASCII form; the reverse name of an address."""
        return ip_address(self.name).reverse_pointer if _is_ip_address(self.name) else parse_dns_name(self.name)

    @property
    def server_port(self) -> int:
        return self.port or DEFAULT_PORT_BY_DNS_TRANSPORT[self.protocol]

    @property
    def server_endpoint(self) -> str:
        """Host and port; empty for the name servers of this machine."""
        if self.server is None:
            return ""
        return f"[{self.server}]:{self.server_port}" if ":" in self.server else f"{self.server}:{self.server_port}"

    def build_question(self, allow_private_addresses: bool) -> DnsQuestion:
        from watchdog.net.dns_client import DnsQuestion

        return DnsQuestion(
            self.record_name,
            self.type,
            server=self.server or "",
            port=self.server_port,
            transport=self.protocol,
            tls=self.tls,
            allow_private_addresses=allow_private_addresses,
        )

    def find_wrong_answers(self, answers: Iterable[str]) -> str:
        """What is missing or unexpected among the answers, in words; empty: nothing."""
        observed = set(answers)
        wanted = dict.fromkeys(normalize_dns_answer(self.type, text) for text in self.contains or self.equals)
        missing = [text for text in wanted if text not in observed]
        unexpected = sorted(observed - wanted.keys()) if self.equals else []
        parts = (("missing", missing), ("unexpected", unexpected))
        return "; ".join(f"{label}: {format_answers(texts)}" for label, texts in parts if texts)


def _is_ip_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def format_answers(answers: Iterable[str]) -> str:
    """The first of them, for a message."""
    texts = [text if len(text) <= MAX_ANSWER_CHARS else f"{text[:MAX_ANSWER_CHARS]}..." for text in answers]
    more = f" and {len(texts) - MAX_ANSWERS_IN_MESSAGE} more" if len(texts) > MAX_ANSWERS_IN_MESSAGE else ""
    return ", ".join(texts[:MAX_ANSWERS_IN_MESSAGE]) + more


class DnsProbe(Probe):
    """Sends a DNS query. At least one record of the type is expected, unless an `expect` expression uses the `rcode`
    variable. In expressions, `answers` is sorted and written as in `contains`; `ttl` is the lowest TTL in seconds, or 0
    without answers."""

    kind: ClassVar[str] = "dns"
    example: ClassVar[str] = """
        probes:
          - name: Website record
            dns: {name: acme.example, type: A, server: 192.0.2.53, contains: 203.0.113.7}
            prefer: [ttl <= 3600, elapsed_ms <= 200]
          - name: Mail records
            dns: {name: acme.example, type: MX, equals: [10 mail.acme.example, 20 backup.acme.example]}
          - name: System resolvers
            dns: acme.example
    """
    expression_variables: ClassVar[Mapping[str, str]] = {
        "answers": "list(string)",
        "ttl": "int",
        "elapsed_ms": "int",
        "rcode": "string",
    }
    form_fields: ClassVar[tuple[str, ...]] = ("dns.name", "dns.type", "dns.server")

    dns: DnsTarget
    """The query to send. The short form is the name alone."""

    @property
    def target(self) -> str:
        server = f" @{self.dns.server_endpoint}" if self.dns.server else ""
        return f"{self.dns.name} {self.dns.type}{server}"

    @property
    def network_endpoint(self) -> str:
        return self.dns.server_endpoint

    @property
    def may_run_without_store(self) -> bool:
        return True

    def preload(self) -> None:
        import watchdog.net.dns_client  # noqa: F401 - loaded here, used later
        from watchdog.net.dns_message import preload_dns_library

        preload_dns_library(self.dns.type)

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        import asyncio  # not when a configuration is only read

        from watchdog.net.dns_client import DnsClient

        timer, remaining_s = context.phase_timer, context.remaining_s
        ends_at = asyncio.get_running_loop().time() + remaining_s - min(MAX_DNS_END_MARGIN_S, remaining_s / 4)
        question = self.dns.build_question(self.allow_private_addresses)
        try:
            exchange = await DnsClient(context.network, question, timer, context.started_at, ends_at).query()
            return await self._judge(exchange, context)
        except ProbeError as error:
            return build_observation_from_error(error, timer)

    async def _judge(self, exchange: DnsExchange, context: ProbeAttemptContext) -> Observation:
        """Raises ProbeError."""
        reply, timer = exchange.reply, context.phase_timer
        elapsed_ms = sum(
            ms for phase, ms in timer.phase_durations_ms.items() if phase not in RESPONSE_PROCESSING_PHASES
        )
        expressions = ExpressionEvaluationContext(
            {"answers": list(reply.answers), "ttl": reply.ttl_s, "elapsed_ms": round(elapsed_ms), "rcode": reply.rcode},
            value_templates={"rcode": "response code {}"},
        )
        verdict, listings = await judge_expressions_inline_or_in_worker(
            context, expressions, self.expectation_expressions, self.preference_expressions
        )
        outcome, reason, message = verdict.outcome, verdict.reason, verdict.message
        if problem := self._find_answer_problem(exchange):
            broken = message if outcome is Outcome.FAIL else ""
            outcome, (reason, message) = Outcome.FAIL, problem
            message = "; ".join(filter(None, (message, broken)))
        facts = self._build_evidence_facts(exchange, timer.facts)
        return Observation(
            outcome,
            reason,
            message,
            duration=elapsed_ms,
            phases=timer.phase_durations_ms,
            measurements={"rcode": reply.rcode, "answers": len(reply.answers), "ttl": reply.ttl_s},
            listings=listings if outcome is Outcome.PASS else {},
            evidence=Evidence(facts | ({"expect": verdict.evidence} if verdict.evidence else {}), reply.excerpt),
            retryable=reason in ("dns.servfail", "dns.refused"),
        )

    def _find_answer_problem(self, exchange: DnsExchange) -> tuple[str, str] | None:
        reply = exchange.reply
        expects_rcode = any("rcode" in expression.used_variables for expression in self.expectation_expressions)
        if not expects_rcode and (problem := self._find_failed_lookup(exchange)):
            return problem
        wrong_answers = self.dns.find_wrong_answers(reply.answers)
        if not wrong_answers:
            return None
        observed = f"is {format_answers(reply.answers)}" if reply.answers else "has no answer"
        return build_reason_and_message(
            "dns.unexpected_answer", question=self._question_text, observed=observed, difference=wrong_answers
        )

    def _find_failed_lookup(self, exchange: DnsExchange) -> tuple[str, str] | None:
        reply, server = exchange.reply, exchange.server
        detail = reply.extended_error
        match reply.rcode:
            case "NOERROR" if reply.answers:
                return None
            case "NOERROR" if reply.referred_to:
                servers = format_answers(reply.referred_to)
                return build_reason_and_message("dns.referral", detail, server=server, servers=servers)
            case "NOERROR":
                return build_reason_and_message(
                    "dns.no_data", detail, name=_name_with_alias(self, reply), type=self.dns.type
                )
            case "NXDOMAIN":
                return build_reason_and_message("dns.nxdomain", detail, name=_name_with_alias(self, reply))
            case "SERVFAIL":
                return build_reason_and_message("dns.servfail", detail, server=server)
            case "REFUSED":
                return build_reason_and_message("dns.refused", detail, server=server)
        return build_reason_and_message("dns.error_response", detail, server=server, rcode=reply.rcode)

    @property
    def _question_text(self) -> str:
        return f"{self.dns.name} {self.dns.type}"

    def _build_evidence_facts(self, exchange: DnsExchange, facts_so_far: Mapping[str, Json]) -> dict[str, Json]:
        reply = exchange.reply
        facts: dict[str, Json] = {
            **facts_so_far,
            "server": f"{exchange.server} ({exchange.transport.upper()})",
            "rcode": reply.rcode,
            "answers": [text[:MAX_ANSWER_CHARS] for text in reply.answers[:MAX_ANSWERS_IN_EVIDENCE]],
        }
        if len(reply.answers) > MAX_ANSWERS_IN_EVIDENCE:
            facts["answer_count"] = len(reply.answers)
        if reply.answers:
            facts["ttl"] = reply.ttl_s
        if reply.canonical_name:
            facts["canonical_name"] = reply.canonical_name
        if reply.extended_error:
            facts["extended_error"] = reply.extended_error
        return facts


def _name_with_alias(probe: DnsProbe, reply: DnsReply) -> str:
    """ "www.acme.example (an alias of web.acme.example)"."""
    alias = f" (an alias of {reply.canonical_name})" if reply.canonical_name else ""
    return f"{probe.dns.name}{alias}"
