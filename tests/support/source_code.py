"""Parses source files for the architecture tests. Each file is parsed and walked once."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "watchdog"


class Import(NamedTuple):
    line: int
    target: str
    """A dotted name, such as `watchdog.store.tables` or `httpx2`. For `from a import b` it is `a.b`."""
    type_checking: bool
    """Whether it is under `if TYPE_CHECKING`, and so used in annotations only."""

    @property
    def root_module(self) -> str:
        return self.target.split(".")[0]


class ClassDefinition(NamedTuple):
    name: str
    line: int
    line_count: int
    has_docstring: bool


class Call(NamedTuple):
    name: str
    """The function, without the object that it is an attribute of."""
    line: int
    positional_count: int


class Identifier(NamedTuple):
    name: str
    line: int


@dataclass
class SourceFile:
    """A parsed file, and the definitions, imports and calls in it."""

    path: str
    """Relative to the folder that was read, such as `store/tables.py`."""
    text: str
    tree: ast.Module
    imports: list[Import] = field(default_factory=list)
    classes: list[ClassDefinition] = field(default_factory=list)
    functions: list[Identifier] = field(default_factory=list)
    variadic: set[str] = field(default_factory=set)
    """Functions that take `*args`, and classes whose `__init__` does."""
    calls: list[Call] = field(default_factory=list)
    identifiers: list[Identifier] = field(default_factory=list)
    """Every name that the file defines: classes, functions, parameters, variables, attributes and import aliases."""
    attributes: list[Identifier] = field(default_factory=list)
    """Every attribute that the file reads."""

    @property
    def component(self) -> str:
        """The top-level package or module."""
        return self.path.split("/")[0].removesuffix(".py")

    @property
    def module(self) -> str:
        return "watchdog." + self.path.removesuffix(".py").replace("/", ".").removesuffix("__init__").removesuffix(".")

    def at(self, line: int) -> str:
        return f"{self.path}:{line}"


@cache
def read_sources(root: Path) -> tuple[SourceFile, ...]:
    """Every Python file below a folder, parsed once per test process."""
    return tuple(_read(file, root) for file in sorted(root.rglob("*.py")))


def _read(file: Path, root: Path) -> SourceFile:
    text = file.read_text(encoding="utf-8")
    source = SourceFile(file.relative_to(root).as_posix(), text, ast.parse(text, str(file)))
    _collect(source, source.tree, type_checking=False)
    return source


def _collect(source: SourceFile, node: ast.AST, *, type_checking: bool) -> None:
    """Walk the tree once."""
    _collect_node(source, node, type_checking=type_checking)
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        for statement in node.body:
            _collect(source, statement, type_checking=True)
        for statement in node.orelse:
            _collect(source, statement, type_checking=type_checking)
        return
    for child in ast.iter_child_nodes(node):
        _collect(source, child, type_checking=type_checking)


def _collect_node(source: SourceFile, node: ast.AST, *, type_checking: bool) -> None:
    match node:
        case ast.Import() | ast.ImportFrom():
            source.imports += _imports_of(source.path, node, type_checking=type_checking)
            source.identifiers += [Identifier(alias.asname, node.lineno) for alias in node.names if alias.asname]
        case ast.ClassDef():
            line_count = (node.end_lineno or node.lineno) - node.lineno + 1
            documented = ast.get_docstring(node) is not None
            source.classes.append(ClassDefinition(node.name, node.lineno, line_count, documented))
            source.identifiers.append(Identifier(node.name, node.lineno))
            methods = [method for method in node.body if isinstance(method, ast.FunctionDef)]
            if any(method.name == "__init__" and method.args.vararg for method in methods):
                source.variadic.add(node.name)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            source.functions.append(Identifier(node.name, node.lineno))
            if node.args.vararg is not None:
                source.variadic.add(node.name)
            source.identifiers.append(Identifier(node.name, node.lineno))
        case ast.arg():
            source.identifiers.append(Identifier(node.arg, node.lineno))
        case ast.Name(ctx=ast.Store()):
            source.identifiers.append(Identifier(node.id, node.lineno))
        case ast.Attribute():
            stored = isinstance(node.ctx, ast.Store)
            (source.identifiers if stored else source.attributes).append(Identifier(node.attr, node.lineno))
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.ExceptHandler(name=str(name)):
            source.identifiers.append(Identifier(name, node.lineno))
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            positional = [argument for argument in node.args if not isinstance(argument, ast.Starred)]
            source.calls.append(Call(name, node.lineno, len(positional)))


def _imports_of(path: str, node: ast.Import | ast.ImportFrom, *, type_checking: bool) -> list[Import]:
    if isinstance(node, ast.Import):
        return [Import(node.lineno, alias.name, type_checking) for alias in node.names]
    base = node.module or ""
    if node.level:
        package = ["watchdog", *path.split("/")[:-1]]
        base = ".".join([*package[: len(package) - node.level + 1], base]).strip(".")
    return [Import(node.lineno, f"{base}.{alias.name}", type_checking) for alias in node.names]
