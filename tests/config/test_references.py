"""Variables in values: their syntax, and the types of their values."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchdog.config.load import LoadedConfig, load_config
from watchdog.config.problems import ConfigError
from watchdog.config.references import interpolate_config_variables

ENV = {"SET": "value", "EMPTY": "", "NUMBER": "8080", "DOLLAR": "a$b${SET}", "_x9": "odd"}


@pytest.mark.parametrize(
    ("written", "replaced"),
    [
        ("${SET}", "value"),
        ("a-${SET}-b", "a-value-b"),
        ("${SET}${NUMBER}", "value8080"),
        ("${_x9}", "odd"),
        ("${EMPTY}", ""),
        ("${SET:-other}", "value"),
        ("${UNSET:-other}", "other"),
        ("${EMPTY:-other}", "other"),
        ("${UNSET:-}", ""),
        ("${UNSET:-a:b-?/c d}", "a:b-?/c d"),
        ("${SET:?must be set}", "value"),
        ("$$", "$"),
        ("$${SET}", "${SET}"),
        ("$$$${SET}", "$${SET}"),
        ("$$${SET}", "$value"),
        ("$SET costs 5$", "$SET costs 5$"),
        ("${DOLLAR}", "a$b${SET}"),
        ("^ok$", "^ok$"),
    ],
)
def test_a_variable_is_replaced(written: str, replaced: str) -> None:
    assert interpolate_config_variables(written, ENV).text == replaced


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("${UNSET}", "variable UNSET is not set"),
        ("${UNSET:?the token of the API}", "variable UNSET is not set: the token of the API"),
        ("${EMPTY:?}", "variable EMPTY is empty"),
        ("${SET", "invalid"),
        ("${}", "invalid"),
        ("${1ST}", "invalid"),
        ("${SET-other}", "invalid"),
        ("${SET:other}", "invalid"),
        ("${UNSET:-${SET}}", "invalid"),
        ("${ SET }", "invalid"),
    ],
)
def test_an_invalid_variable_is_rejected(written: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as error:
        interpolate_config_variables(written, ENV)
    assert "value" not in str(error.value)


def test_only_values_of_set_variables_are_secrets() -> None:
    assert interpolate_config_variables("${SET} ${UNSET:-default} $$", ENV).variables == {"SET": "value"}


def loaded(text: str, **env: str) -> LoadedConfig:
    return load_config(None, text, env)


def test_a_variable_cannot_change_the_structure() -> None:
    text = 'probes: [{name: A, http: {url: "https://a.example/", method: POST, body: "${BODY}"}}]'
    (probe,) = loaded(text, BODY='x"}] # - a: b').config.probes
    assert probe.model_dump()["http"]["body"] == 'x"}] # - a: b'


@pytest.mark.parametrize("follow", ["false", "FALSE", " false\n"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_number_or_a_boolean_can_come_from_a_variable(quote: str, follow: str) -> None:
    text = f"""
probes:
  - name: A
    http:
      url: https://a.example/
      follow_redirects: {quote}${{FOLLOW}}{quote}
    retries: {quote}${{RETRIES}}{quote}
    timeout: ${{SECONDS}}s
"""
    probe = loaded(text, RETRIES="2", FOLLOW=follow, SECONDS="7").config.probes[0]
    assert (probe.retries, probe.timeout) == (2, 7_000)
    assert probe.model_dump()["http"]["follow_redirects"] is False


def test_a_password_that_looks_like_a_number_stays_text() -> None:
    text = """
email: {host: smtp.acme.example, from: w@acme.example, username: "${USER}", password: "${PASSWORD}"}
access:
  api_keys:
    - name: ci
      role: reader
      key: ${KEY}
"""
    config = loaded(text, USER="0123", PASSWORD="007", KEY="0x00112233445566").config
    assert config.email is not None
    assert config.email.password is not None
    assert config.email.username == "0123"
    assert config.email.password.get_secret_value() == "007"
    assert config.access.api_keys[0].key.get_secret_value() == "0x00112233445566"


def test_an_unquoted_variable_in_untyped_data_has_the_type_it_looks_like() -> None:
    text = """
probes:
  - name: A
    http:
      url: https://a.example/
      method: POST
      json:
        plain: ${N}
        quoted: "${N}"
        empty: ${EMPTY}
"""
    http = loaded(text, N="5", EMPTY="").config.probes[0].model_dump()["http"]
    assert http["json_body"] == {"plain": 5, "quoted": "5", "empty": ""}


def test_an_empty_variable_is_not_a_missing_value() -> None:
    with pytest.raises(ConfigError, match=r"expected one line of visible text.*\(from \$\{EMPTY\}\)"):
        loaded("probes: [{name: A, http: https://a.example/, group: '${EMPTY}'}]", EMPTY="")


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WATCHED_URL", "https://a.example/")
    file = tmp_path / "watchdog.yaml"
    file.write_text("probes:\n  - name: A\n    http: ${WATCHED_URL}\n")
    assert load_config(file).config.probes[0].target == "https://a.example/"
