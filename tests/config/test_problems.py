"""Suggestions for unknown fields: names from other tools, former names of this format, and misspellings."""

from __future__ import annotations

import pytest

from watchdog.config.load import load_config
from watchdog.config.problems import (
    CONFIG_FIELD_SYNONYMS,
    ConfigError,
    build_did_you_mean_suffix,
    find_equivalent_config_name,
)

PROBE = "probes: [{name: A, every: 1m, http: 'https://a.example/', %s}]"
HEARTBEAT = "probes: [{name: A, heartbeat: {every: 1h, %s}}]"
QUEUE = "probes: [{name: A, queue: {bullmq: {redis: 'redis://localhost', queue: q}}, rules: {%s}}]"
REMEDIATION = (
    "probes: [{name: A, http: 'https://a.example/', remediation: {on: timeout, http: 'https://b.example/', %s}}]"
)
CELERY = "{broker: 'redis://localhost', task: t, tracks_started: true}"

FORMER_KEYS = [
    ("after", "defaults: {alert: {after: 1}}", "failure_threshold"),
    ("recover", "defaults: {alert: {recover: 1}}", "success_threshold"),
    ("recheck", PROBE % "recheck: 10s", "retry_interval"),
    ("recheck", "defaults: {recheck: 10s}", "retry_interval"),
    ("egress", PROBE % "egress: public", "allow_private_addresses"),
    ("key", PROBE % "key: a", "id"),
    ("key", HEARTBEAT % "key: 0123456789abcdef", "token"),
    ("key_file", HEARTBEAT % "key_file: token.txt", "token_file"),
    ("remedy", PROBE % "remedy: {}", "remediation"),
    ("most", REMEDIATION % "most: 3", "max_runs"),
    ("every", REMEDIATION % "every: 1h", "per"),
    ("draining", QUEUE % "draining: {for: 5m}", "stalled"),
    ("least", QUEUE % "failure_ratio: {over: 0.1, least: 5}", "min_samples"),
    (
        "tracks_started",
        f"probes: [{{name: A, canary: {{celery: {CELERY}, finish_within: 10s}}}}]",
        "task_track_started",
    ),
    ("spool", "storage: {spool: waiting}", "check_in_log"),
    ("resolve", "receivers: {a: {log: {}, resolve: false}}", "send_resolved"),
    ("show", "status_page: {show: {tags: [a]}}", "match"),
    ("keys", "access: {keys: []}", "api_keys"),
]


@pytest.mark.parametrize(("name", "text", "suggestion"), FORMER_KEYS)
def test_a_former_key_is_unknown_and_its_successor_is_suggested(name: str, text: str, suggestion: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, text, {})
    messages = [problem.message for problem in error.value.problems]
    assert f"unknown field '{name}'; did you mean '{suggestion}'?" in messages


def test_every_synonym_is_suggested_where_it_is_valid() -> None:
    for name, fields in CONFIG_FIELD_SYNONYMS.items():
        for field in fields:
            assert find_equivalent_config_name(name, ["x", field]) == field


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("tols", "; did you mean 'tools'?"),
        ("TOOLS", "; did you mean 'tools'?"),
        ("status-page", "; did you mean 'status_page'?"),
        ("resolve", "; did you mean 'send_resolved'?"),
        ("colour", ""),
    ],
)
def test_the_nearest_valid_name_is_suggested(name: str, suggestion: str) -> None:
    assert build_did_you_mean_suffix(name, ["tools", "status_page", "resolver", "send_resolved"]) == suggestion
