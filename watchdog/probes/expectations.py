"""Turns what a run observed into an observation with an outcome. Shared by all kinds of probes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from watchdog.domain.model import Evidence, Json, Observation, Outcome, SubjectListing
from watchdog.domain.reasons import ReasonCategory, get_reason_entry
from watchdog.domain.rules import preference
from watchdog.expression_failures import describe_expression_evaluation_error, describe_false_expression
from watchdog.expressions import CelBudgetExceededError, CelExpression, CelExpressionError
from watchdog.net.body_limits import MAX_JSON_ELEMENTS_IN_EVENT_LOOP
from watchdog.net.errors import ProbeError
from watchdog.net.phases import PhaseTimer
from watchdog.probes.base import ProbeAttemptContext
from watchdog.probes.partial_text import evaluate_expression_decided_by_text_beginning


class ExpectationResult(NamedTuple):
    """How an expression evaluated. Reason and message are empty if it is true."""

    reason: str
    message: str
    evidence: str
    """For the evidence, beside the expression: "true", "false: observed 503"."""

    @property
    def is_evaluation_error(self) -> bool:
        """Watchdog could not judge: the expression needs more than it reads or computes."""
        return bool(self.reason) and get_reason_entry(self.reason).scope is ReasonCategory.ERROR


class ExpressionVariableValueProblem(NamedTuple):
    """Why a variable has no value, or another one than expected."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ExpressionEvaluationContext:
    """The values that the expressions of one run refer to."""

    variables: Mapping[str, Json]
    unavailable_variables: Mapping[str, ExpressionVariableValueProblem] = field(default_factory=dict)
    """Variable -> why it has no value in this run."""
    value_templates: Mapping[str, str] = field(default_factory=dict)
    """Variable -> how messages word its value: "HTTP {}"."""
    beginnings: Mapping[str, str] = field(default_factory=dict)
    """Unavailable variable -> the beginning of its text, if that much is known."""
    malformed_variables: Mapping[str, ExpressionVariableValueProblem] = field(default_factory=dict)
    """Variable -> why its value is text although it should be JSON. It is the cause of an expression that cannot be
    evaluated."""

    def evaluate_expectation(self, expression: CelExpression) -> ExpectationResult:
        try:
            if problem := self._find_missing_value_problem(expression):
                return _build_unevaluated_expectation_result(problem)
            if expression.used_variables & self.unavailable_variables.keys():
                return self._evaluate_expectation_on_text_beginning(expression)
            if expression.evaluate_bool(self.variables):
                return ExpectationResult("", "", "true")
        except CelBudgetExceededError as error:
            return _build_unevaluated_expectation_result(
                ExpressionVariableValueProblem("expectation.over_budget", str(error))
            )
        except CelExpressionError as error:
            malformed = sorted(expression.used_variables & self.malformed_variables.keys())
            if malformed:
                problem = self.malformed_variables[malformed[0]]
                return ExpectationResult(problem.reason, problem.message, f"cannot be evaluated: {problem.message}")
            text = describe_expression_evaluation_error(expression, str(error), self.variables)
            return _build_unevaluated_expectation_result(
                ExpressionVariableValueProblem("expectation.evaluation_failed", text)
            )
        observed = expression.format_observed_value(self.variables)
        message = describe_false_expression(expression, self.variables, self.value_templates)
        return ExpectationResult(
            "expectation.failed",
            message,
            f"false: {message}" if observed is None else f"false: observed {observed}",
        )

    def _find_missing_value_problem(self, expression: CelExpression) -> ExpressionVariableValueProblem | None:
        """Why the expression cannot be evaluated at all; None if it can, or if the beginning of a text may decide."""
        missing = sorted(expression.used_variables & self.unavailable_variables.keys() - self.beginnings.keys())
        return self.unavailable_variables[missing[0]] if missing else None

    def _evaluate_expectation_on_text_beginning(self, expression: CelExpression) -> ExpectationResult:
        [variable, *_] = sorted(expression.used_variables & self.unavailable_variables.keys())
        result = evaluate_expression_decided_by_text_beginning(
            expression, variable, self.beginnings[variable], self.variables, expression.variable_types
        )
        if result is None:
            return _build_unevaluated_expectation_result(self.unavailable_variables[variable])
        if result:
            return ExpectationResult("", "", "true")
        values = {**self.variables, variable: self.beginnings[variable]}
        message = describe_false_expression(expression, values, self.value_templates)
        return ExpectationResult("expectation.failed", message, f"false: {message}")

    def evaluate_all_preferences_as_listing_by_rule(
        self, expressions: Iterable[CelExpression], observed_at: int
    ) -> dict[str, SubjectListing]:
        """The listing of these expressions; empty if there are none."""
        facts = {
            e.text: preference.PreferenceExpressionResult(self.evaluate_expectation(e).message) for e in expressions
        }
        return {preference.ALERT_RULE_NAME: SubjectListing(observed_at, facts)} if facts else {}


