"""A running service is scraped: everything that the dashboards, the alert rules and the documentation name is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import rq
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from redis import Redis

from tests.support.fakes import FakeHttpTarget, FakeWebhookReceiver
from tests.support.job_api import FakeJobApi
from tests.support.polling import wait_until
from tests.support.prometheus import (
    DASHBOARD_FILES,
    find_promtool,
    find_unmatched_selectors,
    list_alert_rules,
    list_dashboard_expressions,
    load_dashboard,
    run_promtool,
)
from tests.support.redis_server import RedisServer
from tests.support.watchdog_process import run_watchdog

ROOT = Path(__file__).parents[2]
READER_KEY, OPERATOR_KEY = "reader-key-0123456789", "operator-key-0123456789"
HOSTILE_GROUP = "Büro \"1\" \\ {a='b'} 日本 #"


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[tuple[str, str]]:
    """The content type and the text of a scrape by a reader, once every kind of series has a value."""
    folder = tmp_path_factory.mktemp("metrics")
    with ExitStack() as stack:
        target, api = stack.enter_context(FakeHttpTarget()), stack.enter_context(FakeJobApi())
        receiver = stack.enter_context(FakeWebhookReceiver())
        with Redis.from_url(redis_server.url) as client:
            rq.Queue("metrics", connection=client).enqueue("application.send")
        config = folder / "watchdog.yaml"
        config.write_text(json.dumps(build_config(folder, target.url, api.url, redis_server.url, receiver.url)))
        watchdog = stack.enter_context(run_watchdog(config))
        path = "metrics"
        assert watchdog.get(path).status_code == 401
        assert watchdog.get(path, authorization="Bearer wrong-key-0123456789").status_code == 401
        assert watchdog.get(path, authorization=f"Bearer {OPERATOR_KEY}").status_code == 200

        def scrape() -> tuple[str, str]:
            response = watchdog.get(path, authorization=f"Bearer {READER_KEY}")
            assert response.status_code == 200
            return response.headers["content-type"], response.text

        def has_every_series() -> bool:
            text = scrape()[1]
            names = [sample.name for sample in parse(text)]
            return (
                names.count("watchdog_probe_success") == 6
                and "watchdog_queue_oldest_job_age_seconds" in names
                and 'stage="pick_up"' in text
                and 'stage="finish"' in text
                and 'reason_family="http"' in text
                and bool(re.search(r'watchdog_notifications_total\{.*result="sent"\} [1-9]', text))
            )

        wait_until(has_every_series)
        yield scrape()


def build_config(folder: Path, target: str, api: str, redis: str, webhook: str) -> dict[str, Any]:
    canary = {
        "enqueue": {"url": f"{api}/jobs", "json": {"kind": "noop"}},
        "poll": f"{api}/jobs/{{job_id}}",
        "started": "body.status == 'running' || body.status == 'completed'",
        "done": "body.status == 'completed'",
        "failed": "body.status == 'failed'",
    }
    alert = {"failure_threshold": 1, "success_threshold": 1}
    return {
        "version": 1,
        "server": {"listen": "127.0.0.1:0"},
        "storage": {"url": f"sqlite:///{folder / 'watchdog.db'}"},
        "access": {
            "api_keys": [
                {"name": "prometheus", "role": "reader", "key": READER_KEY},
                {"name": "operators", "role": "operator", "key": OPERATOR_KEY},
            ]
        },
        "probes": [
            {"name": "API", "http": target, "every": "2s", "group": HOSTILE_GROUP},
            {"name": "Gone", "http": f"{api}/gone", "every": "2s", "alert": alert},
            {"name": "Mail queue", "queue": {"rq": {"redis": redis, "queue": "metrics"}}, "every": "2s"},
            {"name": "Mail canary", "canary": {"http": canary, "finish_within": "8s"}, "every": "10s"},
            {"name": "Backup", "heartbeat": {"token": "a" * 20 + "b1c2d3e4f5" * 2, "every": "1h"}, "every": "2s"},
            {"name": "Docs", "http": target, "every": "2s", "group": "Docs"},
        ],
        "receivers": {"oncall": {"webhook": {"url": webhook}}},
    }


def parse(text: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def list_series(text: str) -> list[tuple[str, dict[str, str]]]:
    return [(sample.name, sample.labels) for sample in parse(text)]


def test_the_parser_of_prometheus_reads_every_sample(scraped: tuple[str, str]) -> None:
    content_type, text = scraped
    assert content_type.startswith("text/plain; version=0.0.4")
    series = [(name, tuple(sorted(labels.items()))) for name, labels in list_series(text)]
    assert len(series) == len(set(series)) == sum(not line.startswith("#") for line in text.splitlines())


def test_the_values_are_those_of_the_probes(scraped: tuple[str, str]) -> None:
    values = {(sample.name, *sorted(sample.labels.values())): sample.value for sample in parse(scraped[1])}
    assert values["watchdog_probe_success", *sorted(("api", "http", HOSTILE_GROUP))] == 1
    assert values["watchdog_probe_success", "", "gone", "http"] == 0
    assert values["watchdog_queue_jobs", "", "mail-queue", "queue", "waiting"] == 1
    assert values["watchdog_incidents_open", "warning"] == 1
    assert values["watchdog_ready",] == 1
    assert values["watchdog_config_reloads_total", "success"] == 1
    runs = values["watchdog_probe_runs_total", "", "fail", "gone", "http"]
    assert runs == values["watchdog_probe_failures_total", "", "gone", "http", "http"] >= 1
    assert values["watchdog_probe_duration_seconds_count", "", "gone", "http"] == runs


@pytest.mark.parametrize("file", DASHBOARD_FILES, ids=lambda file: file.name)
def test_every_panel_has_data(scraped: tuple[str, str], file: Path) -> None:
    series = list_series(scraped[1])
    problems = {
        title: problem
        for title, expression in list_dashboard_expressions(load_dashboard(file))
        if (problem := find_unmatched_selectors(expression, series))
    }
    assert problems == {}


@pytest.mark.parametrize("rule", list_alert_rules(), ids=lambda rule: rule["alert"])
def test_every_alert_rule_selects_series_that_exist(scraped: tuple[str, str], rule: dict[str, Any]) -> None:
    assert find_unmatched_selectors(rule["expr"], list_series(scraped[1])) == []


def test_a_selector_without_series_is_found(scraped: tuple[str, str]) -> None:
    series = list_series(scraped[1])
    assert find_unmatched_selectors("watchdog_probe_sucess == 0", series)
    assert find_unmatched_selectors('watchdog_queue_jobs{state="lost"}', series)
    assert find_unmatched_selectors('watchdog_ready{probe=~".*"}', series)
    assert find_unmatched_selectors("sum by (cluster) (watchdog_ready)", series) == ["cluster"]


def test_the_documentation_lists_every_metric_with_its_labels(scraped: tuple[str, str]) -> None:
    rows = [line.strip("| ").split("|") for line in read("docs/metrics.md").splitlines() if line[:12] == "| `watchdog_"]
    documented = {
        name.strip(" `"): (kind.strip(), set(re.findall(r"\w+", labels)), text.strip())
        for name, kind, labels, text, _ in rows
    }
    existing = {}
    for family in text_string_to_metric_families(scraped[1]):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = family.name + ("_total" if family.type == "counter" else "")
        existing[name] = family.type, labels, family.documentation
    assert documented == existing


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def promtool() -> None:
    if find_promtool() is None:
        pytest.skip("promtool is missing: apt install prometheus")


@pytest.mark.usefixtures("promtool")
def test_promtool_accepts_the_scrape_the_rules_and_the_expressions(scraped: tuple[str, str], tmp_path: Path) -> None:
    checked = run_promtool("check", "metrics", stdin=scraped[1])
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    expressions = [
        {"record": f"{file.stem}:panel{number}", "expr": expression}
        for file in DASHBOARD_FILES
        for number, (_, expression) in enumerate(list_dashboard_expressions(load_dashboard(file)))
    ]
    rules = tmp_path / "panels.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": expressions}]}))
    for file in (rules, ROOT / "deploy/prometheus/alerts.yml"):
        checked = run_promtool("check", "rules", str(file))
        assert checked.returncode == 0, checked.stdout + checked.stderr
    syntax = run_promtool("check", "config", "--syntax-only", str(ROOT / "deploy/prometheus/scrape.yml"))
    assert syntax.returncode == 0, syntax.stderr


@pytest.mark.parametrize("file", DASHBOARD_FILES, ids=lambda file: file.name)
def test_a_dashboard_lets_its_reader_choose_the_data_source(file: Path) -> None:
    dashboard = load_dashboard(file)
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) > 0
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert {part["datasource"]["uid"] for part in (panel, *panel["targets"])} == {"${datasource}"}
        used = {name for target in panel["targets"] for name in re.findall(r"\$([a-z]\w*)", target["expr"])}
        assert used <= variables.keys()
