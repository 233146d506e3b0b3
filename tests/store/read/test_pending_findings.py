"""What may open an incident soon, and the state of a probe until then, on both databases."""

from __future__ import annotations

import pytest

from tests.support.acts import ANA
from tests.support.html_checks import visible_text
from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_result, make_results
from tests.support.web import create_test_app, request_page
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import HealthState, PendingFinding
from watchdog.domain.routing import ProbeMatcher
from watchdog.service.acts import MaintenanceRequest, begin_maintenance
from watchdog.store.read.status import ProbeStatus, list_probe_statuses
from watchdog.web.pages.probe import build_probe_banners

UP, DOWN, UNKNOWN = HealthState.UP, HealthState.DOWN, HealthState.UNKNOWN


def load_status(store: StoreHarness) -> ProbeStatus:
    with store.database.open_read_transaction() as connection:
        (status,) = list_probe_statuses(connection)
    return status


@pytest.mark.parametrize(
    ("outcomes", "state", "bad_counts"),
    [
        ("", UNKNOWN, []),
        ("p", UP, []),
        ("f", UNKNOWN, [1]),
        ("ff", UNKNOWN, [2]),
        ("fff", DOWN, []),
        ("fp", UP, []),
        ("pf", UP, [1]),
        ("ppff", UP, [2]),
        ("pfff", DOWN, []),
        ("fe", UNKNOWN, [1, 1]),
        ("e", UNKNOWN, [1]),
        ("fffpp", UP, []),
        ("fffppf", UP, [1]),
    ],
)
def test_a_probe_is_not_up_before_its_first_pass(
    database_url: str, outcomes: str, state: HealthState, bad_counts: list[int]
) -> None:
    with StoreHarness(database_url, [make_registered_probe(failure_threshold=3)]) as store:
        store.record_each(*make_results(store.database_id("api"), outcomes))
        status = load_status(store)
    assert status.state is state
    assert [finding.bad_count for finding in status.pending_findings] == bad_counts


def test_a_pending_finding_states_how_many_results_open_an_incident(database_url: str) -> None:
    with StoreHarness(database_url, [make_registered_probe(failure_threshold=20)]) as store:
        store.record_each(*make_results(store.database_id("api"), "pfff"))
        status = load_status(store)
        text = visible_text(request_page(create_test_app(store.database), "/probes/api").text)
        row = visible_text(request_page(create_test_app(store.database), "/probes").text)
        body = request_page(create_test_app(store.database), "/api/v1/probes/api").json()
    since = START_AT + 2 * INTERVAL_MS
    assert status.pending_findings == (PendingFinding("availability", "", "http.503", 3, 20, since),)
    sentence = "No incident yet: 3 of the 20 bad results in a row that open an incident"
    assert sentence in text
    assert sentence in row
    assert [(finding["bad_count"], finding["failure_threshold"]) for finding in body["pending_findings"]] == [(3, 20)]


def test_during_maintenance_more_results_may_be_bad_than_open_an_incident(database_url: str) -> None:
    with StoreHarness(database_url, [make_registered_probe(failure_threshold=2)]) as store:
        request = MaintenanceRequest(ProbeMatcher(probe="api"), START_AT + HOUR_MS)
        begin_maintenance(store.database, request, ANA, START_AT)
        store.record_each(*make_results(store.database_id("api"), "pffff"))
        text = visible_text(request_page(create_test_app(store.database), "/probes/api").text)
        row = visible_text(request_page(create_test_app(store.database), "/probes").text)
    sentence = "No incident yet: 4 bad results in a row; outside maintenance, 2 open an incident"
    assert sentence in text
    assert sentence in row


def test_an_open_incident_takes_the_place_of_what_else_is_pending(database_url: str) -> None:
    with StoreHarness(database_url, [make_registered_probe(failure_threshold=3)]) as store:
        probe = store.database_id("api")
        store.record_each(*make_results(probe, "pfff"))
        slow = make_result(probe, START_AT + 5 * INTERVAL_MS, "fail", preferences={"result.fast": "slow"})
        store.record_each(slow)
        status = load_status(store)
    assert status.state is DOWN
    titles = [banner.title for banner in build_probe_banners(status, START_AT + 5 * INTERVAL_MS, {})]
    assert [title for title in titles if "No incident yet" in title] == []


def test_only_the_probes_asked_for_are_listed(database_url: str) -> None:
    probes = [make_registered_probe(name, failure_threshold=5) for name in ("api", "web")]
    with StoreHarness(database_url, probes) as store:
        for id in store.database_ids:
            store.record_each(*make_results(id, "pf"))
        with store.database.open_read_transaction() as connection:
            (status,) = list_probe_statuses(connection, "web")
    assert [status.probe.id, status.pending_findings[0].bad_count] == ["web", 1]
