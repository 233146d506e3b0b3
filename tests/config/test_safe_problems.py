"""A problem without anything that the files contain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from watchdog.config.load import load_config
from watchdog.config.problems import ConfigError
from watchdog.config.safe_problems import describe_config_problems_without_values
from watchdog.net.redact import SecretMask

SECRET = "hunter2-Kx93"


def describe(text: str, tmp_path: Path, secrets: Sequence[str] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "watchdog.yaml", text, {"TOKEN": SECRET, "SHORT": "4711"})
    return describe_config_problems_without_values(caught.value.problems, SecretMask(secrets))


@pytest.mark.parametrize(
    "text",
    [
        f"probes: [{{name: A, http: 'http://a.example/', {SECRET}: 1}}]",
        f"{SECRET}: 1",
        f"probes: [{{name: A, {SECRET}: 'http://a.example/'}}]",
        f"probes: [{{name: A, http: '{SECRET}'}}]",
        f"probes: [{{name: A, http: 'ftp://user:{SECRET}@a.example/'}}]",
        f"probes: [{{name: A, every: {SECRET}, http: 'http://a.example/'}}]",
        f"probes: [{{name: A, schedule: '{SECRET} * * * *', http: 'http://a.example/'}}]",
        f"probes: [{{name: A, schedule: '* * * * *', timezone: {SECRET}, http: 'http://a.example/'}}]",
        f"probes: [{{name: A, http: 'http://a.example/', expect: ['status == {SECRET}']}}]",
        f"probes: [{{name: A, http: 'http://a.example/', expect: ['{SECRET} == 1']}}]",
        f"probes: [{{name: A, http: {{url: 'http://a.example/', method: {SECRET}}}}}]",
        f"probes: [{{name: A, heartbeat: {{token: {SECRET}, every: 1h}}}}]",
        f"probes: [{{name: A, heartbeat: {{token_file: {SECRET}, every: 1h}}}}]",
        "probes: [{name: A, every: '${TOKEN}', http: 'http://a.example/'}]",
        "probes: [{name: A, every: '${SHORT}', http: 'http://a.example/'}]",
        f"probes: [{{name: A, every: '${{{SECRET.replace('-', '_')}}}', http: 'http://a.example/'}}]",
        f"probes: [{{name: A, every: '${{X:?{SECRET}}}', http: 'http://a.example/'}}]",
        f"probes: [{{name: A, every: '${{{SECRET}', http: 'http://a.example/'}}]",
        "probes: [{name: A, heartbeat: {token-hunter: 1}}]",
        "probes: [{name: A, heartbeat: {tokenKx93: 1}}]",
        "probes: [{name: A, every: '${URL:?hunter2 Kx93}', http: 'http://a.example/'}]",
        f"include: [{SECRET}]",
        f"receivers: {{{SECRET}: {{log: {{}}, lug: 1}}}}",
        "receivers: {'4711471147': {log: {}, lug: 1}}",
        f"receivers: {{oncall: {{log: {{}}}}}}\nroutes: [{{receivers: [{SECRET}]}}]",
        f"receivers: {{oncall: {{log: {{}}}}}}\nroutes: [{{receivers: [oncall], match: {{reason: {SECRET}}}}}]",
        f"storage: {{url: 'mysql://root:{SECRET}@db/x'}}",
        f"server: {{listen: '{SECRET}'}}",
        f"access: {{api_keys: [{{name: a, role: {SECRET}, key: 0123456789abcdef}}]}}",
        f"probes:\n  - name: A\n   {SECRET}: [",
        f"probes: &{SECRET} [*{SECRET}x]",
        f"probes: !{SECRET} x",
        f"'{SECRET}",
        f"a: 1\n{SECRET}: 1\n{SECRET}: 2\n",
        f"probes: [{{name: A, id: '{SECRET} !', http: 'http://a.example/'}}]",
        f"probes: [{{name: {SECRET}, http: 'http://a.example/'}}, {{name: {SECRET}, http: 'http://a.example/'}}]",
    ],
)  # fmt: skip
def test_a_secret_anywhere_is_not_repeated(text: str, tmp_path: Path) -> None:
    described = describe(text, tmp_path)
    for part in ("hunter", "Kx93", "4711", "hunter2_Kx93"):
        assert part not in described
    assert described.startswith("watchdog.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "probes:\n  - {name: A, http: 'http://a.example/', evry: 1s}\n  - {name: B}",
            "watchdog.yaml:2:42: probes.0.evry: unknown field 'evry'; did you mean 'every'? (and 1\u00a0other problem)",
        ),
        (
            "probes: [{name: A, every: 5, http: 'http://a.example/'}]",
            "watchdog.yaml:1:27: probes.0.every: a duration needs a unit, such as … or …",
        ),
        (
            "probes: [{name: A, http: '${DOCS_URL}'}]",
            "watchdog.yaml:1:26: probes.0.http: variable DOCS_URL is not set in the environment of the running service;"
            " restart it with the variable",
        ),
        ("", "watchdog.yaml: the file is empty; … creates a starter configuration"),
    ],
)
def test_what_remains_locates_the_problem(text: str, expected: str, tmp_path: Path) -> None:
    assert describe(text, tmp_path) == expected


def test_secrets_of_the_configuration_that_runs_are_masked(tmp_path: Path) -> None:
    assert "watchdog" not in describe("", tmp_path, ["watchdog.yaml"]).partition(":")[0]


def test_a_character_of_the_syntax_is_named(tmp_path: Path) -> None:
    described = describe("probes:\n  - name: Website\n     http: 1\n", tmp_path)
    assert described == "watchdog.yaml:3:10: unexpected ':': quote the value, or check the indentation"
