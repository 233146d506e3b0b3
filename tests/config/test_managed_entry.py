"""The text of a probe that a person enters: what it may not contain, its secrets, and its fields in a form."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from watchdog.config.managed_entry import find_forbidden_content_in_probe_yaml, mask_probe_text, restore_masked_secrets
from watchdog.config.managed_file import parse_probe_text_into_yaml_node
from watchdog.config.probe_form import (
    ProbeFormFields,
    compose_probe_text,
    find_probe_kind_in_yaml,
    split_probe_yaml_into_form_fields,
)

STORED = """\
name: A
http:
  url: "https://user:pw-0123456789@a.test/x?token=abc-123&page=1"   # the address
  headers: {Authorization: "Bearer s3cret-0123", Accept: text/html, X-Key: "${TOKEN}"}
  json: {command: stop, password: "pw\\"1"}
remediation: {on: timeout, http: {url: https://r.test/, headers: {X-Token: r3medy-0123}}}
"""
SERVER_CHANGED = "an address beside this secret, or how its server is verified, has changed: enter the secret again"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("name: A\nhttp: https://a.test/", []),
        ("name: A\nhttp: {url: https://a.test/, headers: {X: '${API_TOKEN}', x_file: a}}", []),
        ("name: A\nhttp: {url: https://a.test/, json: {command: x, a_file: y, price: $$5}}", []),
        ("http: {url: 'https://a.test/${HOME}'}", ["http.url: the variable HOME may not be used here"]),
        ("http: {url: 'https://a.test/${HOME:-x}${API_TOKEN}'}", ["http.url: the variable HOME may not be used here"]),
        ("name: x ${API_TOKEN}", ["name: a probe that is entered cannot have variables in its id and name"]),
        ("heartbeat: {token_file: /etc/shadow}", ["heartbeat.token_file: a file of this machine cannot be named"]),
        ("http: {url: x, tls: {ca_file: a, key_file: b}}", ["http.tls.ca_file: a file", "http.tls.key_file: a file"]),
        ("mcp: {command: [sh, -c, id]}", ["mcp.command: a command cannot be entered here"]),
        ("command: [sh, -c, id]", ["command: a command cannot be entered here"]),
        ("command: {run: [id], cwd: /}", ["command: a command", "command.cwd: a file of this machine"]),
        ("sql: {url: 'postgresql://u@h/d', query: 'SELECT :command', params: {command: x, key_file: y}}", []),
        ("sql: {url: 'sqlite:////etc/x', query: SELECT 1}", ["sql.url: a database of this machine"]),
        ("sql: {url: '${OTHER}', query: '${API_TOKEN}'}", ["sql.url: the variable OTHER may not be used here"]),
        ("jobs: {sql: {url: 'sqlite:///watchdog.db'}}", ["jobs.sql.url: a database of this machine"]),
        ("jobs: {sql: {url: ' SQLITE:////etc/x'}}", ["jobs.sql.url: a database of this machine"]),
        ("queue: {pgboss: {url: 'postgresql://u@h/d?sslmode=require'}}", []),
        ("http: https://a.test/?sslkey=1&file=2", []),
        ("websocket: wss://a.test/?profile=2", []),
        ("queue: {pgboss: {url: 'postgresql://u@h/d?passfile=x'}}", ["queue.pgboss.url: a file of this machine"]),
        ("queue: {pgboss: {url: 'postgresql://u@h/d?%73slkey=x'}}", ["queue.pgboss.url: a file of this machine"]),
        ("queue: {rq: {redis: 'rediss://h/0?ssl_ca_certs=x'}}", ["queue.rq.redis: a file of this machine"]),
        ("queue: {pgboss: {url: 'postgresql://u@h/d#?passfile=x'}}", ["queue.pgboss.url: a file of this machine"]),
        ("queue: {pgboss: {url: 'postgresql://u@h/d?${API_TOKEN:-passfile}=x'}}", ["queue.pgboss.url: a file of this"]),
        ("jobs: {sql: {url: '${API_TOKEN:-sqlite:////etc/x}'}}", ["jobs.sql.url: a database of this machine"]),
        ("jobs: {sql: {url: '${API_TOKEN}sqlite:////etc/x'}}", ["jobs.sql.url: a database of this machine"]),
        ("name: &a A\nid: *a", ["anchors (&) and aliases (*) cannot be entered"]),
        ("", ["enter the fields of a probe"]),
        ("# only a comment", ["enter the fields of a probe, such as `name: API`"]),
        ("- name: A", ["line 1: expected the fields of one probe"]),
        ("name: A\n---\nname: B", ["line 2: the file contains a second document"]),
        ("name: [A", ["line 1: expected ',' or ']'"]),
        ("name: \x00", ["line 1: control characters are not allowed"]),
        ("name: " + "[" * 500, ["line 1: "]),
    ],
)
def test_what_may_not_be_entered(text: str, problems: list[str]) -> None:
    texts = [str(problem) for problem in find_forbidden_content_in_probe_yaml(text, ["API_TOKEN"])]
    assert len(texts) == len(problems)
    for actual, expected in zip(texts, problems, strict=True):
        assert actual.startswith(expected)


def test_literal_secrets_are_masked_and_restored() -> None:
    masked = mask_probe_text(STORED)
    for secret in ("pw-0123456789", "abc-123", "s3cret", 'pw\\"1', "r3medy"):
        assert secret not in masked
    assert "# the address" in masked
    assert "${TOKEN}" in masked
    restored, problems = restore_masked_secrets(masked, STORED)
    assert problems == []
    assert restored == STORED


def test_secrets_are_not_sent_to_another_address() -> None:
    masked = mask_probe_text(STORED)
    moved = masked.replace("https://r.test/", "https://evil.test/")
    _, problems = restore_masked_secrets(moved, STORED)
    assert [str(problem) for problem in problems] == [f"remediation.http.headers.X-Token: {SERVER_CHANGED}"]
    _, problems = restore_masked_secrets(masked.replace("a.test", "evil.test"), STORED)
    assert {problem.path.partition(".")[0] for problem in problems} == {"http"}
    assert len(problems) == 3


@pytest.mark.parametrize("text", ["name: •••", "http: {headers: {Authorization: •••}}", "heartbeat: {token: 'a•••'}"])
def test_a_mask_without_a_secret_is_a_problem(text: str) -> None:
    ((path, message),) = restore_masked_secrets(text, "name: A")[1]
    assert message == "••• stands for a secret that is not stored here: enter it"
    assert path


# --- forms


@pytest.mark.parametrize(
    "text",
    [
        "name: A\nhttp: https://a.test/",
        "name: A\nschedule: '*/5 * * * *'\nhttp:\n  url: https://a.test/\n  method: POST",
        "{name: A, http: {url: x, method: GET, json: {a: 1}}, alert: {severity: critical, failure_threshold: 2}}",
        "name: no\ngroup: '123'\nhttp: https://a.test/?a=b&c=d#e\nexpect: ['status == 200', \"body.a == 'x: y'\"]",
        "name: 'multi\n\n  line'\nhttp: 5\nevery: 30s\ntags: [a, b]",
        "name: H\nheartbeat: {token: 0123456789abcdef, schedule: '0 3 * * *'}\nalert:\n  severity: critical",
        "name: M\nmcp:\n  url: https://m.test/\n  tools: [a]",
        "name: Q\nqueue: {pgboss: {url: x, queue: y}}\nalert: {failure_threshold: 1}",
        "name: C\ncanary:\n  rq: {redis: r, queue: '5', args: [1]}\n  finish_within: 30s\n  payload: {a: 1}\nevery: 5m",
        "name: J\njobs: {sql: {url: u, table: t, columns: {type: a, status: b}}, grace: 2m, watch: {a: {every: 1h}}}",
        "name: S\nsql: {url: 'postgresql://u@h/d', query: \"SELECT 1 AS a WHERE b = 'x: y'\", params: {a: 1}}",
        "name: D\ncommand: [check, -w, '5']\ntimeout: 30s",
        "name: R\nqueue: {rq: {redis: r, queue: q}}\nrules: {waiting: {over: 200, for: 10m}, consumers: {under: 1}}",
        "name: B\nqueue: rq\nrules: {waiting: {over: '200'}, failed: {over: 5}}",
        "name: D\ndns: acme.example\nexpect: ['ttl > 0']",
        "name: D\ndns: {name: acme.example, type: MX, equals: [10 a, 20 b]}",
        "name: I\nicmp: '2001:db8::1'",
        "name: I\nicmp: {host: a.test, count: 5, max_loss: 20%, size: 100}",
        "name: '2026'\nhttp: {url: 'http://[::1]:80/'}\nalert: {severity: 'on'}",
    ],
)
def test_a_text_is_the_same_after_it_was_in_a_form(text: str) -> None:
    kind = find_probe_kind_in_yaml(text)
    composed = compose_probe_text(split_probe_yaml_into_form_fields(text, kind), kind)

    def values(yaml: str) -> object:
        node, problems = parse_probe_text_into_yaml_node(yaml)
        assert node is not None
        assert problems == []
        tree = node.to_python(raw=True)
        if isinstance(tree.get(kind), str):
            tree[kind] = {"url": tree[kind]}
        return tree

    assert values(composed) == values(text)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("name: A\nhttp: https://a.test/", "http.url", "https://a.test/"),
        ("name: A\ndns: acme.example", "dns.name", "acme.example"),
        ("name: A\nicmp: 192.0.2.1", "icmp.host", "192.0.2.1"),
    ],
)
def test_the_short_form_of_a_kind_is_shown_in_its_input_and_stays(text: str, path: str, value: str) -> None:
    kind = find_probe_kind_in_yaml(text)
    fields = split_probe_yaml_into_form_fields(text, kind)
    assert (fields.values[path], fields.rest) == (value, "")
    assert compose_probe_text(ProbeFormFields({**fields.values, path: "b.test"}), kind) == f"name: A\n{kind}: b.test"


def test_a_recurring_job_is_four_fields() -> None:
    values = {"name": "Warm", "schedule": "*/5 * * * *", "http.url": "https://a.test/warm", "http.method": "POST"}
    assert compose_probe_text(ProbeFormFields(values), "http") == (
        'name: Warm\nhttp:\n  url: https://a.test/warm\n  method: POST\nschedule: "*/5 * * * *"'
    )


ANNOTATED = """\
# top
name: A # nm
tags: [a, b]   # two

# about http
http:   # hh
  # inner
  url: x  # u
  # below
expect: ['a',
  # mid
  "b"] # tail
timeout: 3s # t
every: 30s
# end"""


def test_what_is_not_changed_stays_as_it_is_written() -> None:
    fields = split_probe_yaml_into_form_fields(ANNOTATED, "http")
    assert dict(fields.values) == {"name": "A", "http.url": "x", "expect": "a\nb", "every": "30s"}
    assert fields.rest == "tags: [a, b]   # two\ntimeout: 3s # t\n# end"
    assert compose_probe_text(fields, "http", ANNOTATED) == ANNOTATED.replace("two\n\n", "two\n")


@pytest.mark.parametrize(
    ("path", "value", "before", "after"),
    [
        ("every", "45s", "every: 30s", "every: 45s"),
        ("name", "B", "# top\nname: A # nm", "# top\n# nm\nname: B"),
        ("every", "", "every: 30s\n", ""),
        ("group", "G", "every: 30s\n", "every: 30s\ngroup: G\n"),
        (
            "http.method",
            "POST",
            "# about http\nhttp:   # hh\n  # inner\n  url: x  # u\n  # below",
            "# about http\n# hh\n# inner\n# u\n# below\nhttp:\n  url: x\n  method: POST",
        ),
    ],
)
def test_a_change_concerns_its_field_alone(path: str, value: str, before: str, after: str) -> None:
    fields = split_probe_yaml_into_form_fields(ANNOTATED, "http")
    changed = ProbeFormFields({**fields.values, path: value}, fields.rest)
    expected = ANNOTATED.replace("two\n\n", "two\n")
    assert before in expected
    assert compose_probe_text(changed, "http", ANNOTATED) == expected.replace(before, after)


def test_a_section_with_more_in_it_keeps_its_comments_in_the_form() -> None:
    text = "name: A\nhttp: # h\n  url: x # u\n  # j\n  json: {a: 1}\nevery: 5s"
    fields = split_probe_yaml_into_form_fields(text, "http")
    assert fields.rest == "http:\n  # h\n  # u\n  # j\n  json: {a: 1}"
    assert compose_probe_text(fields, "http", text) == text
    changed = ProbeFormFields({**fields.values, "http.url": "z"}, fields.rest)
    assert compose_probe_text(changed, "http", text) == (
        "name: A\nhttp:\n  url: z\n  # h\n  # u\n  # j\n  json: {a: 1}\nevery: 5s"
    )


@pytest.mark.parametrize(
    "value", ["x\ny: z", 'a"b\\c', "#c", "- x", "a: b", "!!python/object x", "&a", "*a", "é\u2028x"]
)
@pytest.mark.parametrize("path", ["name", "group", "http.url", "expect", "alert.severity"])
def test_a_value_stays_a_value(path: str, value: str) -> None:
    node, problems = parse_probe_text_into_yaml_node(
        compose_probe_text(ProbeFormFields({"name": "N", path: value}), "http")
    )
    assert node is not None
    assert problems == []
    assert node.mapping_entries.keys() <= {"name", "http", "group", "expect", "alert"}
    for key in path.split("."):
        node = node.mapping_entries.get(key, node)
    content = node.to_python(raw=True)
    assert content == (value.split("\n") if path == "expect" else value)


def test_a_change_of_a_nested_field_keeps_the_others_and_comments() -> None:
    text = (
        "name: Q  # name\nqueue:\n  # system\n  bullmq:\n    redis: r  # where\n    queue: a\n"
        "    # why\n    prefix: p\nrules:\n  waiting:\n    over: 200\n    for: 10m  # patience\n  failed: {over: 5}"
    )
    fields = split_probe_yaml_into_form_fields(text, "queue.bullmq")
    assert compose_probe_text(fields, "queue.bullmq", text) == text
    changed = replace(fields, values={**fields.values, "queue.bullmq.queue": "b", "rules.waiting.over": "300"})
    composed = compose_probe_text(changed, "queue.bullmq", text)
    for comment in ("# name", "# system", "# where", "# why", "# patience"):
        assert composed.count(comment) == 1
    node, problems = parse_probe_text_into_yaml_node(composed)
    assert problems == []
    assert node is not None
    assert node.to_python(raw=True) == {
        "name": "Q",
        "queue": {"bullmq": {"redis": "r", "queue": "b", "prefix": "p"}},
        "rules": {"waiting": {"over": 300, "for": "10m"}, "failed": {"over": 5}},
    }


def test_a_queue_system_is_named_even_if_nothing_was_entered() -> None:
    assert compose_probe_text(ProbeFormFields({"name": "A"}), "canary.rq") == 'name: A\ncanary:\n  rq:\n    redis: ""'


def test_empty_fields_are_left_out_but_for_those_that_are_required() -> None:
    assert compose_probe_text(ProbeFormFields({"group": " ", "every": ""}, ""), "http") == 'name: ""\nhttp: ""'
    assert compose_probe_text(ProbeFormFields({"name": "A"}, "http: {url: z}"), "http") == "name: A\nhttp: {url: z}"


ADDRESSED = """\
http:
  url: "https://good.test/"
  headers: {Authorization: Bearer s3cret-value-1}
  json: {to: "https://b.test/"}
"""


@pytest.mark.parametrize(
    "changes",
    [
        {"https://good.test/": "${OK:-https:}//evil.test/", "https://b.test/": "https://good.test/"},
        {"https://good.test/": "https://b.test/", "https://b.test/": "https://good.test/"},
        {"https://good.test/": "https://evil.test/"},
    ],
)
def test_a_secret_is_not_restored_beside_another_address(changes: dict[str, str]) -> None:
    masked = mask_probe_text(ADDRESSED)
    text = re.sub("|".join(map(re.escape, changes)), lambda match: changes[match[0]], masked)
    restored, problems = restore_masked_secrets(text, ADDRESSED)
    assert "s3cret-value-1" not in restored
    assert [problem.message for problem in problems] == [SERVER_CHANGED]
    assert restore_masked_secrets(masked, ADDRESSED)[1] == []


SHARED = "http:\n  url: https://shared.test/\n  headers: {Authorization: Bearer s3cret-value-1}\n"


@pytest.mark.parametrize(
    "added",
    [
        "}\n  tls: {server_name: evil.test}\n",
        "}\n  tls: {verify: false}\n",
        "}\n  tls: {allow_legacy: true}\n",
        ", Host: evil.test}\n",
        ", hOsT: evil.test}\n",
    ],
)
def test_a_secret_is_not_sent_to_another_site_at_the_same_address(added: str) -> None:
    """A server for many sites gives it to the one that `Host` or the server name states."""
    restored, problems = restore_masked_secrets(mask_probe_text(SHARED).replace("}\n", added), SHARED)
    assert "s3cret" not in restored
    assert [problem.message for problem in problems] == [SERVER_CHANGED]
    unchanged = SHARED.replace("}\n", added)
    assert restore_masked_secrets(mask_probe_text(unchanged), unchanged) == (unchanged, [])


@pytest.mark.parametrize(
    ("old", "new"),
    [("good.test", "evil.test"), (":50051", ":50052"), ("tls: true", "tls: false"), ("  tls: true\n", "")],
)
def test_a_secret_is_not_sent_to_another_target_without_a_scheme(old: str, new: str) -> None:
    text = "grpc:\n  target: good.test:50051\n  tls: true\n  metadata: {authorization: Bearer s3cret-value-1}\n"
    masked = mask_probe_text(text)
    restored, problems = restore_masked_secrets(masked.replace(old, new), text)
    assert "s3cret" not in restored
    assert [problem.message for problem in problems] == [SERVER_CHANGED]
    assert restore_masked_secrets(masked, text) == (text, [])


def test_two_fields_with_one_path_are_both_masked() -> None:
    text = 'http: {url: https://a.test/, json: {"api.token": "AAAA-0123456789", api: {token: "BBBB-0123456789"}}}\n'
    masked = mask_probe_text(text)
    assert "AAAA" not in masked
    assert "BBBB" not in masked
    assert len(restore_masked_secrets(masked, text)[1]) == 2, "which is which is not known"
