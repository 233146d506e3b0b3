"""Harnesses of all queue systems. A module about one system overrides the fixture `system`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.queue_harness import QueueHarness
from tests.support.queue_harnesses import QUEUE_HARNESSES
from tests.support.third_party import ThirdPartyServers


@pytest.fixture(scope="module", params=QUEUE_HARNESSES, ids=lambda harness: harness.kind)
def system(request: pytest.FixtureRequest) -> type[QueueHarness]:
    kind: type[QueueHarness] = request.param
    return kind


@pytest.fixture(scope="module")
def node_peers(system: type[QueueHarness], request: pytest.FixtureRequest) -> ThirdPartyServers | None:
    return request.getfixturevalue("peers") if system.uses_node else None


@pytest.fixture(scope="module")
def place(
    system: type[QueueHarness], node_peers: ThirdPartyServers | None, request: pytest.FixtureRequest
) -> Iterator[str]:
    with system.prepared_broker(request.getfixturevalue(system.server_fixture), node_peers) as url:
        yield url


@pytest.fixture
def harness(system: type[QueueHarness], node_peers: ThirdPartyServers | None, place: str) -> Iterator[QueueHarness]:
    harness = system(place, node_peers)
    harness.clean_up()
    yield harness
    harness.clean_up()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call may take one second. Connecting to PostgreSQL still may take two, the minimum of libpq."""
    monkeypatch.setattr("watchdog.probes.canary.CANARY_QUEUE_CALL_TIMEOUT_S", 1.0)
