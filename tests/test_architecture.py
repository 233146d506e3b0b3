"""Enforces the conventions of the code: imports, purity, where each dependency is used, names and words."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.source_code import PACKAGE, ROOT, SourceFile, read_sources

LAYERS = (
    ("domain",),
    ("expression_tokens",),
    ("config_values", "expressions", "resources", "checkin"),
    ("expression_failures",),
    ("config_types",),
    ("registry", "net"),
    ("queues",),
    ("remediations",),
    ("probes", "notifiers", "store"),
    ("config",),
    ("service",),
    ("api",),
    ("web", "mcp_server"),
    ("server", "signals", "source_parsing"),
    ("app",),
    ("demo",),
    ("cli",),
    ("__main__",),
)
"""A component imports itself and the layers before its own. Components of the same layer never import each other."""

PURE = ("domain",)
PURE_DEPENDENCIES = {"cronsim": "domain/schedule.py"}
"""Third-party modules that pure code may import, and the file that may import them."""
IMPURE = frozenset(
    {"asyncio", "io", "logging", "os", "pathlib", "random", "secrets", "shutil", "signal", "socket", "sqlite3", "ssl"}
    | {"subprocess", "tempfile", "threading", "time", "urllib", "uuid"}
)
CLOCKS = frozenset({"now", "utcnow", "today"})


class ImportRule(NamedTuple):
    root_modules: tuple[str, ...]
    allowed_in: tuple[str, ...]
    """Globs over paths inside the package."""
    reason: str


IMPORT_RULES = (
    ImportRule(
        ("mcp", "mcp_types", "httpx2", "httpcore2"),
        ("net/mcp/*", "mcp_server/*", "demo/targets.py"),
        "its API changes often, and then only one package has to change",
    ),
    ImportRule(
        ("sqlalchemy", "alembic", "psycopg", "sqlite3"),
        ("store/*", "queues/*", "demo/worker.py"),
        "SQL is written in one package",
    ),
    ImportRule(
        ("redis", "bullmq", "celery", "kombu"), ("queues/*", "demo/queues.py"), "brokers are reached from one package"
    ),
    ImportRule(("cel_expr_python",), ("expressions.py",), "CEL is evaluated in one module"),
    ImportRule(("apscheduler",), ("service/*",), "only the service has timers"),
    ImportRule(("cronsim",), ("domain/schedule.py",), "cron expressions are interpreted in one module"),
    ImportRule(
        ("fastapi", "starlette", "uvicorn"),
        ("web/*", "mcp_server/*", "app.py", "server/*", "demo/*"),
        "only these packages serve HTTP",
    ),
    ImportRule(("aiosmtplib", "css_inline"), ("notifiers/email*.py",), "email is sent by one notifier"),
    ImportRule(("apprise",), ("notifiers/apprise.py",), "Apprise is called by one notifier"),
    ImportRule(("websockets",), ("net/websocket*.py",), "only these modules open WebSockets"),
    ImportRule(("grpc", "grpc_health", "google"), ("net/grpc_health.py",), "gRPC is called in one module"),
    ImportRule(("dns",), ("net/dns_message.py",), "DNS messages are built and parsed in one module"),
    ImportRule(("icmplib",), ("net/icmp.py",), "echo requests are sent by one module"),
    ImportRule(("itsdangerous",), ("web/auth/*",), "sessions are signed in one package"),
    ImportRule(("typer", "rich"), ("cli/*",), "only the command line writes to a terminal"),
    ImportRule(("yaml",), ("config/*",), "YAML is read in one package"),
    ImportRule(("prometheus_client",), ("api/metrics.py",), "metrics are encoded in one module"),
)

OTHER_WATCHDOG_MODULES = frozenset({"events", "observers", "tricks", "utils", "version", "watchmedo"})
"""Modules of PyPI's other `watchdog`, which would overwrite ours when both are installed."""

