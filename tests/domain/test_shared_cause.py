"""What broke when an incident opened: the first that applies, by the words of the target and the evidence."""

from __future__ import annotations

import pytest

from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import ProbeInfo
from watchdog.domain.shared_cause import SharedCause, compute_group_window_ms, derive_shared_cause

CACHE = "redis://cache:6379/0"
MAIL_QUEUE = f"{CACHE}, queue mail"
API = "https://api.example/health"
ADDRESS: dict[str, object] = {"address": "192.0.2.1:443"}
CAUSES: list[tuple[str, str, str, dict[str, object], SharedCause | None]] = [
    ("no_verdict", API, "watchdog.overloaded", {}, SharedCause("Watchdog itself")),
    ("service", "its own receivers and processes", "watchdog.delivery_failing", {}, SharedCause("Watchdog itself")),
    ("stale", "redis://cache/0, queue mail", "no_data", {}, SharedCause("Watchdog itself")),
    ("missed_run", API, "missed.not_run", {}, SharedCause("Watchdog itself")),
    ("availability", API, "dns.not_found", {}, SharedCause("the resolver")),
    ("availability", API, "timeout.dns", {}, SharedCause("the resolver")),
    ("availability", "redis://cache/0, queue mail", "dns.failed", {}, SharedCause("the resolver")),
    ("availability", MAIL_QUEUE, "timeout.connect", ADDRESS, SharedCause(CACHE)),
    ("availability", MAIL_QUEUE, "broker.refused", {}, SharedCause(CACHE)),
    ("availability", MAIL_QUEUE, "queue.stalled", {}, SharedCause(CACHE, "queue")),
    ("job", "postgresql://db/app, table jobs", "job.overdue", {}, SharedCause("postgresql://db/app", "job")),
    ("job", "mysql://db/app/", "job.failed", {}, SharedCause("mysql://db/app", "job")),
    ("job", "sqlite:////data/app.db, table jobs", "job.failed", {}, SharedCause("sqlite:////data/app.db", "job")),
    ("availability", API, "timeout.connect", ADDRESS, SharedCause("192.0.2.1")),
    ("availability", API, "connection.unreachable", ADDRESS, SharedCause("192.0.2.1")),
    ("availability", API, "timeout.connect", {"address": "[2001:db8::1]:443"}, SharedCause("2001:db8::1")),
    ("availability", API, "timeout.connect", {}, SharedCause("api.example:443")),
    ("availability", API, "timeout.connect", {"address": ["192.0.2.1"]}, SharedCause("api.example:443")),
    ("availability", API, "timeout.connect", {"address": "untrusted text"}, SharedCause("api.example:443")),
    ("availability", API, "connection.refused", ADDRESS, SharedCause("api.example:443")),
    ("availability", API, "tls.expired", ADDRESS, SharedCause("api.example:443")),
    ("availability", API, "timeout.first_byte", ADDRESS, SharedCause("api.example:443")),
    ("availability", API, "timeout.body", ADDRESS, SharedCause("api.example:443", "timeout")),
    ("availability", API, "http.503", ADDRESS, SharedCause("api.example:443", "http")),
    ("availability", API, "expectation.failed", ADDRESS, SharedCause("api.example:443", "expectation")),
    ("task", "https://mcp.example:8443/mcp", "task.stale", {}, SharedCause("mcp.example:8443", "task")),
    ("availability", "http://[2001:db8::1]/", "http.500", {}, SharedCause("[2001:db8::1]:80", "http")),
    ("availability", "http://[broken/", "http.500", {}, None),
    ("availability", "uvx search-mcp", "mcp.server_exited", {}, None),
    ("job", "check-ins, expected every 5 min", "job.overdue", {}, None),
    ("availability", "", "http.500", {}, None),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "target", "reason", "facts", "cause"), CAUSES)
def test_the_cause(rule: str, target: str, reason: str, facts: dict[str, object], cause: SharedCause | None) -> None:
    assert derive_shared_cause(ProbeInfo(1, "p", "P", "http", target=target), rule, reason, facts) == cause


@pytest.mark.parametrize(
    ("interval_ms", "window_ms"),
    [(1_000, 60_000), (60_000, 60_000), (120_000, 120_000), (300_000, 300_000), (HOUR_MS, 300_000)],
)
def test_a_group_accepts_incidents_for_the_interval_within_bounds(interval_ms: int, window_ms: int) -> None:
    assert compute_group_window_ms(interval_ms) == window_ms
