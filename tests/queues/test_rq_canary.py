"""Canary jobs through RQ: what other systems do not have."""

from __future__ import annotations

import pytest

from tests.support.queue_harnesses import RqHarness
from watchdog.domain.model import Outcome
from watchdog.probes.base import derive_slot_idempotency_key


@pytest.fixture(scope="module")
def system() -> type[RqHarness]:
    return RqHarness


def test_workers_that_read_json(harness: RqHarness) -> None:
    with harness.running_worker(SERIALIZER="json"):
        assert harness.run_probe({"serializer": "json"}).result.outcome is Outcome.PASS


def test_an_abandoned_sentinel_expires(harness: RqHarness) -> None:
    harness.create_queue()
    harness.abandon_sentinel(5_000)
    assert 0 < harness.client.ttl(f"rq:job:{derive_slot_idempotency_key('pipeline', 5_000)}") <= 70
