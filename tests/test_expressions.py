"""CEL expressions: compilation and its errors, evaluation and its errors, observed values."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.domain.text import truncate_to_single_line
from watchdog.expressions import CelExpressionError, compile_expression

VARIABLES = {
    "status": "int", "body": "dyn", "headers": "map(string, string)", "elapsed_ms": "int", "cert_days": "int",
    "ratio": "double", "server": "string", "ok": "bool", "tools": "list(string)",
}  # fmt: skip
VALUES: dict[str, Any] = {
    "status": 503, "elapsed_ms": 12, "cert_days": None, "ratio": 0.5, "server": "nginx", "ok": True,
    "headers": {"content-type": "text/html"}, "tools": ["search", "fetch"],
    "body": {"queue": {"failed": 3, "last": None}, "items": [1, 2], "state": "running", "on": True, "in": 1},
}  # fmt: skip


def evaluate(text: str, **values: Any) -> bool:
    return compile_expression(text, VARIABLES).evaluate_bool({**VALUES, **values})


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("status == 503", True), ("status in [200, 204]", False), ("body.queue.failed <= 50", True),
        ("body.queue.failed <= 2.5", False), ("body.on", True), ("!body.on", False), ("ratio < 0.6", True),
        ('headers["content-type"].startsWith("text/")', True), ("headers.server == 'x' || ok", True),
        ("size(body.items) == 2", True), ("body.items.all(i, i > 0)", True), ("body.items.exists(i, i > 2)", False),
        ("has(body.error)", False), ("!has(body.error) && status > 500", True), ("body.queue.last == null", True),
        ("'search' in tools", True), ("server.matches('^ng.nx$')", True), ("body['in'] == 1", True),
        ("ok ? status == 503 : false", True), ("status == 503 // the usual", True), ("server == r'nginx'", True),
        ("duration('90m') > duration('1h')", True), ("ok || cert_days > 14", True),
    ],
)  # fmt: skip
def test_an_expression_is_evaluated(text: str, result: bool) -> None:
    assert evaluate(text) is result


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("statu == 200", "'statu == 200' at character 1: unknown name 'statu'; did you mean 'status'?"),
        ("Status == 200", "unknown name 'Status'; did you mean 'status'?"),
        ("response.status == 200", "at character 1: unknown name 'response.status'; did you mean 'status'?"),
        ("uptime > 5", "unknown name 'uptime'; variables: body, cert_days, elapsed_ms, headers, ok, ratio, server, "),
        ("status == 'a'", "at character 8: == cannot be applied to a whole number and text"),
        ("status == null", "== cannot be applied to a whole number and null"),
        ("elapsed_ms <= 800.5", "<= cannot be applied to a whole number and a decimal number: use a whole number"),
        ("ratio < 1", "< cannot be applied to a decimal number and a whole number: write a decimal point"),
        ("200 <= status < 300", "to a true/false value and a whole number: join two comparisons with &&"),
        ("status && ok", "&& cannot be applied to a whole number and a true/false value"),
        ("server ? ok : ok", "the condition before ? is text, not true or false"),
        ("status in 200", "in requires a list on its right, not a whole number"),
        ("status.code == 1", "a whole number has no fields"),
        ("-server == 1", "- cannot be applied to text"),
        ("status", "'status' returns a whole number, not true or false: compare it with a value"),
        ("body.items.map(i, i)", "returns a list, not true or false"),
        ("status = 200", "at character 8: write == instead of ="),
        ("status === 200", "write == instead of ==="),
        ("status => 200", "write >= instead of =>"),
        ("status <> 200", "write != instead of <>"),
        ("status == 200 and ok", "at character 15: write && instead of and"),
        ("status == 200 or ok", "write || instead of or"),
        ("not ok", "write ! instead of not"),
        ("ok & ok", "write && instead of &"),
        ("ok == True", "write true instead of True"),
        ("body.x == None", "write null instead of None"),
        ("len(tools) > 1", "write size instead of len"),
        ("server == “nginx”", 'write " instead of “'),
        ("server.startswith('n')", "unknown function 'startswith'; did you mean 'startsWith'?"),
        ("frob(status)", "unknown function 'frob'"),
        ("has(body)", "has() needs a field, as in has(body.items)"),
        ("elapsed_ms < 800ms", "at character 17: unexpected 'ms'"),
        ("server == 'nginx", "the quote is not closed"),
        ("(status == 200", "')' is missing at the end"),
        ("body.items[0", "']' is missing at the end"),
        ("status ==", "the expression is incomplete"),
        ("status == 200)", "unexpected ')'"),
        ("body.x == 9223372036854775808", "the number is too large"),
        ("", "an expression is empty"),
        ("  \n", "an expression is empty"),
        ("status == 200\n  && nope", "at character 20: unknown name 'nope'"),
        ("duration('14d') > duration('1s')", "duration('14d') is invalid: use h, m, s and ms"),
        ("timestamp('today') > timestamp(server)", "timestamp('today') is invalid"),
        ("server.matches('(')", "matches('(') is invalid: it is not a regular expression"),
        ("(" * 300 + "ok" + ")" * 300, "is nested too deeply"),
        ("x" * 5000, "…'"),
    ],
)  # fmt: skip
def test_an_invalid_expression_is_rejected(text: str, why: str) -> None:
    with pytest.raises(CelExpressionError) as error:
        compile_expression(text, VARIABLES)
    assert why in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("body.qeue.failed <= 50", "body has no field 'qeue'; it has 'queue'"),
        ("body.queue.zzz <= 50", "body.queue has no field 'zzz'"),
        ("body.queue.failed.x == 1", "body.queue.failed is a number, so it has no field 'x'"),
        ("body.state.x == 1", "body.state is text, so it has no field 'x'"),
        ("body.items.x == 1", "body.items is a list, so it has no field 'x'"),
        ("body.on.x == 1", "body.on is true or false, so it has no field 'x'"),
        ("body.queue.last.x == 1", "body.queue.last is null, so it has no field 'x'"),
        ("body.queue.last <= 50", "<= cannot be applied to null and a whole number"),
        ("body.state <= 50", "<= cannot be applied to text and a whole number"),
        ("body['nope'] == 1", "body has no field 'nope'"),
        ("body['qeue']['failed'] == 1", "body has no field 'qeue'; it has 'queue'"),
        ('body["queue"].zzz == 1', "body[\"queue\"] has no field 'zzz'"),
        ("body.state['x'] == 1", "body.state is text, so it has no field 'x'"),
        ("body.items[7] == 1", "there is no element 7 in a list of length 2"),
        ("body.queue", "the result is an object, not true or false"),
        ("body.state", "the result is text, not true or false"),
        ("!body.state", "a value has the wrong type"),
        ("body.items.all(i, i.ok)", "a value without fields is used like an object"),
        ("cert_days >= 14", "cert_days has no value in this run"),
        ("1 / (status - 503) == 1", "divide by zero"),
        ("int(server) > 3", "cannot convert string to int"),
    ],
)  # fmt: skip
def test_an_evaluation_error_is_explained(text: str, why: str) -> None:
    with pytest.raises(CelExpressionError) as error:
        evaluate(text)
    assert str(error.value) == why


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("<html>", "body is text, so it has no field 'a'"),
        (" ", "body is empty, so it has no field 'a'"),
        (None, "body is null, so it has no field 'a'"),
        ({"b": 2**70}, "body has no field 'a'"),
        ({"a": 10**400}, "the values cannot be converted"),
        ({"a": {1, 2}}, None),
    ],
)
def test_no_response_body_causes_another_error(body: Any, why: str | None) -> None:
    with pytest.raises(CelExpressionError) as error:
        evaluate("body.a == 'x'", body=body)
    assert why is None or str(error.value) == why


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"a": 2**70, "b": "ok"}, "body.b == 'ok'"),
        ({"a": 2**64}, "body.a > 18446744073700000000.0"),
        ({"a": -(2**63)}, "body.a < 0"),
        ({"a": "half \ud800"}, "body.a == 'half \ufffd'"),
        ({"a": [{"\udc00": 2**63}], "b": True}, "body.b"),
    ],
)
def test_values_that_cel_does_not_have_are_replaced(body: Any, text: str) -> None:
    assert evaluate(text, body=body)


def test_unbounded_iteration_is_aborted() -> None:
    with pytest.raises(CelExpressionError, match="iterates over more entries than Watchdog allows"):
        evaluate("body.all(i, body.all(j, i + j >= 0))", body=list(range(5000)))


@pytest.mark.parametrize(
    ("text", "observed"),
    [
        ("status == 200", "503"), ("200 == status", "503"), ("status in [200, 204]", "503"), ("status != 503", "503"),
        ("body.queue.failed <= 2", "3"), ("body.queue.failed + 1 <= 2", "4"), ("server == 'x'", "'nginx'"),
        ("size(body.items) > 3", "2"), ("headers['content-type'] == 'a == b'", "'text/html'"),
        ("body.items == 1", "a list of 2"),
        ("body.queue == 1", "an object of 2"), ("body.queue.last != null", "null"), ("ratio > 0.7", "0.5"),
        ("body.on == false", "true"), ("(status) == (200)", "503"), ("body.items.exists(i, i == 7) == true", "false"),
        ("body.state == '''it's''' // == x", "'running'"),
    ],
)  # fmt: skip
def test_a_comparison_has_an_observed_value(text: str, observed: str) -> None:
    assert compile_expression(text, VARIABLES).format_observed_value(VALUES) == observed


@pytest.mark.parametrize(
    "text",
    [
        "body.on", "!body.on", "status == 200 && ok", "status == 200 || ok", "ok ? status == 1 : ok",
        "body.items.all(i, i > 1)", "1 == 2", "'a == b'.contains(server)", "body.nope == 1", "cert_days > 1",
    ],
)  # fmt: skip
def test_other_expressions_have_no_observed_value(text: str) -> None:
    assert compile_expression(text, VARIABLES).format_observed_value(VALUES) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("status == 200", "HTTP 503, expected 200"),
        ("200 == status", "HTTP 503, expected 200"),
        ("status in [200, 204]", "HTTP 503, expected one of [200, 204]"),
        ("status < 300", "HTTP 503, expected less than 300"),
        ("status != 503", "HTTP 503, expected another value"),
        ("body.queue.failed <= 2", "body.queue.failed is 3, expected <= 2"),
        ("2 >= body.queue.failed", "body.queue.failed is 3, expected <= 2"),
        ("size( body.items )\n  >  3", "size( body.items ) is 2, expected > 3"),
        ("'x' in body.items", "body.items is a list of 2, expected to contain 'x'"),
        ("size({}) + status > 600", "size({}) + status is 503, expected > 600"),
        ("server == 'x' // the old one", "server is 'nginx', expected 'x' // the old one"),
    ],
)
def test_a_comparison_in_words(text: str, message: str) -> None:
    expression = compile_expression(text, VARIABLES)
    assert expression.describe_comparison(VALUES, {"status": "HTTP {}"}, truncate_to_single_line) == message


@pytest.mark.parametrize("text", ["status == 200 && ok", "!body.on", "7 in body.queue.names"])
def test_what_is_no_comparison_of_an_observed_value(text: str) -> None:
    assert compile_expression(text, VARIABLES).describe_comparison(VALUES, {}, truncate_to_single_line) == ""


def test_a_long_value_is_truncated() -> None:
    assert (
        compile_expression("server == 'x'", VARIABLES).format_observed_value({"server": "y" * 500}) == f"'{'y' * 80}…'"
    )


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("status == 200", True),
        ("200 <= status && status < 300", True),
        ("[200, 301].exists(s, s == status)", True),
        ("body.items.all(x, x == status)", True),
        ("string(status) == '200'", True),
        ("body[status] == 1", True),
        ("{'a': status}.a == 1", True),
        ("status in [200, 204]", True),
        ("body.status == 'ok'", False),
        ("body . status == 'ok'", False),
        ("has(body.status)", False),
        ("body['status'] == 'ok'", False),
        ("body.note == 'status'", False),
        ('body.note == "status == 200"', False),
        ("body.note == r'status'", False),
        ("body.ok // status", False),
        ("body.all(status, status == 'ok')", False),
        ("body.exists_one(status, status > 1 && status < 3)", False),
        ("body.map(status, status).size() == 1", False),
        ("body.filter(x, x.status == 'ok').size() > 0", False),
        ("body.all(status, status > 0) && status == 200", True),
        ("body.all(x, x.all(status, status > 0))", False),
        ("headers.status == 'x'", False),
        ("status_code == 200", None),
    ],
)
def test_the_variable_is_distinguished_from_fields_texts_and_bound_names(text: str, used: bool | None) -> None:
    variables = {"status": "int", "body": "dyn", "headers": "map(string, string)"}
    if used is None:
        with pytest.raises(CelExpressionError, match="did you mean 'status'"):
            compile_expression(text, variables)
    else:
        assert ("status" in compile_expression(text, variables).used_variables) is used


def test_used_variables() -> None:
    names = compile_expression("body.status == 'server' && cert_days > 1 // ok", VARIABLES).used_variables
    assert names == {"body", "cert_days"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("status", 503),
        ("body.queue", {"failed": 3, "last": None}),
        ("body.state + '-' + string(body.items[1])", "running-2"),
        ("body.queue.last", None),
        ("ok", True),
    ],
)
def test_an_expression_can_return_any_value_unless_it_must_be_bool(text: str, value: Any) -> None:
    assert compile_expression(text, VARIABLES, must_be_bool=False).evaluate_value(VALUES) == value


def test_an_error_of_a_value_expression_is_explained() -> None:
    with pytest.raises(CelExpressionError, match="body has no field 'stat'; it has 'state'"):
        compile_expression("body.stat", VARIABLES, must_be_bool=False).evaluate_value(VALUES)


def test_an_expression_can_be_shared_between_threads() -> None:
    expression = compile_expression("body.n == status", VARIABLES)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: expression.evaluate_bool({"body": {"n": n}, "status": n}), range(500)))
    assert all(results)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
)


@settings(deadline=None)
@given(JSON)
def test_any_body_is_evaluated_or_rejected_with_a_message(body: Any) -> None:
    for text in ("body.a.b <= 5", "body.all(x, x == 1)", "body['a'][0] == 'x'", "body == 1", "body.contains('x')"):
        expression = compile_expression(text, VARIABLES)
        expression.format_observed_value({"body": body})
        try:
            result: object = expression.evaluate_bool({"body": body})
        except CelExpressionError as e:
            result = str(e)
        assert result in (True, False) or result


@settings(deadline=None)
@given(st.text() | st.text("status body.()[]=<>&|!'\" 0123456789_+-*/?:,{}\n"))
def test_any_text_compiles_or_is_rejected_with_a_message(text: str) -> None:
    try:
        result: object = compile_expression(text, VARIABLES)
    except CelExpressionError as e:
        result = str(e)
    assert result
