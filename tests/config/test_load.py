"""Loading valid configurations, and problems across sections and files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from watchdog.config.load import LoadedConfig, load_config
from watchdog.config.models import Config
from watchdog.config.problems import ConfigError
from watchdog.config.routes import NotificationRouteSettings
from watchdog.config.sources import read_and_merge_config_files
from watchdog.config_types import format_config_duration
from watchdog.domain.escalation import EscalationStep
from watchdog.domain.model import ProbeInfo, Severity
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.notifiers import EmailNotifier
from watchdog.probes.base import MAX_PREFER_CEL_EXPRESSION_BYTES

ROOT = Path(__file__).parents[2]
FLEET_ENV = {
    name: f"{name.lower()}-0123456789"
    for name in (
        *("API_TOKEN", "GATEWAY_PASSWORD", "MCP_TOKEN", "SLACK_BOT_TOKEN", "WEBHOOK_SECRET", "SMTP_PASSWORD"),
        *("WATCHDOG_CI_KEY", "WATCHDOG_READ_KEY", "BACKUP_CHECKIN_TOKEN", "PING_KEY", "SLACK_SIGNING_SECRET"),
        *("SHOP_PASSWORD", "MCP_SECRET"),
    )
} | {
    "SLACK_WEBHOOK_URL": "https://hooks.slack.example/services/T0/B0/abcdefgh",
    "REDIS_URL": "redis://:abcdefgh@localhost:6379/0",
    "APP_DB_URL": "postgresql://reader:abcdefgh@localhost/app",
    "APP_DB_REMEDIATION_URL": "postgresql://healer:abcdefgh@localhost/app",
}


def loaded(text: str, env: Mapping[str, str] | None = None) -> LoadedConfig:
    return load_config(None, text, env or {})


def config(text: str, env: Mapping[str, str] | None = None) -> Config:
    return loaded(text, env).config


def error_text(text: str, env: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(None, text, env or {})
    return str(error.value)


# --- the examples


def test_the_minimal_example_loads() -> None:
    (probe,) = load_config(ROOT / "examples/minimal.yaml").config.probes
    assert (probe.name, probe.id, probe.kind, probe.target) == ("Website", "website", "http", "https://example.com/")
    assert (probe.every, probe.timeout, probe.schedule, probe.retries) == (60_000, 10_000, None, 0)
    assert (probe.alert.failure_threshold, probe.alert.success_threshold, probe.alert.severity) == (
        3,
        2,
        Severity.WARNING,
    )


def test_the_full_example_loads() -> None:
    fleet = load_config(ROOT / "examples/full.yaml", env=FLEET_ENV)
    probes = {probe.id: probe for probe in fleet.config.probes}
    assert list(probes) == [
        *("website", "api", "checkout", "warm-the-cache", "gateway", "orders"),
        *("price-feed", "postgres-port", "session-store"),
        *("certificate", "mail-certificate", "search-mcp", "files-mcp", "legacy-mcp", "accounts-mcp"),
        *("website-record", "system-resolvers", "router", "office-link"),
        *("email-pipeline", "report-pipeline", "export-through-mcp", "thumbnails", "worker-self-test"),
        *("digest-schedulers", "report-schedules", "celery-beat", "billing-jobs", "email-backlog"),
        *("nightly-backup", "orders-are-fresh", "replication-lag"),
        "blog",  # from conf.d
    ]
    api = probes["api"]
    assert (api.alert.failure_threshold, api.alert.success_threshold, api.alert.severity) == (2, 2, Severity.CRITICAL)
    assert [expression.text for expression in api.expectation_expressions] == list(api.expect)
    assert [expression.text for expression in api.preference_expressions] == ["elapsed_ms <= 800", "cert_days >= 14"]
    assert api.retry_interval == 10_000
    assert probes["warm-the-cache"].schedule == "*/5 * * * *"
    assert probes["search-mcp"].max_task_ages == {
        "registry_sync": 900_000,
        "session_cleanup": 93_600_000,
        "*": 7_200_000,
    }
    assert fleet.config.server.bind_address == ("127.0.0.1", 8080)
    assert fleet.config.status_page.groups == ("Core", "Search")
    assert [key.role for key in fleet.config.access.api_keys] == ["operator", "reader"]
    files = read_and_merge_config_files(ROOT / "examples/full.yaml", None, FLEET_ENV).files
    names = ("full.yaml", "managed.yaml", "conf.d/blog.yaml")
    assert list(files) == [ROOT / "examples" / name for name in names]


def test_every_email_notifier_gets_the_smtp_server() -> None:
    fleet = load_config(ROOT / "examples/full.yaml", env=FLEET_ENV).config
    destinations = fleet.receivers["oncall"].build_notifiers_by_destination("oncall")
    assert list(destinations) == ["oncall/slack", "oncall/email"]
    email = destinations["oncall/email"]
    assert isinstance(email, EmailNotifier)
    assert email.server == fleet.email


def test_routes_become_a_routing_table() -> None:
    fleet = load_config(ROOT / "examples/full.yaml", env=FLEET_ENV).config
    receivers = {
        name: tuple(receiver.build_notifiers_by_destination(name)) for name, receiver in fleet.receivers.items()
    }
    table = NotificationRoutingTable(receivers, tuple(route.to_notification_route() for route in fleet.routes))
    gateway = ProbeInfo(1, "gateway", "Partner gateway", "http")
    assert table.decide_routing(gateway, "http.503").destinations == ("journal/log", "oncall/slack", "oncall/email")
    assert table.decide_routing(ProbeInfo(2, "blog", "Blog", "http"), "http.503").destinations == (
        "journal/log",
        "chat/slack",
    )


@pytest.mark.parametrize(
    ("reason", "patterns"),
    [("tls", ("tls",)), (["tls.expired", "http.5xx"], ("tls.expired", "http.5xx")), ("http.418", ("http.418",))],
)
def test_a_route_matches_reasons(reason: str | list[str], patterns: tuple[str, ...]) -> None:
    route = NotificationRouteSettings.model_validate(
        {"match": {"reason": reason}, "receivers": ["chat"]}
    ).to_notification_route()
    assert route.reason_patterns == patterns


def test_a_route_with_an_unknown_reason_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"did you mean 'tls.expired'"):
        NotificationRouteSettings.model_validate({"match": {"reason": "tls.expird"}, "receivers": ["chat"]})


@pytest.mark.parametrize("file", sorted((ROOT / "examples/systems").glob("*.yaml")), ids=lambda file: file.stem)
def test_an_example_of_a_system_loads(file: Path) -> None:
    env = FLEET_ENV | {"APP_URL": "https://app.acme.example", "LEDGER_CHECKIN_TOKEN": "ledger-checkin-token"}
    assert load_config(file, env=env).config.probes


# --- defaults

PROBE = "probes:\n  - name: A\n    http: https://a.example/\n"


@pytest.mark.parametrize(
    ("defaults", "own", "every", "schedule"),
    [
        ("every: 5m", "", 300_000, None),
        ("every: 5m", "every: 10s", 10_000, None),
        ("every: 5m", 'schedule: "@hourly"', 60_000, "@hourly"),
        ('schedule: "0 * * * *"', "", 60_000, "0 * * * *"),
        ('schedule: "0 * * * *"', "every: 10s", 10_000, None),
    ],
)
def test_the_interval_or_schedule_of_a_probe_overrides_the_default(
    defaults: str, own: str, every: int, schedule: str | None
) -> None:
    (probe,) = config(f"defaults: {{{defaults}}}\n{PROBE}    {own}\n").probes
    assert (probe.every, probe.schedule) == (every, schedule)


def test_alert_is_merged_by_field_and_other_fields_are_replaced() -> None:
    text = (
        "defaults: {tags: [a, b], alert: {failure_threshold: 5, success_threshold: 4}}\n"
        f"{PROBE}    tags: [c]\n    alert: {{failure_threshold: 1}}\n"
    )
    (probe,) = config(text).probes
    assert probe.tags == ("c",)
    assert (probe.alert.failure_threshold, probe.alert.success_threshold) == (1, 4)


@pytest.mark.parametrize(
    ("written", "interval_ms"),
    [("", 14_400_000), ("off", 0), ("0", 0), ("0s", 0), ("1m", 60_000), ("1h30m", 5_400_000), ("365d", 31_536_000_000)],
)
def test_the_interval_of_reminders(written: str, interval_ms: int) -> None:
    (probe,) = config(PROBE + (f"    alert: {{repeat_interval: {written}}}\n" if written else "")).probes
    assert probe.alert.repeat_interval == interval_ms


def test_a_route_escalates_to_further_receivers() -> None:
    text = (
        "{receivers: [a], escalate: [{after: 15m, unless: acknowledged, receivers: [b]}, {after: 2h, receivers: [c]}]}"
    )
    (route,) = config(f"receivers: {{a: {{log: {{}}}}, b: {{log: {{}}}}, c: {{log: {{}}}}}}\nroutes: [{text}]\n").routes
    assert route.to_notification_route().escalation_steps == (
        EscalationStep(900_000, ("b",), unless_acknowledged=True),
        EscalationStep(7_200_000, ("c",)),
    )


@pytest.mark.parametrize(
    ("written", "group_by", "wait_ms"),
    [
        ("", None, 0),
        ("group_by: []", (), 0),
        ("group_by: [group]", ("group",), 0),
        ("group_by: [severity, kind, probe], group_wait: 30s", ("severity", "kind", "probe"), 30_000),
        ("group_by: [group], group_wait: 0", ("group",), 0),
        ("group_by: [group], group_wait: 1h, escalate: [{after: 61m, receivers: [b]}]", ("group",), 3_600_000),
    ],
)
def test_a_route_groups_incidents(written: str, group_by: tuple[str, ...] | None, wait_ms: int) -> None:
    (settings,) = config(
        f"receivers: {{a: {{log: {{}}}}, b: {{log: {{}}}}}}\nroutes: [{{receivers: [a], {written}}}]\n"
    ).routes
    route = settings.to_notification_route()
    assert (route.group_by, route.group_wait_ms) == (group_by, wait_ms)


def test_a_default_retry_interval_does_not_apply_to_a_faster_probe() -> None:
    (probe,) = config(f"defaults: {{retry_interval: 10s}}\n{PROBE}    every: 5s\n").probes
    assert (probe.every, probe.retry_interval) == (5_000, None)


def test_a_problem_of_the_defaults_is_reported_once_at_its_location() -> None:
    text = "defaults: {every: 5}\nprobes:\n" + "".join(
        f"  - {{name: P{i}, http: https://a.example/}}\n" for i in range(9)
    )
    assert error_text(text) == "configuration:1:19: defaults.every: a duration needs a unit, such as 5s or 5m"


# --- probe_yaml

PROBE_WITH_SECRETS = """
defaults: {timeout: 5s, alert: {failure_threshold: 2}}
probes:
  - name: Übung
    http: {url: "https://a.example/?q=${TERM}", headers: {Authorization: Bearer literal-token-1}}
    retries: ${RETRIES}
    alert: {severity: critical}
