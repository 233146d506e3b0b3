"""The catalogue has an entry for every reason in the code, and no other; docs/reasons.md is rendered from it.

A reason in the code is a string that is passed for a parameter or field called `reason` (or `resolution`, why an
incident ended), the first of a pair whose second is its message, or any other string that looks like one of a family
of the catalogue. An f-string such as `f"http.{status}"` stands for the whole family.
"""

from __future__ import annotations

import ast
import functools
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from string import Formatter

import pytest

from watchdog.domain.reasons import (
    REASON_CATALOGUE,
    TRANSPORT_AND_RESPONSE_REASON_FAMILIES,
    build_reason_and_message,
    find_reason_pattern_problem,
    get_reason_advice,
    get_reason_entry,
    get_reason_family,
    get_reason_sentence_for_several,
    get_reason_title,
    matches_reason_pattern,
)
from watchdog.domain.reasons.reference import render_reason_reference_page
from watchdog.remediations.reasons import REMEDIABLE_REASONS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "watchdog"
PARAMETER_NAMES = ("reason", "resolution", "code")
CODE = re.compile(r"[a-z]+\.[a-z0-9_]+|no_data")
FAMILY_PATTERN = re.compile(r"([a-z]+)\.(\*|\dxx)")
FAMILIES = {get_reason_family(code) for code in REASON_CATALOGUE}