SLOW_MODULES = frozenset(
    {
        "aiosmtplib",
        "alembic",
        "apprise",
        "apscheduler",
        "celery",
        "cryptography",
        "css_inline",
        "dns",
        "fastapi",
        "grpc",
    }
    | {
        "httpx",
        "httpx2",
        "icmplib",
        "jinja2",
        "mcp",
        "mcp_types",
        "prometheus_client",
        "psycopg",
        "rich",
        "sqlalchemy",
        "starlette",
    }
    | {"structlog", "uvicorn", "websockets"}
)
"""Modules that `validate` and `--help` must not load, because they take long to import."""

UNIMPORTED_DEPENDENCIES = {
    "sniffio": "httpcore tries to import it on every request, which is faster if it is installed",
    "tzdata": "provides time zones on machines that have none",
}
"""Dependencies that the package never imports."""
PART_OF = {
    "httpcore2": "mcp",
    "httpx2": "mcp",
    "kombu": "celery",
    "mcp-types": "mcp",
    "protobuf": "grpcio-health-checking",
    "pydantic-core": "pydantic",
    "starlette": "fastapi",
    "typing-extensions": "pydantic",
}
"""Packages whose version is chosen by the dependency that they belong to."""

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
MAX_UNDOCUMENTED_CLASS_LINES = 25
MAX_POSITIONAL_ARGUMENTS = 5
BANNED_NAMES = frozenset(
    {"found", "seen", "known", "one", "most", "kept", "shown", "wrong", "recent", "longest", "heard", "asked", "who"}
)
"""Names that do not state what they hold."""
BANNED_NAME_PARTS = frozenset(
    {
        "told",
        "tell",
        "tells",
        "telling",
        "said",
        "says",
        "whoever",
        "nobody",
        "somebody",
        "anybody",
        "patience",
        "whatever",
    }
)
"""The same, also as a part of a longer name."""
BANNED_WORDS = (
    *("told", "tells?", "telling", "said", "says", "whoever", "nobody", "somebody", "anybody", "hears?", "heard"),
    *("looks? into", "meanwhile begins", "so many", "under way", "for ever", "of ours", "to the letter", "begun"),
    *("whatever", "is asked for", "comes round", "stood still", "stands? still"),
)
"""Words and phrases that a technical writer would not use of a program."""
TEXT_FILES = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/*.md", "templates/**/*.*"),
    *("tests/**/*.*", "benchmarks/**/*.*", "examples/**/*.*", "deploy/**/*.*", "migrations/**/*.*", "dev"),
)
"""Text outside the package that is checked for banned words."""
WORD_LIST = "tests/test_architecture.py"
"""Contains the banned words themselves."""

# --- imports


def find_layer_violations(sources: Sequence[SourceFile]) -> Iterator[str]:
    layer_by_component = {component: number for number, components in enumerate(LAYERS) for component in components}
    for component in sorted({source.component for source in sources} - layer_by_component.keys() - {"__init__"}):
        yield f"{component} has no layer: add it to LAYERS"
    for source in sources:
        for imported in source.imports:
            if imported.root_module != "watchdog" or source.component not in layer_by_component:
                continue
            component = imported.target.split(".")[1]
            if (
                component in layer_by_component
                and component != source.component
                and layer_by_component[component] >= layer_by_component[source.component]
            ):
                yield f"{source.at(imported.line)}: {source.component} must not import {component}"


def find_import_cycles(sources: Sequence[SourceFile]) -> Iterator[str]:
    """Imports inside functions and under TYPE_CHECKING count, too."""
    modules = {source.module for source in sources}
    edges = {source.module: {_module_of(i.target, modules) for i in source.imports} & modules for source in sources}
    for source in sources:
        for target in sorted(edges[source.module] - {source.module}):
            if (path := _path_between(target, source.module, edges)) and source.module == min(path):
                yield f"{source.path}: {' -> '.join([source.module, *path])}"


def _module_of(target: str, modules: set[str]) -> str:
    """The module that an import loads: `from watchdog.net import NetworkAccess` loads watchdog.net."""
    return target if target in modules else target.rpartition(".")[0]


def _path_between(start: str, end: str, edges: dict[str, set[str]]) -> list[str]:
    paths, visited = [[start]], {start}
    for path in paths:
        if path[-1] == end:
            return path
        following = sorted(edges.get(path[-1], set()) - visited)
        visited.update(following)
        paths += [[*path, module] for module in following]
    return []


