"""How what a run saw becomes a verdict, the same for every kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from watchdog.expressions import Expression, ExpressionError
from watchdog.model import Evidence, Json, Observation, Outcome
from watchdog.wire.faults import Fault
from watchdog.wire.trace import Trace


@dataclass(frozen=True, slots=True)
class Values:
    """What the expressions of one run may look at."""

    known: Mapping[str, Json]
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Variable -> why it has no value in this run."""

    def judge(self, expression: Expression) -> tuple[str, str]:
        """Reason and message: both empty when it holds, else expectation_failed or expectation_not_computable."""
        why = next((self.unknown[name] for name in sorted(expression.names) if name in self.unknown), "")
        try:
            if not why and expression.evaluate(self.known):
                return "", ""
        except ExpressionError as error:
            why = str(error)
        if why:
            return "expectation.evaluation_failed", f"{expression.text} cannot be computed: {why}"
        observed = expression.observed(self.known)
        seen = "" if observed is None else f": observed {observed}"
        return "expectation.failed", f"{expression.text} is false{seen}"

    def preferences(self, expressions: Iterable[Expression]) -> dict[str, str]:
        """Text of each expression -> what is wrong; empty when it holds."""
        return {expression.text: self.judge(expression)[1] for expression in expressions}


def told(expression: Expression, message: str) -> str:
    """What the evidence says beside the expression's own text: "holds", or "is false: observed 503"."""
    return message.removeprefix(expression.text).strip() or "holds"


def faulted(fault: Fault, trace: Trace) -> Observation:
    """The observation of a target that gave no usable answer."""
    phase = {} if fault.phase is None else {"phase": fault.phase}
    phases = trace.phases
    reached = phases.keys() - {"dns", "connect"}
    return Observation(
        Outcome.ERROR if fault.ours else Outcome.FAIL,
        fault.reason,
        fault.message,
        duration=sum(phases.values()) if reached else None,
        phases=phases,
        evidence=Evidence({**phase, **fault.facts}, fault.excerpt),
        retryable=fault.retryable,
    )
