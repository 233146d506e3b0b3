"""/metrics: hostile names, many probes, and a database that is away."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.api.metrics import encode_metrics_body_and_content_type
from watchdog.domain.model import Outcome, ProbeInfo, ProbeResult
from watchdog.service.counters import DeliveryResultKind, ProbeRunCounters
from watchdog.service.process_metrics import WatchdogActivityMetrics
from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError
from watchdog.web.routes import metrics as metrics_route

HOSTILE_GROUPS = ['"', "\\", "\\n", 'a="b"} 1', "# HELP", "日本 🐕", "a\u2028b", "' OR 1=1", "{}", "", "x" * 5_000]


def parse(text: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def process_metrics_of(groups: list[str]) -> WatchdogActivityMetrics:
    counts = ProbeRunCounters()
    counts.add(ProbeResult(1, NOW, "local", Outcome.FAIL, "http.503", "<script>", 150))
    runs = [(ProbeInfo(i, f"p{i}", f"P{i}", "http", group), counts) for i, group in enumerate(groups, 1)]
    return WatchdogActivityMetrics(run_counts=runs, delivery_counts={('on"call/slack', DeliveryResultKind.SENT): 2})


@pytest.mark.parametrize(
    ("accept", "parser"),
    [
        ("", text_string_to_metric_families),
        ("text/plain;version=0.0.4", text_string_to_metric_families),
        ("application/openmetrics-text;version=1.0.0", parse_openmetrics),
    ],
)
def test_hostile_names_come_back_unchanged(tmp_path: Any, accept: str, parser: Any) -> None:
    rows = FixtureRows()
    for i, group in enumerate(HOSTILE_GROUPS, 1):
        rows.add_result(rows.add_probe(f"P{i}", group=group), NOW)
    process = process_metrics_of(HOSTILE_GROUPS)
    with filled_database(f"sqlite:///{tmp_path / 'watchdog.db'}", rows) as database:
        app = create_test_app(database, collect_process_metrics=lambda: process)
        text = request_page(app, "/metrics", headers={"accept": accept}).text
    samples = [sample for family in parser(text) for sample in family.samples]
    for name in ("watchdog_probe_success", "watchdog_probe_duration_seconds_count"):
        assert sorted(s.labels["group"] for s in samples if s.name == name) == sorted(HOSTILE_GROUPS)
    assert "script" not in text
    assert ('on"call', 'on"call/slack') in {(s.labels.get("receiver"), s.labels.get("destination")) for s in samples}


def test_ten_thousand_groups_are_encoded_beside_the_event_loop(
    acme_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()

    def encode_and_note_thread(*arguments: Any) -> Any:
        threads.add(threading.current_thread())
        return encode_metrics_body_and_content_type(*arguments)

    monkeypatch.setattr(metrics_route, "encode_metrics_body_and_content_type", encode_and_note_thread)
    process = process_metrics_of([f"group {i}" for i in range(10_000)])
    response = request_page(create_test_app(acme_database, collect_process_metrics=lambda: process), "/metrics")
    counts = [line for line in response.text.splitlines() if line.startswith("watchdog_probe_duration_seconds_count")]
    assert len(set(counts)) == 10_000
    assert response.headers["content-encoding"] == "gzip"
    assert threads
    assert threading.main_thread() not in threads


def test_the_counts_of_a_histogram_add_up() -> None:
    counts = ProbeRunCounters()
    for duration in (0, 100, 101, 29_999, 3_600_000):
        counts.add(ProbeResult(1, NOW, "local", Outcome.PASS, duration=duration))
    counts.add(ProbeResult(1, NOW, "local", Outcome.MISSED, "missed.skipped", slot_count=7))
    assert counts.durations.list_cumulative_counts() == [2, 3, 3, 3, 3, 3, 3, 4, 5]
    assert counts.durations.sum_s == pytest.approx(3_630.2)
    assert counts.count_by_outcome == {Outcome.PASS: 5, Outcome.FAIL: 0, Outcome.ERROR: 0, Outcome.MISSED: 7}
    assert not counts.failure_count_by_family


def test_without_the_database_the_metrics_of_the_process_go_on() -> None:
    async def fail(_: object) -> Any:
        raise StoreUnavailableError("password authentication failed for user hunter2")

    process = process_metrics_of(["g"])
    app = create_test_app(Database("sqlite://"), run_read_query=fail, collect_process_metrics=lambda: process)
    response = request_page(app, "/metrics")
    values = {sample.name: sample.value for sample in parse(response.text)}
    assert response.status_code == 200
    assert values["watchdog_ready"] == 0
    assert values["watchdog_probe_duration_seconds_count"] == 1
    assert "watchdog_probe_success" not in values
    assert "watchdog_incidents_open" not in values
    assert "hunter2" not in response.text


def test_a_service_that_is_not_ready_is_shown_as_such(acme_database: Database) -> None:
    app = create_test_app(acme_database, not_ready_reason=lambda: "no run has been scheduled yet")
    assert "watchdog_ready 0.0" in request_page(app, "/metrics").text


def test_without_keys_other_machines_get_no_metrics(acme_database: Database) -> None:
    app = create_test_app(acme_database)
    assert request_page(app, "/metrics").status_code == 200
    assert request_page(app, "/metrics", client="192.0.2.7").status_code == 403
