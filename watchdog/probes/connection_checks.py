"""What probes of other protocols than HTTP share: the variables of their expressions, and the observation of a pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from watchdog.config_types import FieldPath, MultiFieldValidationError
from watchdog.domain.model import Evidence, Json, Observation, Outcome
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.probes.expectations import ExpressionEvaluationContext, evaluate_expectations_to_verdict

if TYPE_CHECKING:
    from watchdog.net.handshake import EarliestCertificateExpiry

CONNECTION_EXPRESSION_VARIABLES: Mapping[str, str] = {"elapsed_ms": "int", "cert_days": "int"}


def require_tls_for_cert_days(probe: Probe, remedy: str) -> None:
    """Raises MultiFieldValidationError if an expression of a probe without TLS uses `cert_days`."""
    errors: list[tuple[FieldPath, str]] = [
        ((field, i), f"cert_days requires TLS: {remedy}")
        for field, expressions in (
            ("expect", probe.expectation_expressions),
            ("prefer", probe.preference_expressions),
        )
        for i, expression in enumerate(expressions)
        if "cert_days" in expression.used_variables
    ]
    if errors:
        raise MultiFieldValidationError(errors)


def build_checked_connection_observation(
    probe: Probe, context: ProbeAttemptContext, expiry: EarliestCertificateExpiry | None, evidence: Evidence
) -> Observation:
    """The observation of a target that passed its check, unless an expectation about it is broken. `expiry`: None
    without TLS."""
    phases = context.phase_timer.phase_durations_ms
    elapsed_ms = sum(phases.values())
    variables: dict[str, Json] = {"elapsed_ms": round(elapsed_ms), "cert_days": None}
    templates: dict[str, str] = {}
    facts: dict[str, Json] = {**context.phase_timer.facts, "elapsed_ms": round(elapsed_ms), **evidence.facts}
    if expiry is not None:
        variables["cert_days"] = expiry.days
        noun = "day" if expiry.days == 1 else "days"
        templates["cert_days"] = f"certificate expires in {{}} {noun} ({expiry.expires_at_text})"
        facts["certificate"] = expiry.description
    expressions = ExpressionEvaluationContext(variables, value_templates=templates)
    verdict = evaluate_expectations_to_verdict(expressions, probe.expectation_expressions, probe.preference_expressions)
    is_good = verdict.outcome is Outcome.PASS
    return Observation(
        verdict.outcome,
        verdict.reason,
        verdict.message,
        duration=elapsed_ms,
        phases=phases,
        measurements={} if expiry is None else {"cert_days": expiry.days},
        listings=expressions.evaluate_all_preferences_as_listing_by_rule(probe.preference_expressions, context.slot)
        if is_good
        else {},
        evidence=Evidence(facts | ({"expect": verdict.evidence} if verdict.evidence else {}), evidence.excerpt),
    )
