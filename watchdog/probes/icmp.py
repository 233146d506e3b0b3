"""The `icmp` probe: sends echo requests (ping) and evaluates loss and round-trip times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, StrictInt, WithJsonSchema, model_validator

from watchdog.config_types import (
    ConfigModel,
    Duration,
    MultiFieldValidationError,
    create_duration_bounds_validator,
    format_config_duration,
)
from watchdog.config_values import PERCENTAGE_PATTERN, parse_percentage
from watchdog.domain.formatting import format_count_with_noun
from watchdog.domain.model import Evidence, Json, Observation, Outcome
from watchdog.domain.reasons import build_reason_and_message
from watchdog.net.errors import ProbeError
from watchdog.net.host_names import HostName
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.probes.expectations import (
    ExpressionEvaluationContext,
    build_observation_from_error,
    evaluate_expectations_to_verdict,
)

if TYPE_CHECKING:
    from watchdog.net.icmp import EchoSequence

ECHO_REPLY_TIMEOUT_S = 2.0
MAX_ECHO_END_MARGIN_S = 0.25
"""How long before its deadline a run stops waiting, so that it can report the replies so far."""
MAX_ECHO_PAYLOAD_BYTES = 8_972
"""The largest that fits into an Ethernet jumbo frame."""

Percentage = Annotated[
    float, BeforeValidator(parse_percentage), WithJsonSchema({"type": "string", "pattern": PERCENTAGE_PATTERN})
]
"""A share below 100%, written with its sign: 20%, 0.5 %."""


class IcmpTarget(ConfigModel):
    """The host to ping. The short form is the host alone."""

    shorthand_field: ClassVar[str] = "host"

    host: HostName
    """A host name or an IP address. If the host has several addresses, the first one that this machine has a route to
    is pinged."""
    count: Annotated[StrictInt, Field(ge=1, le=50)] = 3
    """The number of echo requests in each run."""
    interval: Annotated[Duration, create_duration_bounds_validator("20ms", "10s")] = 200
    """The time between two echo requests. Sending all of them may take at most half of `timeout`."""
    max_loss: Percentage = 0.0
    """The highest permitted share of echo requests without a reply, such as `20%`. A reply that arrives more than 2 s
    after the last request counts as lost. A run without any reply always fails."""
    size: Annotated[StrictInt, Field(ge=0, le=MAX_ECHO_PAYLOAD_BYTES)] = 56
    """The number of bytes of data in each echo request. The headers add 28 bytes with IPv4, and 48 with IPv6."""


class IcmpProbe(Probe):
    """Pings a host. Watchdog needs no special privileges for this, but its operating system must permit it: on Linux,
    `net.ipv4.ping_group_range` must include the group that Watchdog runs with. In expressions, `loss` is a percentage,
    and the round-trip times are in milliseconds."""

    kind: ClassVar[str] = "icmp"
    example: ClassVar[str] = """
        probes:
          - name: Router
            icmp: 192.0.2.1
          - name: Office link
            icmp: {host: gateway.acme.example, count: 10, max_loss: 20%}
            prefer: [loss == 0.0, avg_ms <= 50.0, jitter_ms <= 10.0]
    """
    expression_variables: ClassVar[Mapping[str, str]] = {
        "loss": "double",
        "min_ms": "double",
        "avg_ms": "double",
        "max_ms": "double",
        "jitter_ms": "double",
    }
    form_fields: ClassVar[tuple[str, ...]] = ("icmp.host", "icmp.count", "icmp.max_loss")
    cards: ClassVar[tuple[str, ...]] = ("latency",)

    icmp: IcmpTarget
    """The host to ping. The short form is the host alone."""

    @model_validator(mode="after")
    def _validate_sending_time(self) -> Self:
        sending_ms = (self.icmp.count - 1) * self.icmp.interval
        if sending_ms > self.timeout / 2:
            message = (
                f"sending {self.icmp.count} requests takes {format_config_duration(sending_ms)}, expected at most half "
                f"of `timeout` ({format_config_duration(self.timeout)}): reduce count or interval, or raise timeout"
            )
            field = "interval" if "interval" in self.icmp.model_fields_set else "count"
            raise MultiFieldValidationError([(("icmp", field), message)])
        return self

    @property
    def target(self) -> str:
        return self.icmp.host

    @property
    def network_endpoint(self) -> str:
        return self.icmp.host

    @property
    def may_run_without_store(self) -> bool:
        return True

    def preload(self) -> None:
        from watchdog.net.icmp import preload_ping_library

        preload_ping_library()

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        import asyncio  # not when a configuration is only read

        timer, remaining_s = context.phase_timer, context.remaining_s
        ends_at = asyncio.get_running_loop().time() + remaining_s - min(MAX_ECHO_END_MARGIN_S, remaining_s / 4)
        try:
            echoes = await self._ping(context, ends_at)
        except ProbeError as error:
            return build_observation_from_error(error, timer)
        return self._judge(echoes, context)

    async def _ping(self, context: ProbeAttemptContext, ends_at: float) -> EchoSequence:
        from watchdog.net.icmp import open_ping_socket

        timer, connector = context.phase_timer, context.network.connector
        addresses = await connector.list_allowed_addresses(self.icmp.host, 0, timer, self.allow_private_addresses)
        timer.facts["address"] = ", ".join(str(address[0]) for _, address in addresses)
        with await open_ping_socket(connector, addresses) as ping_socket, timer.measure("echo"):
            timer.facts["address"] = ping_socket.host
            return await ping_socket.ping(
                self.icmp.count,
                interval_s=self.icmp.interval / 1000,
                payload_bytes=self.icmp.size,
                reply_timeout_s=ECHO_REPLY_TIMEOUT_S,
                ends_at=ends_at,
            )

    def _judge(self, echoes: EchoSequence, context: ProbeAttemptContext) -> Observation:
        statistics = echoes.statistics
        expressions = ExpressionEvaluationContext(statistics)
        phases = context.phase_timer.phase_durations_ms
        facts = {**context.phase_timer.facts, **_build_echo_facts(echoes, statistics)}
        evidence = Evidence(facts, describe_echoes(echoes))
        if problem := self._find_loss_problem(echoes):
            reason, message = problem
            return Observation(
                Outcome.FAIL,
                reason,
                message,
                duration=statistics.get("avg_ms"),
                phases=phases,
                measurements=statistics,
                evidence=evidence,
                retryable=True,
            )
        verdict = evaluate_expectations_to_verdict(
            expressions, self.expectation_expressions, self.preference_expressions
        )
        if verdict.evidence:
            evidence = Evidence({**evidence.facts, "expect": verdict.evidence}, evidence.excerpt)
        return Observation(
            verdict.outcome,
            verdict.reason,
            verdict.message,
            duration=statistics["avg_ms"],
            phases=phases,
            measurements=statistics,
            listings=expressions.evaluate_all_preferences_as_listing_by_rule(self.preference_expressions, context.slot)
            if verdict.outcome is Outcome.PASS
            else {},
            evidence=evidence,
        )

    def _find_loss_problem(self, echoes: EchoSequence) -> tuple[str, str] | None:
        sent, lost = echoes.sent_count, echoes.sent_count - len(echoes.round_trips_ms)
        if lost == sent:
            if not echoes.faults:
                requests = format_count_with_noun(sent, "echo request")
                return build_reason_and_message("icmp.no_reply", requests=requests)
            [(fault, _)] = Counter(echoes.faults.values()).most_common(1)
            return fault.reason, f"{fault.reporter} reports: {fault.problem}"
        loss = echoes.loss_percent
        if loss <= self.icmp.max_loss:
            return None
        reports = {f"{fault.reporter} reports: {fault.problem}" for fault in echoes.faults.values()}
        return build_reason_and_message(
            "icmp.loss",
            "; ".join(sorted(reports)),
            lost=str(lost),
            sent=str(sent),
            loss=f"{loss:g}%",
            limit=f"{self.icmp.max_loss:g}%",
        )


def _build_echo_facts(echoes: EchoSequence, statistics: Mapping[str, float]) -> dict[str, Json]:
    facts: dict[str, Json] = {"sent": echoes.sent_count, "received": len(echoes.round_trips_ms), **statistics}
    if echoes.foreign_reply_count:
        facts["ignored_replies"] = echoes.foreign_reply_count
    return facts


def describe_echoes(echoes: EchoSequence) -> str:
    """A line for each echo request."""
    lines = []
    for number in range(echoes.sent_count):
        if (round_trip_ms := echoes.round_trips_ms.get(number)) is not None:
            lines.append(f"{number + 1}: reply after {round_trip_ms:.3f} ms")
        elif (fault := echoes.faults.get(number)) is not None:
            lines.append(f"{number + 1}: {fault.reporter} reports: {fault.problem}")
        else:
            lines.append(f"{number + 1}: no reply")
    return "\n".join(lines)
