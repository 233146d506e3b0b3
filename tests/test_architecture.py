"""The house keeps its order: who may import whom, what stays pure, and which library lives behind which wall."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "watchdog"

STOREYS = (
    ("model",),
    ("words", "assets", "checkin"),
    ("schedule", "rules", "alerts", "beat"),
    ("fields", "expressions"),
    ("wire",),
    ("queues",),
    ("remedies",),
    ("probes", "notifiers", "store"),
    ("config",),
    ("service",),
    ("web", "mcp_server"),
    ("app",),
    ("demo",),
    ("cli",),
)
"""A room imports itself and the storeys before its own. Rooms of one storey are siblings and do not meet."""

PURE = {"model": (), "schedule": ("cronsim",), "rules": (), "alerts": (), "beat": (), "words": ()}
"""Rooms without I/O, clock or randomness, and the libraries each may use beyond Python's own."""

IMPURE = frozenset(
    {"asyncio", "io", "logging", "os", "pathlib", "random", "secrets", "shutil", "signal", "socket", "sqlite3", "ssl"}
    | {"subprocess", "tempfile", "threading", "time", "urllib", "uuid"}
)
CLOCKS = frozenset({"now", "utcnow", "today"})


class Wall(NamedTuple):
    libraries: tuple[str, ...]
    places: tuple[str, ...]
    """Globs over paths inside the package."""
    why: str


WALLS = (
    Wall(
        ("mcp", "mcp_types", "httpx2", "httpcore2"),
        ("wire/mcp/*", "mcp_server/*", "demo/targets.py"),
        "its API moves, and one place follows",
    ),
    Wall(
        ("sqlalchemy", "alembic", "psycopg", "sqlite3"),
        ("store/*", "queues/*", "demo/worker.py"),
        "SQL of ours has one home",
    ),
    Wall(("redis", "bullmq", "celery", "kombu"), ("queues/*",), "brokers are reached from one room"),
    Wall(("cel_expr_python",), ("expressions.py",), "CEL's surprises are met once"),
    Wall(("apscheduler",), ("service/*",), "only the ticks are its business"),
    Wall(("cronsim",), ("schedule.py",), "cron means the same everywhere"),
    Wall(
        ("fastapi", "starlette", "uvicorn"),
        ("web/*", "mcp_server/*", "app.py", "demo/*"),
        "only the faces speak HTTP as a server",
    ),
    Wall(("aiosmtplib", "css_inline"), ("notifiers/email*.py",), "mail is one notifier's business"),
    Wall(("typer", "rich"), ("cli/*",), "the terminal is the command line's business"),
    Wall(("yaml",), ("config/*",), "YAML is read in one dialect"),
)

TAKEN = frozenset({"events", "observers", "tricks", "utils", "version", "watchmedo"})
"""Modules of PyPI's other `watchdog`, which would overwrite ours when both are installed."""

HEAVY = frozenset(
    {
        "aiosmtplib",
        "alembic",
        "apscheduler",
        "celery",
        "cryptography",
        "css_inline",
        "fastapi",
        "httpx",
        "httpx2",
        "jinja2",
        "mcp",
    }
    | {"mcp_types", "psycopg", "rich", "sqlalchemy", "starlette", "structlog", "uvicorn"}
)
"""Libraries that `validate` and `--help` do not pay for."""


USED_UNNAMED = {
    "httptools": "uvicorn reads requests with it",
    "python-multipart": "FastAPI reads forms with it",
    "sniffio": "httpcore looks for it on every request, and finds it faster when it is there",
    "tzdata": "time zones on machines that have none",
}
"""Dependencies that no import of ours names."""

COMES_WITH = {
    "httpcore2": "mcp",
    "httpx2": "mcp",
    "kombu": "celery",
    "mcp-types": "mcp",
    "pydantic-core": "pydantic",
    "starlette": "fastapi",
}
"""Libraries that are another one's other half: which versions fit is for that one to say."""


class Import(NamedTuple):
    path: str
    line: int
    target: str
    """Dotted: `watchdog.store.tables`, `httpx2`."""
    for_types: bool
    """Under `if TYPE_CHECKING`: names a type, uses nothing."""

    @property
    def top(self) -> str:
        return self.target.split(".")[0]

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"


def trees(package: Path) -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(package.rglob("*.py")):
        yield file.relative_to(package).as_posix(), ast.parse(file.read_text(encoding="utf-8"), str(file))


