"""How what a run saw becomes a verdict, the same for every kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from watchdog.domain.model import Evidence, Json, Observation, Outcome
from watchdog.expressions import Expression, ExpressionError
from watchdog.net.errors import ProbeError
from watchdog.net.phases import PhaseTimer


@dataclass(frozen=True, slots=True)
class ExpressionContext:
    """What the expressions of one run may look at."""

    variables: Mapping[str, Json]
    unavailable_variables: Mapping[str, str] = field(default_factory=dict)
    """Variable -> why it has no value in this run."""

    def evaluate_expectation(self, expression: Expression) -> tuple[str, str]:
        """Reason and message: both empty when it holds, else expectation_failed or expectation_not_computable."""
        why = next(
            (
                self.unavailable_variables[name]
                for name in sorted(expression.used_variables)
                if name in self.unavailable_variables
            ),
            "",
        )
        try:
            if not why and expression.evaluate_bool(self.variables):
                return "", ""
        except ExpressionError as error:
            why = str(error)
        if why:
            return "expectation.evaluation_failed", f"{expression.text} cannot be computed: {why}"
        observed = expression.observed_value_text(self.variables)
        seen = "" if observed is None else f": observed {observed}"
        return "expectation.failed", f"{expression.text} is false{seen}"

    def evaluate_preferences(self, expressions: Iterable[Expression]) -> dict[str, str]:
        """Text of each expression -> what is wrong; empty when it holds."""
        return {expression.text: self.evaluate_expectation(expression)[1] for expression in expressions}


def describe_expectation_result(expression: Expression, message: str) -> str:
    """What the evidence says beside the expression's own text: "holds", or "is false: observed 503"."""
    return message.removeprefix(expression.text).strip() or "holds"


def observation_from_error(error: ProbeError, phase_timer: PhaseTimer) -> Observation:
    """The observation of a target that gave no usable answer."""
    phase = {} if error.phase is None else {"phase": error.phase}
    phases = phase_timer.phase_durations_ms
    reached = phases.keys() - {"dns", "connect"}
    return Observation(
        Outcome.ERROR if error.is_internal else Outcome.FAIL,
        error.reason,
        error.message,
        duration=sum(phases.values()) if reached else None,
        phases=phases,
        evidence=Evidence({**phase, **error.facts}, error.excerpt),
        retryable=error.retryable,
    )
