"""What the sample targets showed in the made-up past: a result for each probe, good or bad, as a run would store it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

from watchdog.demo.faults import DemoFault
from watchdog.domain.formatting import format_count_with_noun
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.measurements import JOBS_EVIDENCE_KEY, ListedJobCounts, QueueMeasurements
from watchdog.domain.model import (
    LOCAL_LOCATION_NAME,
    Evidence,
    Json,
    JsonScalar,
    Outcome,
    ProbeResult,
    ResultToRecord,
    SubjectFacts,
    SubjectListing,
)
from watchdog.domain.observations import McpScheduledTaskFacts, QueueStats, ScheduledJobFacts
from watchdog.domain.reasons import build_reason_and_message
from watchdog.domain.rules.job import judge_job_facts


class PastDemoOutage(NamedTuple):
    """One fault in the made-up past. Instants in ms since the epoch."""

    fault: DemoFault
    probe_id: str
    start: int
    end: int


class DemoHistoryResults:
    """Builds results for the probes of the demo. `random` decides about durations and numbers."""

    def __init__(self, random: Random, job_limits_by_probe: Mapping[str, Mapping[str, ScheduledJobLimits]]):
        self.random, self.job_limits_by_probe = random, job_limits_by_probe
        self._builders = {
            "website": self._build_website_result,
            "checkout": self._build_checkout_result,
            "search": self._build_search_result,
            "order-jobs": self._build_order_jobs_result,
            "backup": self._build_backup_result,
            "email-delivery": self._build_email_delivery_result,
            "thumbnail-backlog": self._build_thumbnail_backlog_result,
        }

    def build(self, probe_id: str, probe: int, slot: int, outage: PastDemoOutage | None) -> ResultToRecord:
        """`probe`: the database id of the probe with `probe_id`. `outage`: the one in progress, if any."""
        result, evidence = self._builders[probe_id](slot, outage)
        return ResultToRecord(result._replace(probe=probe), evidence)

    def _vary(self, mean: float, spread: float = 0.15) -> int:
        return max(1, round(self.random.gauss(mean, mean * spread)))

    def _build_website_result(self, slot: int, _: PastDemoOutage | None) -> tuple[ProbeResult, Evidence]:
        return _build_http_pass(slot, self._vary(36), '{"status":"ok"}')

    def _build_checkout_result(self, slot: int, outage: PastDemoOutage | None) -> tuple[ProbeResult, Evidence]:
        if outage is None:
            body = '{"status":"ok","db":"9 of 100 in use","queue":{"failed":0,"waiting":3}}'
            return _build_http_pass(slot, self._vary(112, 0.2), body)
        facts: dict[str, Json] = {
            "status": 503,
            "expect": {"status == 200": "false: observed 503", "body.queue.failed <= 10": "false: observed 12"},
        }
        body = '{"status":"unavailable","db":"pool exhausted: 100 of 100 in use","queue":{"failed":12,"waiting":61}}'
        problem = "expectation.failed", "HTTP 503, expected 200; body.queue.failed is 12, expected <= 10"
        result = _build_demo_probe_result(slot, problem, {"connect": 1.1, "first_byte": self._vary(4), "body": 0.3})
        result = result._replace(measurements={"status": 503, "size": len(body), "http_version": "1.1"})
        return result, Evidence(facts, f"HTTP/1.1 503 Service Unavailable\ncontent-type: application/json\n\n{body}")

    def _build_search_result(self, slot: int, outage: PastDemoOutage | None) -> tuple[ProbeResult, Evidence]:
        phases: dict[str, float] = {"connect": 2.0, "negotiate": self._vary(9), "list": self._vary(16)}
        facts: dict[str, Json] = {"server": "Demo search 4.2.1"}
        if outage is not None and outage.fault is DemoFault.TOOLS:
            text = "tools/list returns error -32603: search index unavailable: 0 of 3 shards reachable"
            return _build_demo_probe_result(slot, ("mcp.rpc_error", text), phases), Evidence(facts)
        reindexed_at = (slot if outage is None else outage.start) - 4_000
        runs = {"reindex": reindexed_at, "registry_sync": slot - 2_000, "session_cleanup": slot - 3_000_000}
        tasks = {name: McpScheduledTaskFacts(True, at, status="success") for name, at in runs.items()}
        result = _build_demo_probe_result(slot, None, {**phases, "call": self._vary(8)}, {"task": tasks})
        return result._replace(measurements={"tools": 2, "tasks": 3, "tasks_failed": 0}), Evidence(facts)

    def _build_order_jobs_result(self, slot: int, outage: PastDemoOutage | None) -> tuple[ProbeResult, Evidence]:
        jobs = []
        for name, ago_ms, duration_ms in (
            ("clean_carts", 240_000, self._vary(210)),
            ("export_orders", 3_000, self._vary(2_010, 0.03)),
            ("send_receipts", 2_000, self._vary(410, 0.05)),
        ):
            is_stuck = outage is not None and name == "export_orders"
            end = (outage.start if outage is not None and is_stuck else slot) - ago_ms
            job = ScheduledJobFacts(name, last_start=end - duration_ms, last_end=end, last_ok=end, duration=duration_ms)
            if outage is not None and is_stuck:
                job = job._replace(last_start=outage.start, running_since=outage.start, worker="worker-4711")
            jobs.append(job)
        return self._build_jobs_result("order-jobs", slot, jobs, {"query": self._vary(18)})

    def _build_backup_result(self, slot: int, outage: PastDemoOutage | None) -> tuple[ProbeResult, Evidence]:
        end = (slot if outage is None else outage.start) - 5_000
        job = ScheduledJobFacts("Backup", last_start=end, last_end=end, last_ok=end, expected_from=end)
        result, evidence = self._build_jobs_result("backup", slot, [job], {})
        return result._replace(duration=None, measurements={}), evidence

    def _build_jobs_result(
        self, probe_id: str, slot: int, jobs: Sequence[ScheduledJobFacts], phases: Mapping[str, float]
    ) -> tuple[ProbeResult, Evidence]:
        """Jobs are judged as a run would judge them."""
        limits = self.job_limits_by_probe[probe_id]
        verdicts = [judge_job_facts(job, limits.get(job.name) or limits["*"], slot) for job in jobs]
        problems = [(verdict.reason, verdict.message) for verdict in verdicts if verdict.reason]
        result = _build_demo_probe_result(
            slot, next(iter(problems), None), phases, {"job": {job.name: job for job in jobs}}
        )
        result = result._replace(measurements=ListedJobCounts(len(jobs), len(problems))._asdict())
        return result, Evidence({JOBS_EVIDENCE_KEY: {job.name: {} for job in jobs}})

    def _build_email_delivery_result(self, slot: int, outage: PastDemoOutage | None) -> tuple[ProbeResult, Evidence]:
        phases: dict[str, float] = {"connect": 0.8, "enqueue": self._vary(24)}
        problem, stats = None, QueueStats(waiting=0, consumers=1)
        if outage is not None:
            stats = QueueStats(waiting=1, consumers=0)
            problem = build_reason_and_message(
                "canary.not_picked_up", "1 waiting, 0 workers", period="within 4\N{NO-BREAK SPACE}s"
            )
        else:
            phases |= {"pick_up": self._vary(45), "finish": 1.0}
        metrics = QueueMeasurements.from_queue_metrics(stats)
        duration_ms = None if problem else round(phases["pick_up"] + phases["finish"])
        result = _build_demo_probe_result(slot, problem, phases)
        return result._replace(duration=duration_ms, measurements=metrics.to_measurements()), Evidence(
            metrics.to_evidence_facts()
        )

    def _build_thumbnail_backlog_result(self, slot: int, outage: PastDemoOutage | None) -> tuple[ProbeResult, Evidence]:
        waiting = self.random.randint(0, 2) if outage is None else (slot - outage.start) // 500 + 21
        metrics = QueueMeasurements.from_queue_metrics(
            QueueStats(waiting, active=int(outage is not None), delayed=0, failed=0, consumers=1)
        )
        problem = None
        if outage is not None:
            observed = f"{format_count_with_noun(waiting, 'job')} waiting"
            problem = build_reason_and_message("queue.threshold", observed=observed, limit="20")
        result = _build_demo_probe_result(slot, problem, {"connect": 0.8, "read": self._vary(60)})
        return result._replace(measurements=metrics.to_measurements()), Evidence(metrics.to_evidence_facts())


def _build_http_pass(slot: int, first_byte_ms: int, body: str) -> tuple[ProbeResult, Evidence]:
    measurements: dict[str, JsonScalar] = {"status": 200, "size": len(body), "http_version": "1.1"}
    result = _build_demo_probe_result(slot, None, {"connect": 1.1, "first_byte": first_byte_ms, "body": 0.4})
    evidence = Evidence({"status": 200}, f"HTTP/1.1 200 OK\ncontent-type: application/json\n\n{body}")
    return result._replace(measurements=measurements), evidence


def _build_demo_probe_result(
    slot: int,
    problem: tuple[str, str] | None,
    phases: Mapping[str, float],
    subjects_by_rule: Mapping[str, Mapping[str, SubjectFacts]] = {},
) -> ProbeResult:
    """`problem`: reason and message. The caller sets the probe."""
    return ProbeResult(
        0, slot, LOCAL_LOCATION_NAME, Outcome.FAIL if problem else Outcome.PASS, *(problem or ("", "")),
        duration=round(sum(phases.values())), phases=phases,
        listings={
            rule: SubjectListing(slot, dict(sorted(subjects.items()))) for rule, subjects in subjects_by_rule.items()
        },
    )  # fmt: skip
