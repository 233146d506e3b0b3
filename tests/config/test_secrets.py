"""Targets are visible, secrets are not: what is masked, where, and what is warned about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
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
    assert "too short, or a word in Watchdog's own messages" in warning.message


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


class Structural(NamedTuple):
    """A secret that is one by its place, also as a literal."""

    sentence: str
    probe: str
    target: str
    secrets: tuple[str, ...] = ()
    """What is masked wherever it occurs."""
    hidden: tuple[str, ...] = ()
    """What the configuration does not show either."""
    warned: tuple[str, ...] = ()
    """The fields with a warning, without `probes.0.`."""
    env: Mapping[str, str] = MappingProxyType({})
    files: Mapping[str, str] = MappingProxyType({})


BODY = "{name: A, http: {url: 'https://h.example/', method: POST, body: %s}}"
PGBOSS = "{name: A, jobs: {pgboss: {%s}}}"
STRUCTURAL = [
    Structural("a colon", "{name: A, http: 'http://u:%3A@h.example/a:b'}", "http://h.example/a:b",
               hidden=("%3A",), warned=("http",)),
    Structural("a letter", "{name: A, http: 'http://u:e@edge.example/e/e'}", "http://edge.example/e/e",
               hidden=(":e@",), warned=("http",)),
    Structural("the name of the scheme", "{name: A, http: 'http://u:http@http.example/http'}",
               "http://http.example/http", hidden=(":http@",), warned=("http",)),
    Structural("the host's short name", "{name: A, queue: {rq: {redis: 'redis://:cache@cache:6379/0', queue: cache}}}",
               "redis://cache:6379/0, queue cache", hidden=(":cache@",), warned=("queue.rq.redis",)),
    Structural("the host's long name, which stays visible",
               "{name: A, queue: {rq: {redis: 'redis://:cache.acme.example@cache.acme.example:6379/0', queue: q}}}",
               "redis://cache.acme.example:6379/0, queue q", ("cache.acme.example",), warned=("queue.rq.redis",)),
    Structural("percent-encoded", "{name: A, http: 'https://u:p%40ss%2Fword1@h.example/x'}", "https://h.example/x",
               ("p%40ss%2Fword1", "p@ss/word1"), ("p%40ss",)),
    Structural("with an @ that is not encoded",
               "{name: A, queue: {rq: {redis: 'redis://:correct@horse@cache:6379/0', queue: mail}}}",
               "redis://cache:6379/0, queue mail", ("correct@horse",), ("correct", "horse")),
    Structural("with colons", "{name: A, http: 'http://u:a:b:c:d:e:f@h.example/'}", "http://h.example/",
               ("a:b:c:d:e:f",), ("a:b:c",)),
    Structural("a token as the user", "{name: A, http: 'https://ghp_abcdef123456@h.example/x'}", "https://h.example/x",
               ("ghp_abcdef123456",), ("ghp_",)),
    Structural("a token as the user, with an empty password", "{name: A, http: 'https://sk_live_abcdef:@h.example/x'}",
               "https://h.example/x", ("sk_live_abcdef",), ("sk_live",)),
    Structural("a token as the user of a WebSocket", "{name: A, websocket: 'wss://ghp_abcdef123456@h.example/x'}",
               "wss://h.example/x", ("ghp_abcdef123456",), ("ghp_",)),
    Structural("in a message that is sent",
               "{name: A, websocket: {url: 'wss://h.example/x', send: '{\"token\": \"abcdef1234\", \"a\": 1}'}}",
               "wss://h.example/x", ("abcdef1234",), ("abcdef1234",)),
    Structural("in metadata", "{name: A, grpc: {target: 'h.example:1', metadata: {x-api-key: abcdef1234, x-a: b}}}",
               "grpc://h.example:1", ("abcdef1234",), ("abcdef1234",)),
    Structural("inside metadata",
               "{name: A, grpc: {target: 'h.example:1', metadata: {x-auth: 'token=\"abcdef1234\"'}}}",
               "grpc://h.example:1", ("abcdef1234",), ("abcdef1234",)),
    Structural("the user of a database is none", PGBOSS % "url: 'postgresql://acme_app@db.example/orders'",
               "postgresql://db.example/orders, schema pgboss"),
    Structural("a token in the query", "{name: A, http: 'https://h.example/p?format=json-lines&token=abcdef1234'}",
               "https://h.example/p", ("abcdef1234",), ("abcdef1234",)),
    Structural("a short token in the query", "{name: A, http: 'https://h.example/p?format=json-lines&token=ro'}",
               "https://h.example/p", hidden=("token=ro",), warned=("http",)),
    Structural("a long key in the query", "{name: A, http: 'https://h.example/p?key=AIzaSyAbcdef'}",
               "https://h.example/p", ("AIzaSyAbcdef",), ("AIza",)),
    Structural("a short key in the query is none", "{name: A, http: 'https://h.example/p?key=en&code=200'}",
               "https://h.example/p"),
    Structural("encoded in the query", "{name: A, http: 'https://h.example/p?sig=ab%2Fcdefgh'}",
               "https://h.example/p", ("ab%2Fcdefgh", "ab/cdefgh"), ("ab%2F",)),
    Structural("a fragment", "{name: A, http: 'https://h.example/p#access_token=abcdef1234'}",
               "https://h.example/p", ("abcdef1234",), ("abcdef1234",)),
    Structural("parameters of a broker", "{name: A, queue: {celery: {broker: 'amqp://me:hunter2hunter2@mq/v?"
               "ssl_password=abcdef1234', queue: mail}}, rules: {waiting: {over: 9}}}",
               "amqp://mq/v, queue mail", ("abcdef1234", "hunter2hunter2"), ("abcdef1234", "hunter2")),
    Structural("a parameter of a Redis URL",
               "{name: A, queue: {rq: {redis: 'redis://cache/0?password=abcdef1234', queue: mail}}}",
               "redis://cache/0, queue mail", ("abcdef1234",), ("abcdef1234",)),
    Structural("the password inside a Basic header",
               "{name: A, http: {url: 'https://h.example/', headers: {Authorization: 'Basic "
               "dTpodW50ZXIyaHVudGVyMg=='}}}",
               "https://h.example/", ("hunter2hunter2", "dTpodW50ZXIyaHVudGVyMg=="), ("dTpod",)),
    Structural("short headers", "{name: A, http: {url: 'https://h.example/', headers: {X-Api-Key: abc, Cookie: a=b}}}",
               "https://h.example/", hidden=("abc", "a=b"), warned=("http.headers.X-Api-Key", "http.headers.Cookie")),
    Structural("arguments of a command",
               "{name: A, mcp: {command: [server, --token, abcdef1234, '--api-key=zyxwvu9876', -v, "
               "PGPASSWORD=hunter4x4, 'postgres://u:hunter2hunter2@db/x']}}",
               "server --token ••• --api-key=••• -v PGPASSWORD=••• postgres://db/x",
               ("abcdef1234", "zyxwvu9876", "hunter4x4", "hunter2hunter2"), ("abcdef", "zyxw", "hunter")),
    Structural("short arguments of a command", "{name: A, mcp: {command: [server, --password, ro, --secret=e]}}",
               "server --password ••• --secret=•••", hidden=("- ro", "=e"), warned=("mcp.command.2", "mcp.command.3")),
    Structural("an option without a value", "{name: A, mcp: {command: [server, --token-stdin, --token, -v, server]}}",
               "server --token-stdin --token -v server"),
    Structural("a script of a shell",
               "{name: A, mcp: {command: [sh, -c, 'API_KEY=abcdef1234 exec server --level x --token zyxwvu9876']}}",
               "sh -c 'API_KEY=••• exec server --level x --token •••'", ("abcdef1234", "zyxwvu9876"),
               ("abcdef", "zyxw")),
    Structural("one of two variables of a script",
               "{name: A, mcp: {command: [sh, -c, 'LEVEL=${LEVEL} TOKEN=${T} server']}}",
               "sh -c 'LEVEL=a-b TOKEN=••• server'", ("abcdef1234",), env={"LEVEL": "a-b", "T": "abcdef1234"}),
    Structural("a header inside an argument", "{name: A, mcp: {command: [npx, mcp-remote, --header, "
               "'Authorization: Bearer abcdef1234']}}", "npx mcp-remote --header 'Authorization: •••'",
               ("abcdef1234",), ("abcdef",)),
    Structural("a short variable after a short option", "{name: A, mcp: {command: [server, -p, '${DB_PASSWORD}']}}",
               "server -p •••", warned=("mcp.command.2",), env={"DB_PASSWORD": "ro"}),
    Structural("a connection string",
               "{name: A, mcp: {command: [server], env: {DSN: 'Server=db;Pwd=hunter5x5;Tls=1'}}}", "server",
               ("hunter5x5",), ("hunter5x5",)),
    Structural("names of tools", "{name: A, mcp: {command: [server], env: {GITHUB_PAT: ghp_abcdef, AUTH_HEADER: "
               "'Bearer zyxwvu9876', Ocp-Apim-Subscription-Key: qponml5432}}}", "server",
               ("ghp_abcdef", "zyxwvu9876", "qponml5432"), ("ghp_", "zyxw", "qpon")),
    Structural("JSON in a body", BODY % r"""'{"user": "me", "password": "p\u00e4ss\"word", "api_key": "ro"}'""",
               "https://h.example/", (r"p\u00e4ss\"word", 'päss"word'), ("u00e4", '"ro"'), ("http.body",)),
    Structural("JSON in the JSON of a body", BODY % r"""'{"query": "{ login(password: \"hunter6x6\") { id } }"}'""",
               "https://h.example/", ("hunter6x6",), ("hunter6x6",)),
    Structural("a form in a body", BODY % "'grant_type=password&user=me&client_secret=ab%2Fcdefgh&password=hunter7x7'",
               "https://h.example/", ("ab%2Fcdefgh", "ab/cdefgh", "hunter7x7"), ("cdefgh", "hunter7x7")),
    Structural("XML in a body", BODY % "'<a:login token=\"abcdef1234\"><w:Password T=\"x\">hunter8&amp;</w:Password>'",
               "https://h.example/", ("abcdef1234", "hunter8&"), ("abcd", "hunter8")),
    Structural("a variable in a body", BODY % """'{"password": "${X}", "level": "${LEVEL}"}'""", "https://h.example/",
               ("abcdef1234",), env={"X": "abcdef1234", "LEVEL": "high"}),
    Structural("numbers and ambiguous names of a body are none",
               BODY % """'{"max_tokens": 100, "messages": [{"role": "user"}], "key": "ro"}'""", "https://h.example/"),
    Structural("lists and mappings in JSON",
               "{name: A, http: {url: 'https://h.example/', method: POST, json: {tokens: [abcdef1234], "
               "credentials: {value: zyxwvu9876}, query: '{ login(password: \"hunter6x6\") }'}}}",
               "https://h.example/", ("abcdef1234", "zyxwvu9876", "hunter6x6"), ("abcd", "zyxw", "hunter6x6")),
    Structural("an argument from a variable", "{name: A, mcp: {command: [server, '--pw=${P}', '--token', '${T}']}}",
               "server --pw=••• --token •••", ("abcdef1234",), warned=("mcp.command.1",),
               env={"P": "ro", "T": "abcdef1234"}),
    Structural("environment variables", "{name: A, mcp: {command: [server], env: {MYSQL_PWD: ro, DB_PASS: hunter5x5}}}",
               "server", ("hunter5x5",), ("hunter5x5", "PWD: ro"), warned=("mcp.env.MYSQL_PWD",)),
    Structural("a short file", "{name: A, http: {url: 'https://h.example/', auth: {bearer_file: secret}}}",
               "https://h.example/", warned=("http.auth.bearer_file",), files={"secret": "ro\n"}),
    Structural("a long file", "{name: A, http: {url: 'https://h.example/', auth: {bearer_file: secret}}}",
               "https://h.example/", ("abcdef1234",), files={"secret": "abcdef1234\n"}),
    Structural("a file with a short password", PGBOSS % "url_file: secret",
               "postgresql://db.example/ro, schema pgboss", ("abcdef1234",), warned=("jobs.pgboss.url_file",),
               files={"secret": "postgresql://me:ro@db.example/ro?sslpassword=abcdef1234\n"}),
    Structural("a file with an encoded password", "{name: A, http: {url_file: secret}}", "https://h.example/ro/x",
               ("p@ss/word1", "p%40ss%2Fword1"), files={"secret": "https://me:p%40ss%2Fword1@h.example/ro/x"}),
    Structural("a short password that its own path repeats", "{name: A, http: 'https://u:${PW}@h.example/${PW}/x'}",
               "https://h.example/•••/x", warned=("http",), env={"PW": "ro"}),
    Structural("the same of a WebSocket", "{name: A, websocket: 'wss://u:${PW}@h.example/${PW}/x'}",
               "wss://h.example/•••/x", warned=("websocket",), env={"PW": "ro"}),
    Structural("a secret that the path of a WebSocket repeats",
               "{name: A, websocket: {url: 'wss://h.example/abcdef1234/x', headers: {X-Auth-Token: abcdef1234}}}",
               "wss://h.example/•••/x", ("abcdef1234",), ("X-Auth-Token: abcdef",),
               warned=("websocket.headers.X-Auth-Token",)),
    Structural("a variable of a secret field that a path repeats",
               "{name: A, http: {url: 'https://h.example/${T}/prod', headers: {X-Auth-Token: '${T}'}}}",
               "https://h.example/•••/prod", warned=("http.headers.X-Auth-Token",), env={"T": "qa"}),
]  # fmt: skip
SENTENCES = (
    "the probe reports an error of the broker",
    "no response within 10 s from http://prod.example/",
    "HTTP 503, expected 200; body.items[3].ok is false",
    "connection refused (127.0.0.1:9): read of 12 bytes, token expired",
)


@pytest.mark.parametrize("case", STRUCTURAL, ids=lambda case: case.sentence)
def test_a_secret_by_its_place(tmp_path: Path, case: Structural) -> None:
    for name, content in case.files.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "watchdog.yaml").write_text(f"probes:\n  - {case.probe}\n{RECEIVERS}")
    config = load_config(tmp_path / "watchdog.yaml", None, case.env)
    (config_yaml,) = config.probe_yaml.values()
    assert target_of(config) == case.target
    assert tuple(warning.path.removeprefix("probes.0.") for warning in config.warnings) == case.warned
    for secret in case.secrets:
        assert config.mask(f"got {secret}!") == "got •••!"
    assert [text for text in case.hidden if text in config_yaml] == []
    assert [config.mask(sentence) for sentence in SENTENCES] == list(SENTENCES)


def test_the_path_of_a_receivers_url_from_a_file_is_masked(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("https://hooks.example/path-of-hook\n")
    (tmp_path / "watchdog.yaml").write_text(
        "probes: [{name: A, http: 'https://a.example/'}]\nreceivers: {a: {webhook: {url_file: hook}}}"
    )
    assert load_config(tmp_path / "watchdog.yaml").mask("POST https://hooks.example/path-of-hook") == "POST •••"


def test_a_literal_that_is_no_secret_is_no_warning_and_stays_as_written() -> None:
    probe = "{name: A, http: 'https://h.example/p?since=2026-01-01&format=prometheus&page=${PAGE}#top'}"
    config = loaded(probe, PAGE="page-number-one")
    assert config.warnings == ()
    (config_yaml,) = config.probe_yaml.values()
    assert "since=2026-01-01&format=prometheus&page=${PAGE}#top" in config_yaml