def find_impurity(sources: Sequence[SourceFile]) -> Iterator[str]:
    for source in (source for source in sources if source.component in PURE):
        for imported in source.imports:
            module = imported.root_module
            allowed = module in sys.stdlib_module_names - IMPURE or PURE_DEPENDENCIES.get(module) == source.path
            if module != "watchdog" and not allowed:
                yield f"{source.at(imported.line)}: {source.component} is pure and must not import {module}"
        for attribute in source.attributes:
            if attribute.name in CLOCKS:
                yield f"{source.at(attribute.line)}: {source.component} is pure; `now` must be a parameter"
        for call in source.calls:
            if call.name in {"open", "print", "input"}:
                yield f"{source.at(call.line)}: {source.component} is pure and must not call {call.name}()"


def find_misplaced_imports(sources: Sequence[SourceFile]) -> Iterator[str]:
    for source in sources:
        for imported in source.imports:
            for rule in IMPORT_RULES:
                allowed = imported.type_checking or any(fnmatch(source.path, glob) for glob in rule.allowed_in)
                if imported.root_module in rule.root_modules and not allowed:
                    places = " or ".join(rule.allowed_in)
                    yield f"{source.at(imported.line)}: {imported.root_module} belongs in {places}: {rule.reason}"


def find_name_clashes(sources: Sequence[SourceFile]) -> Iterator[str]:
    for source in sources:
        if source.component in OTHER_WATCHDOG_MODULES:
            yield f"{source.path}: PyPI's other watchdog has that module"
        if source.path == "__init__.py" and len(source.tree.body) > 1:
            yield f"{source.path}: contains more than a docstring; PyPI's other watchdog overwrites it"


# --- names and words


def find_duplicate_classes(sources: Sequence[SourceFile]) -> Iterator[str]:
    places: dict[str, list[str]] = {}
    for source in sources:
        for definition in source.classes:
            places.setdefault(definition.name, []).append(source.at(definition.line))
    for name, lines in places.items():
        if len(lines) > 1:
            yield f"{lines[0]}: class {name} is also defined at {', '.join(lines[1:])}"


def find_banned_names(sources: Sequence[SourceFile]) -> Iterator[str]:
    for source in sources:
        for identifier in source.identifiers:
            name = identifier.name.strip("_").lower()
            parts = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", identifier.name).lower())
            if name in BANNED_NAMES or not BANNED_NAME_PARTS.isdisjoint(parts):
                yield f"{source.at(identifier.line)}: {identifier.name} does not state what it holds"


def find_undocumented_classes(sources: Sequence[SourceFile]) -> Iterator[str]:
    for source in sources:
        for definition in source.classes:
            long = definition.line_count > MAX_UNDOCUMENTED_CLASS_LINES
            if long and not definition.has_docstring and not definition.name.startswith("_"):
                yield f"{source.at(definition.line)}: class {definition.name} has no docstring"


def find_positional_arguments(sources: Sequence[SourceFile]) -> Iterator[str]:
    """Functions of the package are recognised by their name alone; those that take `*args` are exempt."""
    own = {function.name for source in sources for function in source.functions}
    own |= {definition.name for source in sources for definition in source.classes}
    own -= {name for source in sources for name in source.variadic}
    for source in sources:
        for call in source.calls:
            if call.name in own and call.positional_count > MAX_POSITIONAL_ARGUMENTS:
                yield f"{source.at(call.line)}: {call.name}() gets {call.positional_count} positional arguments"


def find_long_files(sources: Sequence[SourceFile]) -> Iterator[str]:
    for source in sources:
        if (lines := source.text.count("\n")) > MAX_FILE_LINES:
            yield f"{source.path}: {lines} lines"


def find_long_functions(sources: Sequence[SourceFile]) -> Iterator[str]:
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    yield f"{source.at(node.lineno)}: {node.name}() has {lines} lines"


def find_banned_words(sources: Sequence[SourceFile]) -> Iterator[str]:
    for source in sources:
        yield from _banned_words_in(source.path, source.text)