def _build_unevaluated_expectation_result(problem: ExpressionVariableValueProblem) -> ExpectationResult:
    message = f"an expression cannot be evaluated: {problem.message}"
    return ExpectationResult(problem.reason, message, f"cannot be evaluated: {problem.message}")


class ExpectationsVerdict(NamedTuple):
    """What the expectations of one run come to."""

    outcome: Outcome
    reason: str
    message: str
    evidence: dict[str, str]
    """Expression -> how it evaluated."""


def evaluate_expectations_to_verdict(
    context: ExpressionEvaluationContext,
    expectations: Collection[CelExpression],
    preferences: Collection[CelExpression] = (),
) -> ExpectationsVerdict:
    """The target fails if an expectation is certainly broken; the reason is that of the first, the message names all.

    Otherwise it cannot be judged if Watchdog could not evaluate an expectation or a preference for a reason of its own.
    """
    if not expectations and not preferences:
        return ExpectationsVerdict(Outcome.PASS, "", "", {})
    results = {expression.text: context.evaluate_expectation(expression) for expression in expectations}
    evidence = {text: result.evidence for text, result in results.items()}
    broken = [result for result in results.values() if result.reason and not result.is_evaluation_error]
    if broken:
        message = "; ".join(dict.fromkeys(result.message for result in broken))
        return ExpectationsVerdict(Outcome.FAIL, broken[0].reason, message, evidence)
    undecided = [*results.values(), *map(context.evaluate_expectation, preferences)]
    if internal := next((result for result in undecided if result.is_evaluation_error), None):
        return ExpectationsVerdict(Outcome.ERROR, internal.reason, internal.message, evidence)
    return ExpectationsVerdict(Outcome.PASS, "", "", evidence)


class JudgedExpressions(NamedTuple):
    """What the expressions of one run come to."""

    verdict: ExpectationsVerdict
    listings: dict[str, SubjectListing]
    """Of the preferences, if the run is good."""


def judge_expressions(
    context: ExpressionEvaluationContext,
    expectations: tuple[CelExpression, ...],
    preferences: tuple[CelExpression, ...],
    slot: int,
) -> JudgedExpressions:
    verdict = evaluate_expectations_to_verdict(context, expectations, preferences)
    is_good = verdict.outcome is Outcome.PASS
    return JudgedExpressions(
        verdict, context.evaluate_all_preferences_as_listing_by_rule(preferences, slot) if is_good else {}
    )


async def judge_expressions_inline_or_in_worker(
    attempt: ProbeAttemptContext,
    context: ExpressionEvaluationContext,
    expectations: tuple[CelExpression, ...],
    preferences: tuple[CelExpression, ...],
) -> JudgedExpressions:
    """In the worker process if an expression loops over a list that the target can make long. Raises ProbeError."""
    lengths = [len(value) for value in context.variables.values() if isinstance(value, list)]
    loops = any(expression.loops for expression in (*expectations, *preferences))
    return await attempt.network.run_cpu_work_inline_or_in_worker(
        attempt.phase_timer,
        judge_expressions,
        context,
        expectations,
        preferences,
        attempt.slot,
        in_worker=loops and max(lengths, default=0) > MAX_JSON_ELEMENTS_IN_EVENT_LOOP,
    )


def build_cert_days_template(days: int | None, expires_at_text: str, whose: str = "certificate") -> str:
    """How messages word `cert_days`: "certificate expires in {} days (1 Dec 2026 10:00 UTC)"."""
    noun = "day" if days == 1 else "days"
    return f"{_escape_braces(whose)} expires in {{}} {noun} ({expires_at_text})"


def _escape_braces(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def build_observation_from_error(error: ProbeError, phase_timer: PhaseTimer) -> Observation:
    """The observation of a target that gave no usable response."""
    phase = {} if error.phase is None else {"phase": error.phase}
    phases, so_far = phase_timer.phase_durations_ms, phase_timer.attempt_evidence_so_far
    is_connected = bool(phases.keys() - {"dns", "connect"})
    return Observation(
        Outcome.ERROR if error.is_internal else Outcome.FAIL,
        error.reason,
        error.message,
        duration=sum(phases.values()) if is_connected else None,
        phases=phases,
        evidence=Evidence({**phase, **so_far.facts, **error.facts}, error.excerpt or so_far.excerpt),
        retryable=error.retryable,
        transport_reason=error.transport_reason,
    )


def add_facts_to_observation_evidence(observation: Observation, facts: Mapping[str, Json]) -> Observation:
    """The observation with more facts in its evidence. Its own facts come first; a fact given twice takes the new
    value."""
    evidence = replace(observation.evidence, facts={**observation.evidence.facts, **facts})
    return replace(observation, evidence=evidence)
