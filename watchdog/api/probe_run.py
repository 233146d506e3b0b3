"""A run on demand as JSON, for `watchdog probe` and the tool `run_probe`. Loads no database library."""

from __future__ import annotations

from watchdog.domain.model import Evidence, Finding, Json, ProbeResult
from watchdog.domain.rules import AlertPolicy
from watchdog.service.run_once import OnDemandRun, SingleResultVerdict, judge_single_result


def serialize_on_demand_run(run: OnDemandRun) -> dict[str, Json]:
    """`evidence` is text from the target, untrusted."""
    verdict = SingleResultVerdict(run.findings, run.outcome, run.reason, run.message)
    result, evidence = run.recorded_result.result, run.recorded_result.evidence
    return {"probe": run.probe.id, "kind": run.probe.kind, **_serialize_run(verdict, result, evidence)}


def serialize_requested_run(policy: AlertPolicy, result: ProbeResult, evidence: Evidence) -> dict[str, Json]:
    """As `serialize_on_demand_run`, of a run in the service."""
    verdict = judge_single_result(policy, result)
    return {"probe": policy.probe.id, "kind": policy.probe.kind, **_serialize_run(verdict, result, evidence)}


def _serialize_run(verdict: SingleResultVerdict, result: ProbeResult, evidence: Evidence) -> dict[str, Json]:
    return {
        "outcome": verdict.outcome.value,
        "reason": verdict.reason,
        "message": verdict.message,
        "duration_ms": result.duration,
        "phases_ms": {name: round(ms, 1) for name, ms in result.phases.items()},
        "measurements": dict(result.measurements),
        "listings": {
            rule: {subject: facts._asdict() for subject, facts in listing.subjects.items()}
            for rule, listing in result.listings.items()
        },
        "findings": [_serialize_finding(finding) for finding in verdict.findings],
        "evidence": {"facts": dict(evidence.facts), "excerpt": evidence.excerpt},
    }


def _serialize_finding(finding: Finding) -> Json:
    return {
        "rule": finding.rule,
        "subject": finding.subject,
        "reason": finding.reason,
        "message": finding.message,
    }
