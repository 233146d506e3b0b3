"""The figures of the soak, and what it watches. `./dev prove soak` runs for an hour."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

from benchmarks.soak import CYCLE_S, MEASUREMENT_S, Sample, evaluate, fault_at, growth
from benchmarks.soak_targets import FAULTS, SoakTargets
from tests.support.third_party import ThirdPartyServers
from watchdog.config.load import load_config
from watchdog.probes import PROBE_KINDS
from watchdog.queues import CANARY_DRIVERS, JOB_SOURCES

PID, CHILD_PID = 100, 101


def sample(minute: float, rss_mb: float, descriptors: int = 20, children: dict[int, float] | None = None) -> Sample:
    return Sample(minute * 60, {PID: rss_mb, **(children or {})}, descriptors, 9, 14)


def over_limit(samples: list[Sample]) -> list[str]:
    return [figure.name for figure in evaluate(samples) if not figure.within_limit]


def test_a_process_that_does_not_grow_is_within_every_limit() -> None:
    assert over_limit([sample(minute, 190 + minute % 3) for minute in range(45)]) == []


def test_growth_of_memory_is_noticed_in_the_process_and_in_a_lasting_child() -> None:
    leaking = [sample(minute, 190 + 0.15 * minute) for minute in range(45)]
    assert over_limit(leaking) == ["growth of memory (RSS)"]
    leaking = [sample(minute, 190, children={CHILD_PID: 30 + 0.15 * minute}) for minute in range(45)]
    assert over_limit(leaking) == ["growth of memory (RSS)"]


def test_children_that_come_and_go_are_no_growth_of_memory() -> None:
    passing = [
        sample(minute, 190, children={200 + minute: 20 + minute} if minute % 4 == 0 else {}) for minute in range(45)
    ]
    assert over_limit(passing) == []


def test_growth_of_descriptors_is_noticed() -> None:
    assert over_limit([sample(minute, 190, 20 + minute // 10) for minute in range(45)]) == [
        "growth of open descriptors"
    ]
    assert growth([1, 1, 1, 9, 9, 9, 9, 2]) == 4.5


def test_one_task_that_lasts_is_noticed() -> None:
    samples = [replace(sample(minute, 190), lasting_tasks=14 + (minute > 22)) for minute in range(45)]
    assert over_limit(samples) == ["growth of lasting asyncio tasks"]


def test_every_quarter_of_the_measurement_has_every_fault_and_time_without_one() -> None:
    for quarter in range(4):
        second = Counter(fault_at(quarter * MEASUREMENT_S / 4 + at) for at in range(int(CYCLE_S)))
        assert set(second) == {"", *FAULTS}
        assert second[""] > CYCLE_S / 2


def test_the_probes_are_of_every_kind_and_driver(tmp_path: Path, peers: ThirdPartyServers) -> None:
    targets = SoakTargets(tmp_path)
    with targets:
        config = load_config(tmp_path / "watchdog.yaml", json.dumps(targets.config()), {}).config
    assert len(config.probes) == 34
    assert {probe.kind for probe in config.probes} == set(PROBE_KINDS)
    fields = [probe.model_dump(exclude_none=True) for probe in config.probes]
    assert {kind for of in fields for kind in of.get("canary", {})} >= set(CANARY_DRIVERS)
    assert {kind for of in fields for kind in of.get("jobs", {})} >= set(JOB_SOURCES)
    assert {key for of in fields for key in of.get("mcp", {})} >= {"url", "sse", "command"}
