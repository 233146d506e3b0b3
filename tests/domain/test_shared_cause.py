"""What broke when an incident opened: the first that applies, by the words of the target and the evidence."""

from __future__ import annotations

import pytest

from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import ProbeInfo
from watchdog.domain.shared_cause import (
    SharedIncidentCauseKey,
    compute_incident_group_window_ms,
    derive_shared_cause_of_incident,
    format_display_name_of_shared_cause,
)

CACHE = "redis://cache:6379/0"
MAIL_QUEUE = f"{CACHE}, queue mail"
API = "https://api.example/health"
ADDRESS: dict[str, object] = {"address": "192.0.2.1:443"}
TWO_ADDRESSES: dict[str, object] = {"address": "[2001:db8::1]:443, 192.0.2.1:443"}
TWO_HOSTS = SharedIncidentCauseKey("192.0.2.1, 192.0.2.7")
REDIRECTED: dict[str, object] = {"redirected_to": "https://login.example/sso", **ADDRESS}
CAUSES: list[tuple[str, str, str, dict[str, object], SharedIncidentCauseKey | None]] = [
    ("no_verdict", API, "watchdog.overloaded", {}, SharedIncidentCauseKey("Watchdog itself")),
    ("service", "its own receivers and processes", "watchdog.delivery_failing",
     {}, SharedIncidentCauseKey("Watchdog itself")),
    ("stale", "redis://cache/0, queue mail", "no_data", {}, SharedIncidentCauseKey("Watchdog itself")),
    ("missed_run", API, "missed.not_run", {}, SharedIncidentCauseKey("Watchdog itself")),
    ("availability", API, "dns.not_found", {}, SharedIncidentCauseKey("the resolver")),
    ("availability", API, "timeout.dns", {}, SharedIncidentCauseKey("the resolver")),
    ("availability", "redis://cache/0, queue mail", "dns.failed", {}, SharedIncidentCauseKey("the resolver")),
    ("availability", MAIL_QUEUE, "timeout.connect", ADDRESS, SharedIncidentCauseKey(CACHE)),
    ("availability", MAIL_QUEUE, "broker.refused", {}, SharedIncidentCauseKey(CACHE)),
    ("availability", "amqp://broker, queue mail", "broker.refused", {}, SharedIncidentCauseKey("amqp://broker:5672")),
    ("availability", MAIL_QUEUE, "queue.stalled", {}, SharedIncidentCauseKey(CACHE, "queue")),
    ("job", "postgresql://db/app, table jobs", "job.overdue",
     {}, SharedIncidentCauseKey("postgresql://db:5432/app", "job")),
    ("job", "mysql://db/BOX/", "job.failed", {}, SharedIncidentCauseKey("mysql://db:3306/BOX", "job")),
    ("job", "mysql://db/app/", "job.failed", {}, SharedIncidentCauseKey("mysql://db:3306/app", "job")),
    ("job", "sqlite:////data/app.db, table jobs", "job.failed",
     {}, SharedIncidentCauseKey("sqlite:////data/app.db", "job")),
    ("availability", API, "timeout.connect", ADDRESS, SharedIncidentCauseKey("192.0.2.1")),
    ("availability", API, "connection.unreachable", ADDRESS, SharedIncidentCauseKey("192.0.2.1")),
    ("availability", API, "timeout.connect", {"address": "[2001:db8::1]:443"}, SharedIncidentCauseKey("2001:db8::1")),
    ("availability", API, "timeout.connect", {}, SharedIncidentCauseKey("api.example:443")),
    ("availability", API, "timeout.connect", {"address": ["192.0.2.1"]}, SharedIncidentCauseKey("api.example:443")),
    ("availability", API, "timeout.connect", {"address": "[fe80::1%X]:443"}, SharedIncidentCauseKey("fe80::1%X")),
    ("availability", API, "timeout.connect", TWO_ADDRESSES, SharedIncidentCauseKey("192.0.2.1, 2001:db8::1")),
    ("availability", API, "timeout.connect", {"address": "192.0.2.7:1,192.0.2.1:1"}, TWO_HOSTS),
    ("availability", API, "timeout.connect", {"address": "untrusted: text"}, SharedIncidentCauseKey("api.example:443")),
    ("availability", API, "connection.refused", ADDRESS, SharedIncidentCauseKey("api.example:443")),
    ("availability", API, "tls.expired", ADDRESS, SharedIncidentCauseKey("api.example:443")),
    ("availability", API, "timeout.first_byte", ADDRESS, SharedIncidentCauseKey("api.example:443")),
    ("availability", API, "timeout.body", ADDRESS, SharedIncidentCauseKey("api.example:443", "timeout")),
    ("availability", API, "http.503", ADDRESS, SharedIncidentCauseKey("api.example:443", "http")),
    ("availability", API, "expectation.failed", ADDRESS, SharedIncidentCauseKey("api.example:443", "expectation")),
    ("availability", "tls://api.example:443", "tls.expired", ADDRESS, SharedIncidentCauseKey("api.example:443")),
    ("availability", "tls://mail.example:25", "starttls.refused", {},
     SharedIncidentCauseKey("mail.example:25", "starttls")),
    ("availability", "tcp://db.example:5432", "connection.refused", {}, SharedIncidentCauseKey("db.example:5432")),
    ("availability", "tcp://db.example:5432", "timeout.connect", {"address": "192.0.2.1:5432"},
     SharedIncidentCauseKey("192.0.2.1")),
    ("availability", "tcp://db.example:5432", "timeout.text", {}, SharedIncidentCauseKey("db.example:5432", "timeout")),
    ("task", "https://mcp.example:8443/mcp", "task.stale", {}, SharedIncidentCauseKey("mcp.example:8443", "task")),
    ("availability", API, "connection.refused", REDIRECTED, SharedIncidentCauseKey("login.example:443")),
    ("availability", API, "http.503", REDIRECTED, SharedIncidentCauseKey("login.example:443", "http")),
    ("availability", API, "timeout.connect", REDIRECTED, SharedIncidentCauseKey("192.0.2.1")),
    ("availability", API, "http.503", {"url": "https://pay.example/{order}"},
     SharedIncidentCauseKey("pay.example:443", "http")),
    ("availability", API, "http.503", {"url": "https://pay.example/", **REDIRECTED},
     SharedIncidentCauseKey("login.example:443", "http")),
    ("availability", API, "http.503", {"redirected_to": ["no", "URL"]},
     SharedIncidentCauseKey("api.example:443", "http")),
    ("availability", "http://[2001:db8::1]/", "http.500", {}, SharedIncidentCauseKey("[2001:db8::1]:80", "http")),
    ("availability", "ftp://files.example/pub", "http.500", {},
     SharedIncidentCauseKey("ftp://files.example/pub", "http")),
    ("availability", "wss://api.example/feed", "websocket.closed",
     {}, SharedIncidentCauseKey("api.example:443", "websocket")),
    ("availability", "grpc://api.example:443, service a.B", "connection.refused",
     {}, SharedIncidentCauseKey("api.example:443")),
    ("availability", "http://[broken/", "http.500", {}, None),
    ("availability", "uvx search-mcp", "mcp.server_exited", {}, None),
    ("job", "check-ins, expected every 5 min", "job.overdue", {}, None),
    ("availability", "", "http.500", {}, None),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "target", "reason", "facts", "cause"), CAUSES)
