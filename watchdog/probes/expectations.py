"""Turns what a run observed into an observation with an outcome. Shared by all kinds of probes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from watchdog.domain.model import Evidence, ExpressionFacts, Json, Listing, Observation, Outcome
from watchdog.domain.rules import preference
from watchdog.expression_failures import describe_error, describe_failure
from watchdog.expressions import Expression, ExpressionError
from watchdog.net.errors import ProbeError
from watchdog.net.phases import PhaseTimer


class ExpectationResult(NamedTuple):
    """How an expression evaluated. Reason and message are empty if it is true."""

    reason: str
    message: str
    evidence: str
    """For the evidence, beside the expression: "true", "false: observed 503"."""


@dataclass(frozen=True, slots=True)
class ExpressionContext:
    """The values that the expressions of one run refer to."""

    variables: Mapping[str, Json]
    unavailable_variables: Mapping[str, str] = field(default_factory=dict)
    """Variable -> why it has no value in this run."""
    value_templates: Mapping[str, str] = field(default_factory=dict)
    """Variable -> how messages word its value: "HTTP {}"."""

    def evaluate_expectation(self, expression: Expression) -> ExpectationResult:
        unavailable = sorted(expression.used_variables & self.unavailable_variables.keys())
        problem = self.unavailable_variables[unavailable[0]] if unavailable else ""
        try:
            if not problem and expression.evaluate_bool(self.variables):
                return ExpectationResult("", "", "true")
        except ExpressionError as error:
            problem = describe_error(expression, str(error), self.variables)
        if problem:
            return ExpectationResult(
                "expectation.evaluation_failed",
                f"an expression cannot be evaluated: {problem}",
                f"cannot be evaluated: {problem}",
            )
        observed = expression.observed_value_text(self.variables)
        message = describe_failure(expression, self.variables, self.value_templates)
        return ExpectationResult(
            "expectation.failed",
            message,
            f"false: {message}" if observed is None else f"false: observed {observed}",
        )

    def preference_listings(self, expressions: Iterable[Expression], observed_at: int) -> dict[str, Listing]:
        """The listing of these expressions; empty if there are none."""
        facts = {e.text: ExpressionFacts(self.evaluate_expectation(e).message) for e in expressions}
        return {preference.RULE_NAME: Listing(observed_at, facts)} if facts else {}


def join_failures(results: Iterable[ExpectationResult]) -> tuple[str, str]:
    """The reason of the first expression that is not met, and what each of them shows; empty if all are met."""
    failures = [result for result in results if result.reason]
    if not failures:
        return "", ""
    return failures[0].reason, "; ".join(dict.fromkeys(failure.message for failure in failures))


def observation_from_error(error: ProbeError, phase_timer: PhaseTimer) -> Observation:
    """The observation of a target that gave no usable response."""
    phase = {} if error.phase is None else {"phase": error.phase}
    phases = phase_timer.phase_durations_ms
    is_connected = bool(phases.keys() - {"dns", "connect"})
    return Observation(
        Outcome.ERROR if error.is_internal else Outcome.FAIL,
        error.reason,
        error.message,
        duration=sum(phases.values()) if is_connected else None,
        phases=phases,
        evidence=Evidence({**phase, **error.facts}, error.excerpt),
        retryable=error.retryable,
    )


def add_facts(observation: Observation, facts: Mapping[str, Json]) -> Observation:
    """The observation with more facts in its evidence. Its own facts come first; a fact given twice takes the new
    value."""
    evidence = replace(observation.evidence, facts={**observation.evidence.facts, **facts})
    return replace(observation, evidence=evidence)