"""


def test_probe_yaml_is_as_written_with_defaults_and_without_secrets() -> None:
    given = loaded(PROBE_WITH_SECRETS, {"TERM": "top-secret-term", "RETRIES": "2"})
    assert given.probe_yaml["ubung"] == (
        "name: Übung\nhttp:\n  url: https://a.example/?q=${TERM}\n  headers:\n    Authorization: •••\n"
        "retries: ${RETRIES}\nalert:\n  failure_threshold: 2\n  severity: critical\ntimeout: 5s\n"
    )


# --- several files


def test_only_a_run_that_may_change_its_target_has_an_effect() -> None:
    """A kind that states nothing about it, such as one of your own, has none."""
    loaded_config = config("""
        probes:
          - {name: get, http: "https://a.example/"}
          - {name: post, http: {url: "https://a.example/", method: POST}}
          - {name: reading, steps: [{name: "1", http: "https://a.example/"}]}
          - name: buying
            steps: [{name: a, http: "https://a.example/"}, {name: b, http: {url: "https://a.example/", method: PUT}}]
          - {name: mcp, mcp: "https://a.example/mcp"}
          - {name: tool, mcp: {url: "https://a.example/mcp", call: send_report}}
          - {name: queue, queue: {bullmq: {redis: "redis://a.example", queue: mail}}}
          - {name: jobs, jobs: {bullmq: {redis: "redis://a.example", queue: mail}}}
          - {name: canary, canary: {bullmq: {redis: "redis://a.example", queue: mail}}}
          - {name: heartbeat, heartbeat: {token: t0ken-of-the-nightly-backup, every: 1h}}
    """)
    ids = [probe.id for probe in loaded_config.probes if loaded_config.has_run_effect(probe.id)]
    assert ids == ["post", "buying", "tool", "canary"]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "main.yaml"


MAIN = """
include: ["conf.d/*.yaml", "*.none"]
defaults: {every: 7s}
probes: [{name: A, http: https://a.example/}]
receivers: {a: {log: {}}}
routes: [{receivers: [a]}]
"""


def test_included_files_add_probes_receivers_and_routes(tmp_path: Path) -> None:
    (tmp_path / "conf.d/deeper").mkdir(parents=True)
    main = write(tmp_path, main=MAIN)
    write(
        tmp_path / "conf.d",
        b="probes: [{name: B, http: https://b.example/}]\nreceivers: {b: {log: {}}}\nroutes: [{receivers: [b]}]\n",
        c="include: [deeper/d.yaml]\nprobes: [{name: C, http: https://c.example/}]\n",
    )
    write(tmp_path / "conf.d/deeper", d="probes: [{name: D, http: https://d.example/}]\n")
    given = load_config(main)
    assert [(probe.name, probe.every) for probe in given.config.probes] == [(n, 7_000) for n in "ABCD"]
    assert list(given.config.receivers) == ["a", "b"]
    assert [route.receivers for route in given.config.routes] == [("a",), ("b",)]
    assert [file.name for file in read_and_merge_config_files(main, None, {}).files] == [
        "main.yaml",
        "b.yaml",
        "c.yaml",
        "d.yaml",
    ]


def test_a_preference_too_long_to_be_stored_is_refused() -> None:
    text = "probes: [{{name: A, http: 'https://a.example/', {}: ['body == \"{}\"']}}]"
    load_config(None, text.format("prefer", "x" * (MAX_PREFER_CEL_EXPRESSION_BYTES - 10)))
    load_config(None, text.format("expect", "x" * (MAX_PREFER_CEL_EXPRESSION_BYTES - 9)))
    with pytest.raises(ConfigError, match=r"probes\.0\.prefer\.0: expected at most 2,000 bytes: divide the expression"):
        load_config(None, text.format("prefer", "x" * (MAX_PREFER_CEL_EXPRESSION_BYTES - 9)))


def test_a_file_that_matches_two_patterns_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    main = write(tmp_path, main="include: [b.yaml, '[b]*.yaml', other/../b.yaml]\n", b=PROBE)
    assert len(load_config(main).config.probes) == 1


@pytest.mark.parametrize(
    ("main", "other", "message"),
    [
        ("include: [b.yaml]", "include: [main.yaml]", "b.yaml:1:11: include.0: the file includes itself: "),
        ("include: ['*.yaml']", "", "main.yaml:1:11: include.0: the file includes itself: "),
        ("include: [b.yaml]", "server: {}", "b.yaml:1:1: server: `server` is allowed only in the main file; "),
        ("include: [b.yaml]", "defaults: {}", "b.yaml:1:1: defaults: `defaults` is allowed only in the main file; "),
        ("include: [b.yaml]", "probs: []", "b.yaml:1:1: probs: unknown section 'probs'; did you mean 'probes'?"),
        ("include: [b.yaml]", "version: 2", "b.yaml:1:10: version: expected 1"),
        ("include: [b.yaml]", "probes: [{name: B}]", "b.yaml:1:10: probes.0: no probe kind: "),
        ("include: [b.yaml]", "probes: {", "b.yaml:1:10: a value is missing here"),
        (
            "receivers: {a: {log: {}}}\ninclude: [b.yaml]",
            "receivers: {a: {log: {}}}",
            "duplicate receiver: 'a' is defined at ",
        ),
        (f"{PROBE}include: [b.yaml]", PROBE, "b.yaml:2:11: probes.0.name: duplicate name: another probe uses it at "),
        ("include: ['${UNSET}']", "", "main.yaml:1:11: include.0: variable UNSET is not set"),
    ],
)
def test_problems_of_included_files_have_their_location(tmp_path: Path, main: str, other: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, main=main, b=other or PROBE), env={})
    assert message in str(error.value).replace(f"{tmp_path}/", "")
    assert len(error.value.problems) == 1


def test_problems_of_several_files_are_in_reading_order(tmp_path: Path) -> None:
    main = write(
        tmp_path, main="include: [b.yaml]\nroutes: [{receivers: [x]}]\nserver: {listen: x}\n", b="probes: [1, 2]\n"
    )
    with pytest.raises(ConfigError) as error:
        load_config(main)
    assert [(Path(p.file).name, p.line) for p in error.value.problems] == [
        *(("main.yaml", 2), ("main.yaml", 3), ("b.yaml", 1), ("b.yaml", 1))
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "watchdog.yaml:1:1: the file is not UTF-8 text"),
        (b"probes: []\na: \xc3(", "watchdog.yaml:2:4: the file is not UTF-8 text"),
        (None, "watchdog.yaml: no such file or directory; `watchdog init` creates a configuration"),
    ],
)
def test_a_file_that_cannot_be_read_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("watchdog.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_config(Path("watchdog.yaml"))
    assert str(error.value) == message


# --- sections


@pytest.mark.parametrize(
    ("written", "normalized"),
    [
        ("sqlite:///watchdog.db", "sqlite:///watchdog.db"),
        ("sqlite:////var/lib/watchdog.db", "sqlite:////var/lib/watchdog.db"),
        ("sqlite:watchdog.db", "sqlite:///watchdog.db"),
        ("sqlite:/var/lib/watchdog.db", "sqlite:////var/lib/watchdog.db"),
        ("postgres://w:p@db/watchdog", "postgresql+psycopg://w:p@db/watchdog"),
        (
            "postgresql://w:p@db:5432/watchdog?sslmode=require",
            "postgresql+psycopg://w:p@db:5432/watchdog?sslmode=require",
        ),
        ("postgresql+psycopg://db/watchdog", "postgresql+psycopg://db/watchdog"),
    ],
)
def test_database_urls_are_normalized(written: str, normalized: str) -> None:
    assert config(f'storage: {{url: "{written}"}}').storage.url == normalized


def test_postgresql_without_the_extra_is_rejected_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchdog.config.cross_checks.find_spec", lambda name: None)
    assert error_text('storage: {url: "postgresql://db/watchdog"}') == (
        "configuration:1:16: storage.url: PostgreSQL requires an extra: install Watchdog with the `postgres` extra, "
        "for example with `uv tool install '.[postgres]'` in a clone"
    )


@pytest.mark.parametrize(
    ("listen", "address", "beyond"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080), False),
        ("127.9.9.9:1", ("127.9.9.9", 1), False),
        ("localhost:0", ("localhost", 0), False),
        ("[::1]:8080", ("::1", 8080), False),
        (":8080", ("0.0.0.0", 8080), True),
        ("0.0.0.0:80", ("0.0.0.0", 80), True),
        ("[::]:80", ("::", 80), True),
        ("192.168.1.2:80", ("192.168.1.2", 80), True),
        ("status.acme.example:80", ("status.acme.example", 80), True),
    ],
)
def test_addresses_other_than_loopback_require_an_api_key(listen: str, address: tuple[str, int], beyond: bool) -> None:
    text = f'server: {{listen: "{listen}"}}\n'
    guarded = config(text + "access: {api_keys: [{name: a, role: reader, key: 0123456789abcdefx}]}").server
    assert (guarded.bind_address, guarded.listens_beyond_loopback) == (address, beyond)
    if beyond:
        assert error_text(text).startswith("configuration:1:18: server.listen: an address other than loopback ")
    else:
        assert config(text).server == guarded


def test_missing_sections_have_defaults() -> None:
    given = config("version: 1")
    assert (given.probes, given.receivers, given.routes, given.email) == ((), {}, (), None)
    assert (format_config_duration(given.storage.keep_results), format_config_duration(given.storage.keep_rollups)) == (
        "30d",
        "400d",
    )
    assert (given.status_page.title, format_config_duration(given.status_page.history)) == ("Status", "90d")


def test_a_match_refers_to_a_probe_by_name_or_id() -> None:
    text = """
probes: [{name: The API, id: api, http: https://a.example/}]
receivers: {a: {log: {}}}
routes: [{match: {probe: The API}, receivers: [a]}, {match: {probe: api}, receivers: [a]}]
status_page: {match: {probe: The API}}
"""
    given = config(text)
    assert [route.match.probe for route in given.routes] == ["api", "api"]
    assert given.status_page.match.to_probe_matcher().probe == "api"


# --- secrets

SECRETS = """
probes:
  - name: A
    http:
      url: "https://user:url-passw0rd@a.example/?k=${LONG}"
      headers: {X-Api-Key: literal-api-key, Accept: application/json}
      auth: {basic: {username: watchdog, password: pw}}
    runbook: "https://wiki.example/${SHORT}/${UNSET:-the-default-page}"
access: {api_keys: [{name: ci, role: reader, key_file: key.txt}]}
storage: {url: "postgresql://w:${DB}@db/watchdog"}
"""


def test_the_mask_hides_secrets_that_can_be_recognised_only(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("0123456789abcdef-from-file\n")
    (tmp_path / "main.yaml").write_text(SECRETS)
    given = load_config(tmp_path / "main.yaml", env={"LONG": "eight888", "SHORT": "seven77", "DB": "p%40ss-w0rd"})
    assert given.config.access.api_keys[0].key.get_secret_value() == "0123456789abcdef-from-file"
    for secret in (
        *(
            "eight888",
            "url-passw0rd",
            "literal-api-key",
            "0123456789abcdef-from-file",
            "p%40ss-w0rd",
            "p@ss-w0rd",
        ),
    ):
        assert given.mask(f"<{secret}>") == "<•••>"
    for plain in ("pw", "seven77", "the-default-page", "application/json", "watchdog", "user", "a.example"):
        assert given.mask(plain) == plain


NAMED = """
probes:
  - name: Shop ${TOKEN}
    http: https://a.example/
    group: ${TOKEN}
    tags: [eu, "${TOKEN}"]
    runbook: https://w/${TOKEN}
  - {name: Other, http: "https://b.example/"}
receivers: {shop: {log: {}}}
routes:
  - {match: {group: "${TOKEN}", tags: ["${TOKEN}"], probe: "Shop ${TOKEN}"}, receivers: [shop]}
  - {match: {probe: "shop-${TOKEN}"}, receivers: [shop]}
maintenance:
  - {name: "Move ${TOKEN}", start: "2026-12-01T22:00", duration: 1h, match: {group: "${TOKEN}", probe: "Shop ${TOKEN}"}}
status_page: {title: "Acme ${TOKEN}", groups: ["${TOKEN}"], match: {tags: ["${TOKEN}"]}}
"""


def test_masked_names_still_match() -> None:
    given = load_config(None, NAMED, {"TOKEN": "hush-hush"})
    probe, other = given.config.probes
    assert (probe.name, probe.group, probe.tags, probe.runbook) == ("Shop •••", "•••", ("eu", "•••"), "https://w/•••")
    assert (given.config.status_page.title, given.config.status_page.groups) == ("Acme •••", ("•••",))
    assert (probe.id, other.name) == ("shop-hush-hush", "Other")
    assert given.config.routes[1].match.probe == "shop-hush-hush", "which is a key"
    info = ProbeInfo(1, probe.id, probe.name, "http", probe.group, probe.tags)
    (window,) = given.config.maintenance
    assert window.name == "Move •••"
    for match in (given.config.routes[0].match, window.match, given.config.status_page.match):
        assert match.to_probe_matcher().describe_mismatch(info) == ""
        assert "hush" not in match.to_probe_matcher().describe_mismatch(ProbeInfo(2, "other", "Other", "http"))


# --- time and imports


def test_a_large_fleet_loads() -> None:
    probes = "".join(
        f"  - name: API {i}\n    group: Core\n    tags: [prod, eu]\n"
        f'    http: {{url: "https://api{i}.acme.example/", headers: {{Authorization: "Bearer ${{API_TOKEN}}"}}}}\n'
        f'    expect: ["status == 200", "body.queue.failed <= {i}"]\n    prefer: ["elapsed_ms <= 800"]\n'
        for i in range(500)
    )
    assert len(config(f"defaults: {{every: 10s}}\nprobes:\n{probes}", {"API_TOKEN": "0123456789"}).probes) == 500


HEAVY = {"aiosmtplib", "cryptography", "css_inline", "fastapi", "httpx", "httpx2", "mcp", "psycopg", "sqlalchemy"}


def test_loading_imports_no_module_that_only_the_service_needs() -> None:
    program = (
        "import sys, json; from pathlib import Path\n"
        "from watchdog.config.load import load_config; from watchdog.config.schema import build_config_json_schema\n"
        "load_config(Path('examples/full.yaml'), env=json.loads(sys.argv[1])); build_config_json_schema()\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-c", program, json.dumps(FLEET_ENV)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(ran.stdout.split())
    assert "yaml" in imported
    assert imported & HEAVY == set()


def test_unsupported_defaults_do_not_apply_to_a_canary() -> None:
    text = (
        "defaults: {timeout: 5s, retries: 2, every: 5m}\n"
        "probes:\n  - {name: Mail, canary: {bullmq: {redis: 'redis://localhost', queue: mail}, finish_within: 1m}}\n"
    )
    (probe,) = config(text).probes
    assert (probe.run_time_limit_ms, probe.retries, probe.every) == (85_000, 0, 300_000)