def test_the_cause(
    rule: str, target: str, reason: str, facts: dict[str, object], cause: SharedIncidentCauseKey | None
) -> None:
    assert derive_shared_cause_of_incident(ProbeInfo(1, "p", "P", "http", target=target), rule, reason, facts) == cause


@pytest.mark.parametrize(
    "targets",
    [
        ("redis://cache", "redis://cache/", "redis://cache/0", "redis://cache:6379", "redis://cache:6379/0"),
        ("rediss://cache, queue a", "rediss://cache:6379/0, queue b"),
        ("postgresql://db/app", "postgres://db:5432/app, table jobs", "postgresql://db:5432/app, queue q"),
        ("mysql://db/app", "mysql://db:3306/app"),
        ("mariadb://db/app", "mariadb://db:3306/app"),
        ("amqp://broker, queue a", "amqp://broker:5672//, queue b"),
        ("amqps://broker/, queue a", "amqps://broker:5671, queue b"),
    ],
)
def test_one_server_is_one_cause_however_its_url_is_written(targets: tuple[str, ...]) -> None:
    probes = [ProbeInfo(1, "p", "P", "queue", target=target) for target in targets]
    assert len({derive_shared_cause_of_incident(probe, "availability", "broker.refused", {}) for probe in probes}) == 1


@pytest.mark.parametrize(
    "targets",
    [
        ("redis://cache/0", "redis://cache/1"),
        ("redis://cache/0", "redis://cache:6380/0"),
        ("redis://cache/0", "rediss://cache/0"),
        ("postgresql://db/app", "postgresql://db/shop"),
        ("amqp://broker/a", "amqp://broker/b"),
    ],
)
def test_other_databases_and_ports_are_other_causes(targets: tuple[str, ...]) -> None:
    probes = [ProbeInfo(1, "p", "P", "queue", target=target) for target in targets]
    assert len(
        {derive_shared_cause_of_incident(probe, "availability", "broker.refused", {}) for probe in probes}
    ) == len(targets)


@pytest.mark.parametrize(
    ("what", "targets", "text"),
    [
        ("the resolver", [API, "https://b.example/"], "the resolver"),
        ("the resolver", [API, "http://api.example:8080/"], "api.example"),
        ("the resolver", [API, "redis://api.example/0, queue mail"], "api.example"),
        ("the resolver", ["https://[2001:db8::1]/"], "[2001:db8::1]"),
        ("the resolver", ["uvx search-mcp"], "the resolver"),
        ("api.example:443", [API], "api.example:443"),
    ],
)
def test_a_single_name_that_cannot_be_resolved_is_no_fault_of_the_resolver(
    what: str, targets: list[str], text: str
) -> None:
    assert format_display_name_of_shared_cause(what, targets) == text


@pytest.mark.parametrize(
    ("interval_ms", "window_ms"),
    [(1_000, 60_000), (60_000, 60_000), (120_000, 120_000), (300_000, 300_000), (HOUR_MS, 300_000)],
)
def test_a_group_accepts_incidents_for_the_interval_within_bounds(interval_ms: int, window_ms: int) -> None:
    assert compute_incident_group_window_ms(interval_ms) == window_ms
