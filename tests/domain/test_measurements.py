"""What queue and canary probes store is read back as it was, and other names are ignored."""

from __future__ import annotations

from watchdog.domain.measurements import CanaryStages, QueueMetrics
from watchdog.domain.observations import QueueStats


def test_the_metrics_of_a_queue() -> None:
    metrics = QueueMetrics.from_stats(QueueStats(waiting=3, active=0, paused=True), failure_ratio=0.25)
    stored = metrics.to_measurements()
    assert stored == {"waiting": 3, "active": 0, "failure_ratio": 0.25}
    assert QueueMetrics.from_measurements({**stored, "jobs": 7, "oldest": "old"}) == metrics


def test_the_stages_of_a_canary() -> None:
    stages = CanaryStages(enqueue=8, finish=200)
    stored = stages.to_phases()
    assert stored == {"enqueue": 8, "finish": 200}
    assert CanaryStages.from_phases({**stored, "connect": 1}) == stages