def callables_with_parameters(node: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """Every callable in a definition, with its parameters in order."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name, [a.arg for a in [*node.args.posonlyargs, *node.args.args] if a.arg not in ("self", "cls")]
    elif isinstance(node, ast.ClassDef):
        fields = [s.target.id for s in node.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
        initializers = [names for s in node.body for name, names in callables_with_parameters(s) if name == "__init__"]
        yield node.name, initializers[0] if initializers else fields


def constants(value: ast.expr) -> Iterator[str]:
    """The strings that an expression can evaluate to. A string with a space is a message."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str) and re.fullmatch(r"[a-z0-9_.]+", value.value):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from constants(value.body)
        yield from constants(value.orelse)


def is_message(value: ast.expr) -> bool:
    if isinstance(value, ast.BinOp):
        return isinstance(value.op, ast.Add) and is_message(value.left)
    if isinstance(value, ast.IfExp):
        return is_message(value.body)
    if isinstance(value, ast.BoolOp):
        return is_message(value.values[-1])
    return isinstance(value, ast.JoinedStr) or (
        isinstance(value, ast.Constant) and isinstance(value.value, str) and " " in value.value
    )


def passed_reasons(trees: Iterable[ast.Module]) -> set[str]:
    """Every value that is passed as a reason, with or without a dot."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    positions: dict[str, set[int]] = {}
    for node in nodes:
        for name, parameters in callables_with_parameters(node):
            positions.setdefault(name, set()).update(
                parameters.index(parameter) for parameter in PARAMETER_NAMES if parameter in parameters
            )
    table_rows = {id(n.value) for n in nodes if isinstance(n, ast.Yield) and isinstance(n.value, ast.Tuple)}
    reasons: set[str] = set()
    for node in nodes:
        if id(node) in table_rows:
            continue
        if isinstance(node, ast.Call):
            arguments = [keyword.value for keyword in node.keywords if keyword.arg in PARAMETER_NAMES]
            if not any(isinstance(argument, ast.Starred) for argument in node.args):
                wanted = positions.get(ast.unparse(node.func).split(".")[-1], set())
                arguments += [argument for i, argument in enumerate(node.args) if i in wanted]
            reasons.update(word for value in arguments for word in constants(value))
        elif isinstance(node, ast.Tuple) and len(node.elts) > 1 and is_message(node.elts[1]):
            reasons.update(constants(node.elts[0]))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "reason":
            reasons.update(constants(node.value))
    return reasons


def dotted_reasons(trees: Iterable[ast.Module]) -> set[str]:
    """Strings that look like a reason of a known family and name no module, and f-strings as `family.*`."""
    reasons: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
            if get_reason_family(node.value) in FAMILIES and node.value not in LOOK_ALIKES:
                reasons.add(node.value)
        elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            prefix = str(node.values[0].value)
            if prefix.endswith(".") and prefix[:-1] in FAMILIES:
                reasons.add(f"{prefix}*")
    return reasons


LOOK_ALIKES = {
    "watchdog.checkin",
    "watchdog.css",
    "watchdog.yaml",
    "grpc.service",
    "grpc.target",
    "http.disconnect",
    "http.method",
    "http.request",
    "http.url",
    "incident.j2",
    "mcp.client",
    "mcp.shared",
    "canary.finish_within",
    "dns.name",
    "dns.server",
    "dns.type",
    "icmp.count",
    "icmp.host",
    "icmp.max_loss",
    "canary.start_within",
    "mcp.url",
    "probe.j2",
    "tls.host",
    "tls.min_days",
    "tls.starttls",
    "websocket.contains",
    "websocket.send",
    "websocket.url",
}
"""A logger, files, loggers of a library, events of ASGI, and fields of probes."""


@functools.cache
def parse_sources() -> list[ast.Module]:
    """All modules but those of the catalogue."""
    return [
        ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
        if PACKAGE / "domain/reasons" not in path.parents
    ]


def test_every_reason_in_the_code_has_an_entry() -> None:
    codes = {code for code in passed_reasons(parse_sources()) if CODE.fullmatch(code)} | dotted_reasons(parse_sources())
    unknown = [code for code in codes - LOOK_ALIKES if not code.endswith("*") and code not in REASON_CATALOGUE]
    assert unknown == [], "add an entry in watchdog/domain/reasons/"
    for code in codes:
        if code.endswith("*"):
            assert any(
                FAMILY_PATTERN.fullmatch(key)
                for key in REASON_CATALOGUE
                if get_reason_family(key) == get_reason_family(code)
            ), code


def test_a_reason_is_a_dotted_code() -> None:
    assert [code for code in passed_reasons(parse_sources()) if not CODE.fullmatch(code)] == []


def test_every_entry_is_used() -> None:
    codes = dotted_reasons(parse_sources())
    built_families = {get_reason_family(code) for code in codes if code.endswith("*")}
    unused = [code for code in REASON_CATALOGUE if code not in codes and get_reason_family(code) not in built_families]
    assert unused == []


def test_every_sentence_is_used() -> None:
    calls = {
        node.args[0].value
        for tree in parse_sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(("reason_and_message", "from_reason", "SslProblem"))
        and isinstance(node.args[0], ast.Constant)
    }
    assert {code for code, entry in REASON_CATALOGUE.items() if entry.sentence} == calls | codes_in_tables()


FORMATTERS = ("reason_and_message", "from_reason")
"""Functions that fill in the sentence of a reason; their keyword arguments are its facts, apart from these."""
NO_FACTS = {"phase", "retryable", "excerpt", "detail"}


def filled_sentences(trees: Iterable[ast.Module]) -> Iterator[tuple[str, set[str]]]:
    """Every reason whose sentence is filled in with named facts, and the names."""
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(FORMATTERS) and node.args:
            names = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
            if len(names) == len(node.keywords):  # no facts are passed on from elsewhere
                for code in constants(node.args[0]):
                    yield code, names - NO_FACTS


def test_every_sentence_gets_the_facts_of_its_template() -> None:
    sentences = list(filled_sentences(parse_sources()))
    assert len(sentences) > 40
    assert [
        (code, names, template_facts(code))
        for code, names in sentences
        if code in REASON_CATALOGUE and names != template_facts(code)
    ] == []


def template_facts(code: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(get_reason_entry(code).sentence) if name is not None}


def codes_in_tables() -> set[str]:
    """The codes in tables such as `_REASON_BY_OPENSSL_ERROR`, which are turned into an error with their sentence."""
    tables = [
        node
        for tree in parse_sources()
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and "_REASON_BY_" in ast.unparse(node).partition("=")[0]
    ]
    constants = [node.value for table in tables for node in ast.walk(table) if isinstance(node, ast.Constant)]
    return {value for value in constants if isinstance(value, str) and value in REASON_CATALOGUE}


def test_the_page_is_current() -> None:
    assert (ROOT / "docs/reasons.md").read_text(encoding="utf-8") == render_reason_reference_page(), "run ./dev regen"


def test_entries_have_a_uniform_style() -> None:
    for code, entry in REASON_CATALOGUE.items():
        assert entry.title[0].isupper() or entry.title[0].isdigit(), code
        assert not entry.title.endswith("."), code
        for text in (entry.explanation, entry.advice):
            assert not text or text.endswith("."), code
        assert "|" not in f"{entry.title}{entry.explanation}{entry.advice}", code


def test_transport_families_explain_failures() -> None:
    assert set(TRANSPORT_AND_RESPONSE_REASON_FAMILIES) <= FAMILIES


@pytest.mark.parametrize(
    ("sentence", "code", "entry"),
    [
        ("an entry of its own", "http.404", "http.404"),
        ("its class", "http.507", "http.5xx"),
        ("an entry of its own, of a status with advice", "http.503", "http.503"),
        ("a status of no class", "http.999", "http.*"),
        ("another class", "http.418", "http.4xx"),
        ("a class of another family", "smtp.550", "smtp.5xx"),
        ("a word from the server", "slack.channel_not_found", "slack.*"),
        ("a word with a hint", "slack.no_service", "slack.no_service"),
        ("three digits of a family without classes", "slack.500", "slack.*"),
    ],
)
def test_describe(sentence: str, code: str, entry: str) -> None:
    assert get_reason_entry(code).code == entry, sentence


@pytest.mark.parametrize("code", ["smtp.999", "job.vanished", "moon.full", "x"])
def test_an_unknown_reason_is_described_by_its_code(code: str) -> None:
    with pytest.raises(KeyError):
        get_reason_entry(code)
    assert get_reason_title(code) == code.replace(".", " ").capitalize()


def test_title() -> None:
    assert get_reason_title("job.overdue") == "Overdue"


@pytest.mark.parametrize(
    ("sentence", "pattern", "code", "expected"),
    [
        ("the reason itself", "tls.expired", "tls.expired", True),
        ("another of the family", "tls.expired", "tls.hostname", False),
        ("the family", "tls", "tls.hostname", True),
        ("another family", "timeout", "tls.hostname", False),
        ("the beginning of a family is none", "time", "timeout.dns", False),
        ("a status", "http.503", "http.503", True),
        ("its class", "http.5xx", "http.503", True),
        ("another class", "http.4xx", "http.503", False),
        ("its family", "http", "http.503", True),
        ("a word that is not a status", "http.txx", "http.too_many_redirects", False),
        ("a reason without a family", "no_data", "no_data", True),
    ],
)
def test_a_pattern_matches_a_reason_its_class_or_its_family(
    sentence: str, pattern: str, code: str, expected: bool
) -> None:
    assert matches_reason_pattern(pattern, code) is expected, sentence


@pytest.mark.parametrize("pattern", ["tls", "tls.expired", "http", "http.5xx", "http.418", "smtp.550", "no_data"])
def test_a_pattern_that_can_match(pattern: str) -> None:
    assert find_reason_pattern_problem(pattern) == ""


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("tls.expird", "unknown reason 'tls.expird'; did you mean 'tls.expired'?"),
        ("timeouts", "unknown reason 'timeouts'; did you mean 'timeout'?"),
        ("smtp.999", "unknown reason 'smtp.999'"),
        ("503", "unknown reason '503'"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused(pattern: str, problem: str) -> None:
    assert find_reason_pattern_problem(pattern).startswith(problem)


def test_family() -> None:
    assert (get_reason_family("http.503"), get_reason_family("no_data")) == ("http", "no_data")


def test_reason_and_message() -> None:
    assert build_reason_and_message("job.overdue", name="{x}") == ("job.overdue", "{x} is overdue")
    assert build_reason_and_message("task.failed", "disk full", name="a") == (
        "task.failed",
        "task a failed: disk full",
    )


def test_remediable_reasons_are_those_of_results() -> None:
    assert {"job.stuck", "queue.stalled", "http.503", "http.404", "connection.refused"} <= REMEDIABLE_REASONS
    assert {"no_data", "missed.skipped", "watchdog.loop_late", "smtp.5xx", "body.too_large"}.isdisjoint(
        REMEDIABLE_REASONS
    )


def test_reasons_are_collected_from_every_kind_of_expression() -> None:
    code = """
class Error(Exception):
    def __init__(self, reason, message): ...
class Finding:
    rule: str
    reason: str
def missed(slot, reason): ...
def end(slot, resolution): ...
Error("a.one", "a message")
Finding("rule", "two")
replace(finding, reason="a.three" if x else "a.four")
self.missed(slot, "a.five")
end(slot, "a.seven")
NAMED = {1: ("a.six", "a message"), 2: ("no", "word")}
reason, message = "", ""
"""
    assert passed_reasons([ast.parse(code)]) == {"a.one", "two", "a.three", "a.four", "a.five", "a.six", "a.seven"}
    built = 'f"http.{status}"; "job.stuck"; "job."; "moon.full"; f"{x}.y"; f"job {x}"'
    assert dotted_reasons([ast.parse(built)]) == {"http.*", "job.stuck"}


def test_what_to_do_about_a_reason() -> None:
    advice = "Check whether the service is running and which address it listens on."
    assert get_reason_advice("connection.refused") == advice
    assert get_reason_advice("http.509") == REASON_CATALOGUE["http.5xx"].advice, "that of its class"
    assert get_reason_advice("unheard.of") == "", "another version stored it"


@pytest.mark.parametrize(
    ("job_name", "argument"),
    [
        ("nightly", "nightly"),
        ("a b'c", shlex.quote("a b'c")),
        ("a`b", "JOB"),
        ("a\nb", "JOB"),
        ("x" * 10_000, "JOB"),
        ("", "JOB"),
    ],
)
def test_the_commands_in_an_advice_name_the_probe_and_the_job(job_name: str, argument: str) -> None:
    advice = get_reason_advice("job.gone", probe_id="billing-jobs", job_name=job_name)
    template = get_reason_entry("job.gone").advice
    assert "PROBE" not in advice
    assert advice == template.replace("PROBE", "billing-jobs").replace("JOB", argument)


def test_an_unknown_reason_has_no_sentence_for_several_subjects() -> None:
    assert get_reason_sentence_for_several("task.stale") == "{count} tasks are stale"
    assert get_reason_sentence_for_several("timeout.dns") == get_reason_sentence_for_several("no.such_reason") == ""
