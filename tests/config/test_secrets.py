"""Targets are visible, secrets are not: what is masked, where, and what is warned about."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from watchdog.config.load import LoadedConfig, load_config
from watchdog.config.problems import ConfigError
from watchdog.service.registration import build_registered_probe

RECEIVERS = "receivers: {oncall: {log: {}}}\n"


def loaded(probe: str, **env: str) -> LoadedConfig:
    return load_config(Path("watchdog.yaml"), f"probes:\n  - {probe}\n{RECEIVERS}", env)


def target_of(config: LoadedConfig) -> str:
    (probe,) = config.config.probes
    return build_registered_probe(probe, "", config.mask).info.target


class Case(NamedTuple):
    sentence: str
    probe: str
    env: dict[str, str]
    target: str
    secrets: tuple[str, ...] = ()
    """What is masked wherever it occurs."""


CASES = [
    Case(
        "a whole URL from a variable",
        '{name: A, http: "${URL}"}',
        {"URL": "https://me:pa55word@api.acme.example:8443/v1/health?token=abcdef123456#x"},
        "https://api.acme.example:8443/v1/health",
        ("pa55word", "abcdef123456"),
    ),
    Case(
        "the base of a URL",
        '{name: A, http: "${BASE_URL}/health?key=${KEY}"}',
        {"BASE_URL": "https://api.acme.example/app", "KEY": "k3y-of-acme"},
        "https://api.acme.example/app/health",
        ("k3y-of-acme",),
    ),
    Case(
        "host, port and path segments",
        '{name: A, http: "https://${HOST}:${PORT}/${TENANT}/health"}',
        {"HOST": "host.acme.example", "PORT": "8443", "TENANT": "tenant-number-one"},
        "https://host.acme.example:8443/tenant-number-one/health",
    ),
    Case(
        "a secret by the name of its variable, inside a path",
        '{name: A, http: "https://a.example/hook/${HOOK_TOKEN}/x"}',
        {"HOOK_TOKEN": "h00k-of-acme"},
        "https://a.example/hook/•••/x",
        ("h00k-of-acme",),
    ),
    Case(
        "a short secret inside a path, masked in place",
        '{name: A, http: "https://metro.example/${PATH_TOKEN}/metro/prod"}',
        {"PATH_TOKEN": "ro"},
        "https://metro.example/•••/metro/prod",
    ),
    Case(
        "a short password does not touch the path",
        '{name: A, http: "https://watcher:ro@prod.example/prod/ro/metro"}',
        {},
        "https://prod.example/prod/ro/metro",
    ),
    Case(
        "a queue and its database",
        '{name: A, queue: {bullmq: {redis: "${REDIS_URL}", queue: "${QUEUE}"}}}',
        {"REDIS_URL": "redis://:s3cr3t-of-redis@cache.acme.example:6379/2", "QUEUE": "email-of-customers"},
        "redis://cache.acme.example:6379/2, queue email-of-customers",
        ("s3cr3t-of-redis",),
    ),
    Case(
        "a broker",
        '{name: A, queue: {celery: {broker: "amqp://${USER}:${RABBIT_PASSWORD}@${HOST}/${VHOST}", queue: mail}}, '
        "rules: {waiting: {over: 9}}}",
        {"USER": "guest", "RABBIT_PASSWORD": "guest", "HOST": "rabbit.acme.example", "VHOST": "production"},
        "amqp://rabbit.acme.example/production, queue mail",
    ),
    Case(
        "a database whose name equals its password",
        '{name: A, jobs: {pgboss: {url: "${APP_DB_URL}"}}}',
        {"APP_DB_URL": "postgres://acme_prod:acme_prod1@acme_prod1.example/acme_prod1"},
        "postgresql://acme_prod1.example/acme_prod1, schema pgboss",
        ("acme_prod1",),
    ),
    Case(
        "an MCP server",
        '{name: A, mcp: {url: "${MCP_URL}", headers: {Authorization: "Bearer ${MCP_TOKEN}"}}}',
        {"MCP_URL": "https://mcp.acme.example/mcp", "MCP_TOKEN": "t0ken-of-mcp"},
        "https://mcp.acme.example/mcp",
        ("t0ken-of-mcp",),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sentence)
def test_a_target_is_visible_without_credentials_query_and_secrets(case: Case) -> None:
    config = loaded(case.probe, **case.env)
    assert target_of(config) == case.target
    for secret in case.secrets:
        assert config.mask(f"got {secret}!") == "got •••!"


def test_a_url_from_a_file_is_visible(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://:s3cr3t-of-redis@cache.acme.example:6379/2\n")
    (tmp_path / "watchdog.yaml").write_text(
        f"probes: [{{name: A, queue: {{rq: {{redis_file: url, queue: email}}}}}}]\n{RECEIVERS}"
    )
    config = load_config(tmp_path / "watchdog.yaml")
    assert target_of(config) == "redis://cache.acme.example:6379/2, queue email"
    assert config.mask("s3cr3t-of-redis") == "•••"


def test_the_path_of_a_receivers_url_is_masked() -> None:
    receivers = (
        'receivers: {a: {slack: {webhook: "https://hooks.example/${S}/x"}}, '
        'b: {webhook: {url: "https://h.example/${W}"}}, c: {webhook: {url: "${URL}"}}}'
    )
    env = {"S": "path-of-slack", "W": "path-of-hook", "URL": "https://hooks.example/path-of-other"}
    mask = load_config(
        Path("watchdog.yaml"), f"probes: [{{name: A, http: 'https://a.example/'}}]\n{receivers}", env
    ).mask
    assert [mask(value) for value in env.values()] == ["•••"] * 3


@pytest.mark.parametrize(
    ("secret", "sentence"),
    [
        ("ro", "the probe reports an error of the broker"),
        ("http", "no response within 10 s from http://prod.example/"),
        ("password", "the server rejects the user name or the password"),
        ("watchdog", "the database has no schema of this version: run `watchdog db upgrade`"),
        ("connection", "connection refused (127.0.0.1:9)"),
        ("expected", "HTTP 503, expected 2xx"),
    ],
)
def test_a_weak_secret_changes_no_sentence_and_is_a_warning(secret: str, sentence: str) -> None:
    config = loaded('{name: A, http: {url: "https://a.example/", auth: {bearer: "${T}"}}}', T=secret)
    assert config.mask(sentence) == sentence
    (warning,) = config.warnings
    assert warning.path == "probes.0.http.auth.bearer"
    assert "too short, or a word of Watchdog's own messages" in warning.message


SHORT_SECRETS = [
    ('{name: A, http: "https://u:ro@a.example/"}', "probes.0.http"),
    ('{name: A, http: {url: "https://a.example/", headers: {X-Api-Key: ro}}}', "probes.0.http.headers.X-Api-Key"),
    (
        '{name: A, http: {url: "https://a.example/", auth: {basic: {username: u, password: ro}}}}',
        "probes.0.http.auth.basic.password",
    ),
    ('{name: A, http: "https://a.example/?k=${SHORT}"}', "probes.0.http"),
    ('{name: A, queue: {rq: {redis: "redis://:ro@c.example/0", queue: mail}}}', "probes.0.queue.rq.redis"),
]


@pytest.mark.parametrize(("probe", "path"), SHORT_SECRETS)
def test_every_kind_of_short_secret_is_a_warning_and_masked_where_it_is(probe: str, path: str) -> None:
    config = loaded(probe, SHORT="ro")
    assert [warning.path for warning in config.warnings] == [path]
    (text,) = config.probe_yaml.values()
    assert ":ro@" not in text
    assert ": ro\n" not in text
    assert ("•••" in text) is ("${SHORT}" not in text)


def test_long_secrets_that_are_no_words_are_no_warning() -> None:
    probe = '{name: A, http: {url: "https://u:${PW}@a.example/?k=${K}", headers: {X-Api-Key: "${T}"}}}'
    assert loaded(probe, PW="hunter2hunter2", K="k3y-of-acme", T="zvqjxkwpfmlr").warnings == ()


def test_credentials_in_a_url_of_any_text_are_masked() -> None:
    mask = loaded("{name: A, http: 'https://a.example/'}").mask
    assert mask("cannot use redis://:ro@cache:6379/0 or amqp://guest:guest@mq/v") == (
        "cannot use redis://•••@cache:6379/0 or amqp://•••@mq/v"
    )
    assert mask("expected postgresql://user:password@host/database") == (
        "expected postgresql://user:password@host/database"
    )
    assert mask("see https://a.example/@me and ops@acme.example") == "see https://a.example/@me and ops@acme.example"


@pytest.mark.parametrize("word", ["every", "such", "probe", "duration"])
def test_a_variable_that_is_a_word_garbles_no_problem_of_another_field(word: str) -> None:
    text = f"probes: [{{name: '${{WORD}}', http: 'https://a.example/', every: 5}}]\n{RECEIVERS}"
    with pytest.raises(ConfigError, match="a duration needs a unit, such as 5s or 5m"):
        load_config(Path("watchdog.yaml"), text, {"WORD": word})
