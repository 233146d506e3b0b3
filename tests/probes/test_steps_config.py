"""The configuration of `steps` probes: each error has its line and field, and what follows from valid steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.support.step_sites import SITE, build_steps_probe
from watchdog.config.load import LoadedConfig, load_config
from watchdog.config.problems import ConfigError

RECEIVERS = "receivers: {oncall: {log: {}}}\n"


def load_steps(*steps: str, **env: str) -> LoadedConfig:
    lines = "".join(f"      - {step}\n" for step in steps)
    text = f"probes:\n  - name: Checkout\n    every: 5m\n    steps:\n{lines}{RECEIVERS}"
    return load_config(Path("watchdog.yaml"), text, env)


def problems_of(*steps: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_steps(*steps)
    return str(error.value).replace("watchdog.yaml:", "").splitlines()


LOGIN = '{name: Log in, http: "https://a.example/", capture: {token: body.token}}'


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ('{name: Cart, http: "https://a.example/{tokn}"}',
         "6:28: probes.0.steps.1.http: unknown placeholder {tokn}; did you mean {token}?"),
        ('{name: Cart, http: {url: "https://a.example/?c={cart}"}}',
         "6:34: probes.0.steps.1.http.url: unknown placeholder {cart}: earlier steps capture token"),
        ('{name: Cart, http: {url: "https://a.example/", headers: {X-Cart: "x{cart}"}}}',
         "6:74: probes.0.steps.1.http.headers.X-Cart: unknown placeholder {cart}: earlier steps capture token"),
        ('{name: Cart, http: {url: "https://a.example/", method: POST, body: "c={cart}"}}',
         "6:76: probes.0.steps.1.http.body: unknown placeholder {cart}: earlier steps capture token"),
        ('{name: Cart, http: {url: "https://a.example/", method: POST, json: {a: [1, "{cart}"]}}}',
         "6:84: probes.0.steps.1.http.json.a.1: unknown placeholder {cart}: earlier steps capture token"),
        ('{name: Cart, http: "https://a.example/{id}", capture: {id: body.id}}',
         "6:28: probes.0.steps.1.http: {id} is not captured yet: step 'Cart' captures it from its response"),
        ('{name: Cart, http: "https://{token}@a.example/"}',
         "6:28: probes.0.steps.1.http: placeholders are permitted only in the path and the query of the URL"),
        ('{name: Cart, http: "https://{token}.a.example/"}',
         "6:28: probes.0.steps.1.http: invalid host name: {token}.a.example"),
        ('{name: Cart, http: {url: "https://a.example/", auth: {bearer: "{token}"}}}',
         "6:62: probes.0.steps.1.http.auth: placeholders are not filled in here: set the header `Authorization`"
         " instead"),
        ('{name: Cart, http: {url: "https://a.example/", auth: {basic: {username: "{token}", password: x}}}}',
         "6:62: probes.0.steps.1.http.auth: placeholders are not filled in here: set the header `Authorization`"
         " instead"),
        ('{name: Log in, http: "https://a.example/"}',
         "6:16: probes.0.steps.1.name: duplicate name: an earlier step has the same name"),
        ('{name: Cart, http: "https://a.example/", capture: {id: body.}}',
         "6:64: probes.0.steps.1.capture.id: 'body.' at character 6: unexpected ''"),
        ('{name: Cart, http: "https://a.example/", capture: {id: boddy.id}}',
         "6:64: probes.0.steps.1.capture.id: 'boddy.id' at character 1: unknown name 'boddy.id'; did you mean 'body'?"),
        ('{name: Cart, http: "https://a.example/", capture: {"cart id": body.id}}',
         "6:71: probes.0.steps.1.capture.cart id: expected a name of at most 40 letters a-z, digits and '_' that does"
         " not start with a digit"),
        ('{name: Cart, http: "https://a.example/", capture: {id: 17}}',
         "6:64: probes.0.steps.1.capture.id: expected text, found a number: put it in quotes"),
        ('{name: Cart, http: "https://a.example/", expect: ["body.a ="]}',
         "6:59: probes.0.steps.1.expect.0: 'body.a =' at character 8: write == instead of ="),
        ('{name: Cart, http: "https://a.example/", prefer: ["cookies.a == 1"]}',
         "6:59: probes.0.steps.1.prefer.0: 'cookies.a == 1' at character 1: unknown name 'cookies.a'; variables: body,"
         " cert_days, elapsed_ms, headers, status"),
        ('{name: Cart, http: "http://a.example/", expect: ["cert_days > 14"]}',
         "6:58: probes.0.steps.1.expect.0: cert_days requires an https:// URL"),
        ('{name: Cart, http: "https://a.example/", timeout: 50ms}',
         "6:59: probes.0.steps.1.timeout: expected at least 100ms, found 50ms"),
        ('{name: Cart}', "6:9: probes.0.steps.1.http: required field is missing"),
        ('{http: "https://a.example/"}', "6:9: probes.0.steps.1.name: required field is missing"),
        (f'{{name: {"x" * 81}, http: "https://a.example/"}}',
         "6:16: probes.0.steps.1.name: expected at most 80 characters, found 81"),
        ('{name: Cart, http: "https://a.example/", captures: {id: body.id}}',
         "6:50: probes.0.steps.1.captures: unknown field 'captures'; did you mean 'capture'?"),
    ],
)  # fmt: skip
def test_an_invalid_step_has_its_line_and_field(step: str, problem: str) -> None:
    assert problems_of(LOGIN, step) == [problem]


def test_a_capture_that_follows_is_not_captured_yet() -> None:
    first = '{name: Cart, http: "https://a.example/{token}"}'
    assert problems_of(first, LOGIN) == [
        "5:28: probes.0.steps.0.http: {token} is not captured yet: step 'Log in' captures it from its response"
    ]
    assert problems_of(first) == [
        "5:28: probes.0.steps.0.http: unknown placeholder {token}: earlier steps capture no values"
    ]


def test_all_problems_are_reported_in_one_pass() -> None:
    problems = problems_of(LOGIN, '{name: Log in, http: {url: "https://a.example/{a}", headers: {X: "{b}"}}}')
    assert len(problems) == 3


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([], "expected 1 to 20 steps, found 0"),
        ([{"name": f"{i}", "http": f"{SITE}/"} for i in range(21)], "expected 1 to 20 steps, found 21"),
        ([{"name": "1", "http": f"{SITE}/", "capture": {f"c{i}": "body" for i in range(11)}}], "at most 10"),
    ],
)
def test_the_numbers_of_steps_and_captures_are_limited(steps: list[dict[str, Any]], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        build_steps_probe("http://a.example", steps)
    assert build_steps_probe("http://a.example", [{"name": f"{i}", "http": f"{SITE}/"} for i in range(20)])


@pytest.mark.parametrize("field", ["expect", "prefer"])
def test_expectations_belong_to_a_step(field: str) -> None:
    with pytest.raises(ValidationError, match=f"not supported by steps probes: set {field} in a step"):
        build_steps_probe("http://a.example", [{"name": "1", "http": f"{SITE}/"}], **{field: ["status == 200"]})


@pytest.mark.parametrize(
    "text", ['{"a": {"b": 1}}', "query { user { id } }", "{}", "{{}}", "{1x}", "{a-b}", "${x", "}{"]
)
def test_other_braces_are_no_placeholders(text: str) -> None:
    http = {"url": f"{SITE}/", "method": "POST", "body": text}
    (step,) = build_steps_probe("http://a.example", [{"name": "1", "http": http}]).steps
    assert step.http.body == text


def test_properties_follow_from_the_steps() -> None:
    get, post = {"name": "1", "http": f"{SITE}/a?key=x"}, {"name": "2", "http": {"url": f"{SITE}/b", "method": "POST"}}
    reading, changing = build_steps_probe("http://a.example", [get]), build_steps_probe("http://a.example", [get, post])
    assert (reading.target, reading.network_endpoint) == ("http://a.example/a", "a.example:80")
    assert (reading.may_change_target, reading.may_run_without_store) == (False, True)
    assert (changing.may_change_target, changing.may_run_without_store) == (True, False)


# --- secrets of the configuration


def test_placeholders_and_captures_are_no_secrets_of_the_configuration() -> None:
    loaded = load_steps(
        '{name: Log in, http: {url: "https://a.example/login", method: POST, json: {password: "${PASSWORD}"}},'
        " capture: {token: body.token, csrf_token: cookies.csrftoken}}",
        '{name: Cart, http: {url: "https://a.example/cart?token={token}", headers: {Authorization: "Bearer {token}"}}}',
        '{name: Buy, http: {url: "https://a.example/buy", method: POST, json: {csrf_token: "{csrf_token}"}}}',
        '{name: Pay, http: {url: "https://a.example/pay", method: POST, body: "csrf_token={csrf_token}&user=canary"}}',
        PASSWORD="pa55word-of-acme",
    )
    assert loaded.warnings == ()
    assert loaded.mask.secrets == {"pa55word-of-acme"}
    assert "token: body.token" in loaded.probe_yaml["checkout"]
    assert "pa55word" not in loaded.probe_yaml["checkout"]


def test_literal_secrets_in_a_step_are_masked() -> None:
    loaded = load_steps(
        '{name: Log in, http: {url: "https://a.example/", headers: {Authorization: "Bearer l1teral-of-acme"}}}',
        '{name: Send, http: {url: "https://a.example/", method: POST,'
        " json: {steps: [{capture: {token: t0ken-of-acme}}]}}}",
    )
    assert loaded.mask.secrets >= {"l1teral-of-acme", "t0ken-of-acme"}
    assert "of-acme" not in loaded.probe_yaml["checkout"]


def test_an_example_of_the_documentation_loads() -> None:
    steps = [
        {"name": "Log in", "http": {"url": f"{SITE}/login", "method": "POST", "json": {"user": "canary"}},
         "expect": ["status == 200"], "capture": {"token": "body.token", "cart": "headers['location']"}},
        {"name": "Cart", "http": {"url": f"{SITE}/cart/{{cart}}", "headers": {"Authorization": "Bearer {token}"}},
         "expect": ["size(body.items) > 0"]},
    ]  # fmt: skip
    probe = build_steps_probe("https://shop.acme.example", json.loads(json.dumps(steps)))
    assert [step.name for step in probe.steps] == ["Log in", "Cart"]
