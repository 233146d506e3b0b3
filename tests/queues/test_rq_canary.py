"""Canary jobs through RQ: what other systems do not have."""

from __future__ import annotations

import pytest

from tests.support.queue_labs import RqLab
from watchdog.domain.model import Outcome
from watchdog.probes.base import derive_idempotency_key


@pytest.fixture(scope="module")
def system() -> type[RqLab]:
    return RqLab


def test_workers_that_read_json(lab: RqLab) -> None:
    with lab.running_worker(SERIALIZER="json"):
        assert lab.run_probe({"serializer": "json"}).result.outcome is Outcome.PASS


def test_an_abandoned_sentinel_expires(lab: RqLab) -> None:
    lab.create_queue()
    lab.abandon_sentinel(5_000)
    assert 0 < lab.client.ttl(f"rq:job:{derive_idempotency_key('pipeline', 5_000)}") <= 70
