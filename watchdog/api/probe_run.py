"""A run on demand as JSON, for `watchdog probe` and the tool `run_probe`. Loads no database library."""

from __future__ import annotations

from watchdog.domain.model import Finding, Json
from watchdog.service.run_once import OnDemandRun


def serialize_on_demand_run(run: OnDemandRun) -> dict[str, Json]:
    """`evidence` is text from the target, untrusted."""
    result, evidence = run.recorded_result.result, run.recorded_result.evidence
    return {
        "probe": run.probe.id,
        "kind": run.probe.kind,
        "outcome": run.outcome.value,
        "reason": run.reason,
        "message": run.message,
        "duration_ms": result.duration,
        "phases_ms": {name: round(ms, 1) for name, ms in result.phases.items()},
        "measurements": dict(result.measurements),
        "listings": {
            rule: {subject: facts._asdict() for subject, facts in listing.subjects.items()}
            for rule, listing in result.listings.items()
        },
        "findings": [_serialize_finding(finding) for finding in run.findings],
        "evidence": {"facts": dict(evidence.facts), "excerpt": evidence.excerpt},
    }


def _serialize_finding(finding: Finding) -> Json:
    return {
        "rule": finding.rule,
        "subject": finding.subject,
        "reason": finding.reason,
        "message": finding.message,
    }
