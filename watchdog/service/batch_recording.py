"""Records a batch of results, even if the store refuses the content of some of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import structlog

from watchdog.domain.model import IncidentTransition, Outcome, ProbeResult, ResultToRecord
from watchdog.domain.rules import missed_run
from watchdog.probes.base import Probe
from watchdog.service.clock import Clock
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.write.recorder import ResultRecorder

log = structlog.get_logger()


async def record_result_batch(
    store_executor: StoreExecutor,
    recorder: ResultRecorder,
    batch: Sequence[ResultToRecord],
    probes: Mapping[int, Probe],
    *,
    read_time: Clock | None,
) -> list[IncidentTransition]:
    """Record a batch; if its content is refused, record each result by itself.

    A result that cannot be stored is replaced by an `error`: retried forever, it would block all others. If no
    result can be stored, the content is not the reason, and the whole batch waits. `read_time`: lateness is judged by
    this clock; None: by now.
    """

    async def record_results_in_store(results: Sequence[ResultToRecord]) -> list[IncidentTransition]:
        return await store_executor.run_write_with_now(partial(recorder.record_results, results), read_time)

    try:
        return await record_results_in_store(batch)
    except StoreUnavailableError:
        raise
    except Exception as e:
        batch_error = e
    transitions: list[IncidentTransition] = []
    refused: list[tuple[ProbeResult, Exception]] = []
    stored = False
    for recorded_result in batch:
        for candidate in (recorded_result, build_unstorable_result_replacement(recorded_result.result)):
            try:
                transitions += await record_results_in_store([candidate])
                stored = True
                break
            except StoreUnavailableError:
                raise
            except Exception as e:
                if candidate is recorded_result:
                    refused.append((recorded_result.result, e))
    if not stored:
        raise batch_error
    for result, error in refused:
        probe = probes.get(result.probe)
        fields = {"probe_id": probe.id if probe else "", "slot": result.slot}
        log.error("result_not_stored", **fields, error=type(error).__name__)
    return transitions


def build_unstorable_result_replacement(result: ProbeResult) -> ResultToRecord:
    """What is recorded in place of a result that cannot be stored."""
    return ResultToRecord(
        ProbeResult(
            result.probe,
            result.slot,
            result.location,
            Outcome.ERROR,
            "watchdog.internal_error",
            message="no verdict: the result could not be stored; please report this",
            previous_slot=result.previous_slot,
        )
    )


def _is_requested(result: ProbeResult) -> bool:
    return missed_run.REQUESTED_RUN_MEASUREMENT_NAME in result.measurements


def compute_latest_next_run_time_by_probe(
    batch: Iterable[ResultToRecord], probes: Mapping[int, Probe], timeline: str
) -> dict[int, int]:
    """When each probe runs next at the latest, if it has a deadline, or if it has failed and has a `retry_interval`.
    Later results of a probe replace earlier ones, and those of another timeline say nothing about this one."""
    times = {}
    for recorded in sorted(batch, key=lambda recorded: recorded.result.slot):
        result, probe = recorded.result, probes.get(recorded.result.probe)
        if probe is None or result.location != timeline:
            continue
        if recorded.rerun_at is not None:
            times[result.probe] = recorded.rerun_at
        elif result.outcome is Outcome.FAIL and probe.retry_interval is not None and not _is_requested(result):
            times[result.probe] = result.slot + probe.retry_interval
    return times