def find_banned_words_in_texts(root: Path) -> Iterator[str]:
    files = set(chain.from_iterable(root.glob(pattern) for pattern in TEXT_FILES)) - {root / WORD_LIST}
    for file in sorted(file for file in files if file.is_file() and "__pycache__" not in file.parts):
        yield from _banned_words_in(file.relative_to(root).as_posix(), file.read_text(encoding="utf-8"))


@cache
def _banned_words_pattern() -> re.Pattern[str]:
    phrases = "|".join(words.replace(" ", r"[\s#]+") for words in BANNED_WORDS)
    return re.compile(rf"(?<![\w.\-])(?:{phrases})(?![\w\-])", re.IGNORECASE)


def _banned_words_in(path: str, text: str) -> Iterator[str]:
    for match in _banned_words_pattern().finditer(text):
        yield f"{path}:{text.count(chr(10), 0, match.start()) + 1}: {' '.join(match[0].split())!r} is not plain English"


# --- the rules, applied to the package and broken one by one

RULES: tuple[Callable[[Sequence[SourceFile]], Iterator[str]], ...] = (
    find_layer_violations,
    find_import_cycles,
    find_impurity,
    find_misplaced_imports,
    find_name_clashes,
    find_duplicate_classes,
    find_banned_names,
    find_undocumented_classes,
    find_positional_arguments,
    find_long_files,
    find_long_functions,
    find_banned_words,
)


@pytest.mark.parametrize("rule", RULES)
def test_the_package_follows(rule: Callable[[Sequence[SourceFile]], Iterator[str]]) -> None:
    assert list(rule(read_sources(PACKAGE))) == []


def test_texts_are_in_plain_english() -> None:
    assert list(find_banned_words_in_texts(ROOT)) == []


def test_the_tests_have_plain_names() -> None:
    assert list(find_banned_names(read_sources(ROOT / "tests"))) == []


@pytest.mark.parametrize("rule", [find_banned_names, find_long_files])
def test_the_benchmarks_follow(rule: Callable[[Sequence[SourceFile]], Iterator[str]]) -> None:
    assert list(rule(read_sources(ROOT / "benchmarks"))) == []


LONG_CLASS = "class Store:\n" + "    x = 1\n" * 25


@pytest.mark.parametrize(
    ("path", "text", "problem"),
    [
        ("domain/x.py", "from watchdog.store import tables", "domain must not import store"),
        ("domain/x.py", "def f():\n    import watchdog.app", "domain must not import app"),
        ("web/x.py", "from ..app import build", "web must not import app"),
        ("probes/x.py", "import watchdog.notifiers.base", "probes must not import notifiers"),
        ("signals.py", "from watchdog.server import WebServer", "signals must not import server"),
        ("unlayered/x.py", "", "unlayered has no layer"),
        ("net/x.py", "from watchdog.net.y import z", "watchdog.net.x -> watchdog.net.y -> watchdog.net.x"),
        ("net/x.py", "def f():\n    from watchdog.net import y", "watchdog.net.x -> watchdog.net.y -> watchdog.net.x"),
        (
            "net/x.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from watchdog.net.y import z",
            "watchdog.net.x -> watchdog.net.y -> watchdog.net.x",
        ),
        ("domain/x.py", "import time", "must not import time"),
        ("domain/schedule.py", "import httpx", "must not import httpx"),
        ("domain/x.py", "import cronsim", "is pure and must not import cronsim"),
        ("domain/x.py", "from datetime import datetime\ndatetime.now()", "`now` must be a parameter"),
        ("domain/x.py", "print('hello')", "must not call print()"),
        ("probes/x.py", "def observe():\n    from mcp.client import Client", "mcp belongs in net/mcp/*"),
        ("web/x.py", "import sqlalchemy as sa", "sqlalchemy belongs in store/*"),
        ("config/x.py", "from cel_expr_python import cel", "cel_expr_python belongs in"),
        ("utils.py", "", "PyPI's other watchdog has that module"),
        ("__init__.py", '"""Watchdog."""\nversion = 1', "contains more than a docstring"),
        ("web/x.py", "class Twin: ...", "class Twin is also defined at"),
        ("net/x.py", "def run(told): ...", "told does not state what it holds"),
        ("net/x.py", "text_told = 1", "text_told does not state what it holds"),
        ("net/x.py", "class TellerSaid: ...", "TellerSaid does not state what it holds"),
        ("net/x.py", "for found in ():\n    pass", "found does not state what it holds"),
        ("net/x.py", "MOST = 3", "MOST does not state what it holds"),
        ("net/x.py", LONG_CLASS, "class Store has no docstring"),
        ("net/x.py", "def f(): ...\nf(1, 2, 3, 4, 5, 6)", "f() gets 6 positional arguments"),
        ("net/x.py", "x = 1\n" * 401, "net/x.py: 401 lines"),
        ("net/x.py", "def f():\n" + "    x = 1\n" * 50, "f() has 51 lines"),
        ("net/x.py", '"""What the server tells us."""', "'tells' is not plain English"),
        ("net/x.py", "x = f'it looks\\n into {1}'  # Nobody knows", "'Nobody' is not plain English"),
        ("net/x.py", "# it looks\n# into queues", "'looks # into' is not plain English"),
    ],
)
def test_each_rule_can_be_broken(tmp_path: Path, path: str, text: str, problem: str) -> None:
    (tmp_path / "__init__.py").touch()
    (tmp_path / "net").mkdir()
    (tmp_path / "net/y.py").write_text("import watchdog.net.x\n\nclass Twin: ...\n", encoding="utf-8")
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    problems = [line for rule in RULES for line in rule(read_sources(tmp_path)) if problem in line]
    assert len(problems) == 1


