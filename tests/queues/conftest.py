"""A lab of each queue system in turn. A module about one of them has a fixture `system` of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mcp_peers import Peers
from tests.queues.lab import Lab
from tests.queues.labs import LABS


@pytest.fixture(scope="module", params=LABS, ids=lambda lab: lab.kind)
def system(request: pytest.FixtureRequest) -> type[Lab]:
    kind: type[Lab] = request.param
    return kind


@pytest.fixture(scope="module")
def node_peers(system: type[Lab], request: pytest.FixtureRequest) -> Peers | None:
    return request.getfixturevalue("peers") if system.on_node else None


@pytest.fixture(scope="module")
def place(system: type[Lab], node_peers: Peers | None, request: pytest.FixtureRequest) -> Iterator[str]:
    with system.furnished(request.getfixturevalue(system.server), node_peers) as url:
        yield url


@pytest.fixture
def lab(system: type[Lab], node_peers: Peers | None, place: str) -> Iterator[Lab]:
    lab = system(place, node_peers)
    lab.clean()
    yield lab
    lab.clean()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may take a second for any one answer; connecting still has two, the least that libpq knows."""
    monkeypatch.setattr("watchdog.probes.canary.PATIENCE", 1.0)
