"""What is particular to canaries through RQ."""

from __future__ import annotations

import pytest

from tests.queues.labs import RqLab
from watchdog.model import Outcome
from watchdog.probes.base import idempotency_key


@pytest.fixture(scope="module")
def system() -> type[RqLab]:
    return RqLab


def test_workers_that_read_json(lab: RqLab) -> None:
    with lab.worker(SERIALIZER="json"):
        assert lab.once({"serializer": "json"}).result.outcome is Outcome.PASS


def test_a_sentinel_that_nobody_takes_back_expires(lab: RqLab) -> None:
    lab.make()
    lab.abandon(5_000)
    assert 0 < lab.client.ttl(f"rq:job:{idempotency_key('pipeline', 5_000)}") <= 70
