"""Why an expression is false: a sentence about the values, one case per row, without the expression itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.expression_failures import (
    UNEXPLAINED_FALSE_EXPRESSION_TEXT,
    describe_expression_evaluation_error,
    describe_false_expression,
)
from watchdog.expressions import CelExpressionError, compile_expression

VARIABLES = {
    "status": "int", "body": "dyn", "headers": "map(string, string)", "elapsed_ms": "int", "ok": "bool",
    "items": "dyn", "cert_days": "int",
}  # fmt: skip
ITEMS = [{"ok": True, "age": 1, "name": "a"}, {"ok": True, "age": 2, "name": "b"}, {"ok": True, "age": 3, "name": "c"},
         {"ok": False, "age": 40, "name": "i"}, {"ok": False, "age": 5, "name": "e", "more": [1, 2]}]  # fmt: skip
VALUES: dict[str, Any] = {
    "status": 503, "elapsed_ms": 12, "ok": False, "headers": {"content-type": "text/html"}, "items": ITEMS,
    "cert_days": None,
    "body": {
        "state": "down", "db": "up", "failed": 61, "on": True, "off": False, "items": ITEMS, "empty": [],
        "error": "disk full", "tags": ["a", "b"], "tasks": {"sync": {"ok": True}, "mail": {"ok": False}},
        "groups": [{"members": [{"up": True}]}, {"members": [{"up": True}, {"up": False}]}],
    },
}  # fmt: skip

ROWS = [
    ("status == 200", "HTTP 503, expected 200"),
    ("body.off", "body.off is false"),
    ("ok", "ok is false"),
    # every broken part is named, and no other
    ("status == 200 && body.failed <= 50", "HTTP 503, expected 200; body.failed is 61, expected <= 50"),
    ("body.on && status == 200", "HTTP 503, expected 200"),
    ("(body.off) && (body.on && (ok))", "body.off is false; ok is false"),
    ("status == 200 || body.state == 'up'", "HTTP 503, expected 200, and body.state is 'down', expected 'up'"),
    ("body.on ? status == 200 : ok", "HTTP 503, expected 200"),
    ("body.off ? status == 200 : ok", "ok is false"),
    # an element that breaks all(...) is named
    ("items.all(i, i.ok)", "items[3].ok is false"),
    ("body.items.all(i, i.ok)", "body.items[3].ok is false"),
    ("body.items.all(item, item.age < 10)", "body.items[3].age is 40, expected < 10"),
    ("body.items.all(i, i.age < 10 && i.ok)", "body.items[3].age is 40, expected < 10; body.items[3].ok is false"),
    ("body.items.all(i, i.name != 'i')", "body.items[3].name is 'i', expected another value"),
    ("body.items.all(i, has(i.more))", "body.items[0] has no field 'more'"),
    ("body.tags.all(t, t.startsWith('a'))", "body.tags[1] does not start with 'a'"),
    ("body.tags.all(t, t == 'a')", "body.tags[1] is 'b', expected 'a'"),
    ("body.groups.all(g, g.members.all(m, m.up))", "body.groups[1].members[1].up is false"),
    ("body.tasks.all(name, body.tasks[name].ok)", "body.tasks['mail'].ok is false"),
    ("body.items.filter(i, i.ok).all(i, i.age < 3)", "the list[2].age is 3, expected < 3"),
    ("body.on && body.items.all(i, i.ok)", "body.items[3].ok is false"),
    ("body.items.all(i, i.more == [1])", "body.items[0] has no field 'more'"),
    # other macros and calls
    ("body.items.exists(i, i.name == 'z')", "no element of body.items meets the condition (length 5)"),
    ("body.empty.exists(i, i == 1)", "body.empty is empty"),
    ("body.items.exists_one(i, i.ok)", "3 elements of body.items meet the condition, expected exactly 1"),
    ("has(body.version)", "body has no field 'version'"),
    ("!has(body.error)", "body.error is present"),
    ("!body.on", "body.on is true"),
    ("!(body.on)", "body.on is true"),
    ("!('a' in body.tags)", "body.tags contains 'a'"),
    ("!body.error.contains('disk')", "body.error contains 'disk'"),
    (
        "headers['content-type'].startsWith('application/')",
        "headers['content-type'] does not start with 'application/'",
    ),
    ("body.state.matches('^(up|ok)$')", "body.state does not match '^(up|ok)$'"),
    ("body.state.contains('a && b')", "body.state does not contain 'a && b'"),
    ("size(body.empty) > 0", "size(body.empty) is 0, expected > 0"),
    ("'c' in body.tags", "body.tags is a list of 2, expected to contain 'c'"),
    # a part that cannot be evaluated
    ("body.off && body.nope == 1", "body.off is false; body has no field 'nope'"),
    # what cannot be explained is not shown as code
    ("[1, 2] == [2] || size([1]) == 2 || false", "an expression is false"),
    ("!(status == 503 && body.on)", "an expression is false"),
]


@pytest.mark.parametrize(("text", "sentence"), ROWS)
def test_why_an_expression_is_false(text: str, sentence: str) -> None:
    expression = compile_expression(text, VARIABLES)
    assert expression.evaluate_bool(VALUES) is False
    assert describe_false_expression(expression, VALUES, {"status": "HTTP {}"}) == sentence


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("items.all(i, i.more == [1, 2])", "items[0] has no field 'more'"),
        ("items.all(i, i.name.size() > 0 && i.nope)", "items[0] has no field 'nope'"),
        ("body.nope == 1", "body has no field 'nope'"),
        ("cert_days > 14", "cert_days has no value in this run"),
    ],
)
def test_why_an_expression_cannot_be_evaluated(text: str, problem: str) -> None:
    expression = compile_expression(text, VARIABLES)
    with pytest.raises(CelExpressionError) as raised:
        expression.evaluate_bool({**VALUES, "items": ITEMS[:2]})
    assert describe_expression_evaluation_error(expression, str(raised.value), VALUES) == problem


def test_of_a_huge_list_only_the_first_elements_are_searched() -> None:
    expression = compile_expression("items.all(i, i < 5000)", VARIABLES)
    assert describe_false_expression(expression, {"items": [9_999]}) == "items[0] is 9999, expected < 5000"
    assert describe_false_expression(expression, {"items": list(range(5_001))}) == UNEXPLAINED_FALSE_EXPRESSION_TEXT


def test_a_sentence_is_one_short_line() -> None:
    expression = compile_expression("body.state\n.contains(\n'" + "x" * 2_000 + "')", VARIABLES)
    sentence = describe_false_expression(expression, VALUES)
    assert "\n" not in sentence
    assert len(sentence) <= 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
)
TEXTS = [
    "body.all(x, x == 1)", "body.a.all(x, x.ok && x.b.all(y, y))", "!has(body.a) && !body.b", "body.exists(x, x.a)",
    "body.a ? body.b : body.c.contains('x')", "body.exists_one(x, x == 1) || body.a",
]  # fmt: skip


@settings(deadline=None)
@given(JSON)
def test_any_body_is_explained(body: Any) -> None:
    for text in TEXTS:
        expression = compile_expression(text, VARIABLES)
        assert describe_false_expression(expression, {"body": body})
        assert describe_expression_evaluation_error(expression, "an error", {"body": body})


@settings(deadline=None)
@given(st.text() | st.text("status body.all()[]=<>&|!?:,'\" 01i{}\n"))
def test_any_expression_is_explained(text: str) -> None:
    try:
        expression = compile_expression(text, VARIABLES)
    except CelExpressionError:
        return
    assert describe_false_expression(expression, VALUES)
    assert describe_expression_evaluation_error(expression, "an error", VALUES)
