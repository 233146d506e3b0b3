"""docs/reasons.md lists every reason word in the code, and no other.

A reason in the code is what is passed for a parameter or field called `reason` (or `resolution`, why an incident
ended), or the first of a pair whose second is its sentence.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from watchdog.remediations.reasons import REMEDIABLE_REASONS

ROOT = Path(__file__).parents[2]
NAMES = ("reason", "resolution")
WORD = re.compile(r"[a-z]+(_[a-z0-9]+)*")


def parameters(node: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """Every callable that a definition makes, with its parameters in order."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name, [a.arg for a in [*node.args.posonlyargs, *node.args.args] if a.arg not in ("self", "cls")]
    elif isinstance(node, ast.ClassDef):
        own = [s.target.id for s in node.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
        made = [names for s in node.body for name, names in parameters(s) if name == "__init__"]
        yield node.name, made[0] if made else own


def words(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.Constant) and isinstance(value.value, str) and WORD.fullmatch(value.value):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from words(value.body)
        yield from words(value.orelse)


def sentence(value: ast.expr) -> bool:
    if isinstance(value, ast.BinOp):
        return isinstance(value.op, ast.Add) and sentence(value.left)
    if isinstance(value, ast.IfExp):
        return sentence(value.body)
    if isinstance(value, ast.BoolOp):
        return sentence(value.values[-1])
    return isinstance(value, ast.JoinedStr) or (
        isinstance(value, ast.Constant) and isinstance(value.value, str) and " " in value.value
    )


def reasons(trees: list[ast.Module]) -> set[str]:
    nodes = [node for tree in trees for node in ast.walk(tree)]
    places: dict[str, set[int]] = {}
    for node in nodes:
        for name, names in parameters(node):
            places.setdefault(name, set()).update(names.index(n) for n in NAMES if n in names)
    rows = {id(n.value) for n in nodes if isinstance(n, ast.Yield) and isinstance(n.value, ast.Tuple)}  # of a table
    found: set[str] = set()
    for node in nodes:
        if id(node) in rows:
            continue
        if isinstance(node, ast.Call):
            given = [keyword.value for keyword in node.keywords if keyword.arg in NAMES]
            if not any(isinstance(argument, ast.Starred) for argument in node.args):
                at = places.get(ast.unparse(node.func).split(".")[-1], set())
                given += [argument for i, argument in enumerate(node.args) if i in at]
            found.update(word for value in given for word in words(value))
        elif isinstance(node, ast.Tuple) and len(node.elts) > 1 and sentence(node.elts[1]):
            found.update(words(node.elts[0]))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("reason", "error"):
            found.update(words(node.value))
    return found


def test_every_reason_is_explained_and_every_explained_one_exists() -> None:
    text = (ROOT / "docs/reasons.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `([a-z0-9_]+)` \|", text, flags=re.MULTILINE)
    assert len(explained) == len(set(explained))
    found = reasons([ast.parse(p.read_text(encoding="utf-8")) for p in sorted((ROOT / "watchdog").rglob("*.py"))])
    assert found - set(explained) - {"test"} == set()
    assert set(explained) - found == set()


def test_a_remedy_may_be_for_every_reason_that_makes_a_finding_bad() -> None:
    text = (ROOT / "docs/reasons.md").read_text(encoding="utf-8")
    sections = {part.partition("\n")[0]: part for part in text.split("\n## ")}
    told = sections["Why a run fails"] + sections["Why an incident opens besides"]
    assert set(re.findall(r"^\| `([a-z0-9_]+)` \|", told, flags=re.MULTILINE)) - {"no_data"} == REMEDIABLE_REASONS


def test_reasons_are_found_wherever_they_stand() -> None:
    code = """
class Fault(Exception):
    def __init__(self, reason, message): ...
class Finding:
    rule: str
    reason: str
def missed(slot, reason): ...
def end(slot, resolution): ...
Fault("one", "a sentence")
Finding("rule", "two")
replace(finding, reason="three" if x else "four")
self.missed(slot, "five")
end(slot, "seven")
NAMED = {1: ("six", "a sentence"), 2: ("no", "word")}
reason, message = "", ""
"""
    assert reasons([ast.parse(code)]) == {"one", "two", "three", "four", "five", "six", "seven"}