@pytest.mark.parametrize("path", ["docs/x.md", "tests/domain/test_x.py", "benchmarks/x.py", "examples/x.yaml", "dev"])
def test_banned_words_in_texts_are_found(tmp_path: Path, path: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("Who is told?\n\nThat foretold `told_you`.", encoding="utf-8")
    assert list(find_banned_words_in_texts(tmp_path)) == [f"{path}:1: 'told' is not plain English"]


def test_what_the_rules_allow(tmp_path: Path) -> None:
    texts = {
        "__init__.py": '"""The package."""',
        "store/x.py": "import sqlalchemy\nfrom watchdog.domain.model import Slot\nfrom watchdog.store import y",
        "store/y.py": "from watchdog.store import z\nfrom watchdog.store.z import a",
        "web/x.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sqlalchemy",
        "domain/schedule.py": "from cronsim import CronSim\nfrom datetime import datetime",
        "net/x.py": "PAGE_NOT_FOUND = 1\nother.call(1, 2, 3, 4, 5, 6)\ndef own(*a): ...\nown(1, 2, 3, 4, 5, 6)",
        "net/z.py": f'class Documented:\n    """Text."""\n{LONG_CLASS.partition(chr(10))[2]}',
    }
    for path, text in texts.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    assert [line for rule in RULES for line in rule(read_sources(tmp_path))] == []


def test_reading_a_configuration_loads_no_slow_module() -> None:
    program = "import sys, watchdog.config.load, watchdog.probes, watchdog.notifiers, watchdog.cli; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "watchdog.config.load" in loaded
    assert loaded & SLOW_MODULES == set()


def test_declared_dependencies_are_those_in_use() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    distributions = packages_distributions()
    used = {
        PART_OF.get(canonicalize_name(distribution), canonicalize_name(distribution))
        for source in (*read_sources(PACKAGE), *read_sources(ROOT / "migrations"))
        for imported in source.imports
        if imported.root_module not in sys.stdlib_module_names | {"watchdog"}
        for distribution in distributions.get(imported.root_module, [imported.root_module])
    }
    declared = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    extras = [lines for extra, lines in project["optional-dependencies"].items() if extra != "dev"]
    optional = {canonicalize_name(Requirement(line).name) for lines in extras for line in lines}
    assert used - declared - optional == set()
    assert declared - used == set(UNIMPORTED_DEPENDENCIES)