def imports(package: Path) -> Iterator[Import]:
    for path, tree in trees(package):
        guards = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
        typed = {inner for guard in guards for statement in guard.body for inner in ast.walk(statement)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(path, node.lineno, alias.name, node in typed)
            elif isinstance(node, ast.ImportFrom):
                here = ["watchdog", *path.split("/")[:-1]]
                base = (
                    ".".join([*here[: len(here) - node.level + 1], node.module or ""]).strip(".") if node.level else ""
                )
                for alias in node.names:
                    yield Import(path, node.lineno, f"{base or node.module}.{alias.name}", node in typed)


def room(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def misdirected(package: Path) -> list[str]:
    storey = {name: i for i, names in enumerate(STOREYS) for name in names}
    rooms = {room(path) for path, _ in trees(package)} - {"__init__"}
    found = [f"{name} has no storey: give it one in STOREYS" for name in sorted(rooms - storey.keys())]
    for one in imports(package):
        if one.top != "watchdog":
            continue
        here, there = room(one.path), one.target.split(".")[1]
        if here in storey and there in storey and here != there and storey[there] >= storey[here]:
            found.append(f"{one.where}: {here} must not import {there}")
    return found


def impure(package: Path) -> list[str]:
    found = []
    for one in imports(package):
        if (home := room(one.path)) not in PURE or one.top == "watchdog":
            continue
        if one.top in IMPURE or one.top not in sys.stdlib_module_names | set(PURE[home]):
            found.append(f"{one.where}: {home} is pure and must not import {one.top}")
    for path, tree in trees(package):
        if room(path) not in PURE:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in CLOCKS:
                found.append(f"{path}:{node.lineno}: {room(path)} is pure and must be told the time")
            if isinstance(node, ast.Name) and node.id in {"open", "print", "input"}:
                found.append(f"{path}:{node.lineno}: {room(path)} is pure and must not call {node.id}()")
    return found


def trespassing(package: Path) -> list[str]:
    return [
        f"{one.where}: {one.top} belongs in {' or '.join(wall.places)}: {wall.why}"
        for one in imports(package)
        for wall in WALLS
        if one.top in wall.libraries
        and not one.for_types
        and not any(fnmatch(one.path, place) for place in wall.places)
    ]


def clashing(package: Path) -> list[str]:
    found = [f"{path}: PyPI's other watchdog has that module" for path, _ in trees(package) if room(path) in TAKEN]
    top = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    if any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in top.body):
        found.append("__init__.py: holds more than a docstring; PyPI's other watchdog overwrites it")
    return found


RULES = (misdirected, impure, trespassing, clashing)


@pytest.mark.parametrize("rule", RULES)
def test_the_house_keeps(rule: object) -> None:
    assert callable(rule)
    assert rule(PACKAGE) == []


@pytest.mark.parametrize(
    ("path", "text", "complaint"),
    [
        ("rules/x.py", "from watchdog.store import tables", "rules must not import store"),
        ("rules/x.py", "from watchdog import alerts", "rules must not import alerts"),
        ("probes/x.py", "def f():\n    import watchdog.notifiers.base", "probes must not import notifiers"),
        ("web/x.py", "from ..app import build", "web must not import app"),
        ("cellar/x.py", "", "cellar has no storey"),
        ("rules/x.py", "import time", "must not import time"),
        ("schedule.py", "import httpx", "must not import httpx"),
        ("alerts/x.py", "from datetime import datetime\ndatetime.now()", "must be told the time"),
        ("words.py", "print('hello')", "must not call print()"),
        ("probes/x.py", "def observe():\n    from mcp.client import Client", "mcp belongs in wire/mcp/*"),
        ("web/x.py", "import sqlalchemy as sa", "sqlalchemy belongs in store/*"),
        ("config/x.py", "from cel_expr_python import cel", "cel_expr_python belongs in"),
        ("utils.py", "", "PyPI's other watchdog has that module"),
        ("__init__.py", "version = 1", "holds more than a docstring"),
    ],
)
def test_each_rule_can_be_broken(tmp_path: Path, path: str, text: str, complaint: str) -> None:
    (tmp_path / "__init__.py").touch()
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    found = [line for rule in RULES for line in rule(tmp_path) if complaint in line]
    assert len(found) == 1
    assert room(found[0].split(":")[0].split()[0]) == room(path)


def test_what_the_order_allows_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text('"""The package."""')
    (tmp_path / "store").mkdir()
    (tmp_path / "store/x.py").write_text(
        "import sqlalchemy\nfrom watchdog.model import Slot\nfrom watchdog.store import y"
    )
    (tmp_path / "web").mkdir()
    (tmp_path / "web/x.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sqlalchemy")
    (tmp_path / "schedule.py").write_text("from cronsim import CronSim\nfrom datetime import datetime")
    assert [line for rule in RULES for line in rule(tmp_path)] == []


def test_reading_a_configuration_loads_no_heavy_library() -> None:
    program = "import sys, watchdog.config.load, watchdog.probes, watchdog.notifiers, watchdog.cli; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "watchdog.config.load" in loaded
    assert loaded & HEAVY == set()


def test_every_library_in_use_is_declared_and_every_declared_one_is_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    owners = packages_distributions()
    used = {
        COMES_WITH.get(canonicalize_name(owner), canonicalize_name(owner))
        for one in [*imports(PACKAGE), *imports(ROOT / "migrations")]
        if one.top not in sys.stdlib_module_names | {"watchdog"}
        for owner in owners.get(one.top, [one.top])
    }
    declared = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    extras = [lines for extra, lines in project["optional-dependencies"].items() if extra != "dev"]
    optional = {canonicalize_name(Requirement(line).name) for lines in extras for line in lines}
    assert used - declared - optional == set()
    assert declared - used == set(USED_UNNAMED)
