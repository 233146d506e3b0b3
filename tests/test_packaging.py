"""The wheel is complete and runs when installed elsewhere; the locks are complete and pinned."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from signal import SIGTERM
from threading import Thread
from time import monotonic, sleep
from typing import Any
from urllib.request import urlopen

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.polling import HANG_S
from tests.support.ports import find_free_port
from tests.support.processes import end_process

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# --- the wheel and the sdist


def build(source: Path, kind: str, into: Path) -> Path:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", into], cwd=source, check=True)
    (built,) = into.iterdir()
    return built


def install(wheel: Path, prefix: Path) -> Path:
    """Returns the site-packages directory that now holds it."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-warn-script-location",
    ]
    subprocess.run([*pip, "--no-deps", "--ignore-installed", "--prefix", prefix, wheel], check=True)
    (site,) = prefix.glob("lib/*/site-packages")
    return site


def run(prefix: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The installed `watchdog` script, away from the checkout."""
    (site,) = prefix.glob("lib/*/site-packages")
    return subprocess.run(
        [prefix / "bin/watchdog", *arguments],
        cwd=prefix,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def tree(top: str) -> set[str]:
    """Files under a directory of the checkout that git does not ignore."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", top]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return {file for file in files if (ROOT / file).is_file()}


def test_the_wheel_holds_the_package_with_its_templates_and_migrations_and_nothing_else(wheel: Path) -> None:
    package = tree("watchdog") | {f"watchdog/_data/{file}" for file in tree("templates") | tree("migrations")}
    assert any("migrations/versions" in file for file in package)
    assert any("templates/" in file for file in package)
    assert "watchdog/py.typed" in contents(wheel), "type checkers use the annotations"
    assert {file for file in contents(wheel) if ".dist-info/" not in file} == package
    assert any(file.endswith("/licenses/LICENSE") for file in contents(wheel))


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    sdist = build(ROOT, "sdist", tmp_path / "sdist")
    subprocess.run(["tar", "-xzf", sdist, "-C", tmp_path], check=True)
    source = tmp_path / sdist.name.removesuffix(".tar.gz")
    assert contents(build(source, "wheel", tmp_path / "wheel")) == contents(wheel)


def test_the_installed_wheel_runs_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = install(wheel, tmp_path)
    ran = run(tmp_path, "version")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, PROJECT["project"]["version"] + "\n", "")
    where = [sys.executable, "-c", "import watchdog.cli; print(watchdog.cli.__file__)"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    module_path = subprocess.run(
        where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert module_path.startswith(str(site))


class Target(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Writes no log."""


@pytest.fixture
def target() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Target) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def fetched(url: str, process: subprocess.Popen[str]) -> str:
    """The page; empty while there is none."""
    assert process.poll() is None, process.communicate()
    try:
        with urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_the_installed_wheel_monitors_with_a_configuration_of_three_lines(
    wheel: Path, tmp_path: Path, target: str
) -> None:
    site, page = install(wheel, tmp_path), f"127.0.0.1:{find_free_port()}"
    (tmp_path / "watchdog.yaml").write_text(
        f"version: 1\nserver: {{listen: '{page}'}}\nprobes: [{{name: Website, http: '{target}', every: 1s}}]\n"
    )
    process = subprocess.Popen(
        [tmp_path / "bin/watchdog", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = monotonic() + 60
        while "Website" not in fetched(f"http://{page}/", process) and monotonic() < deadline:
            sleep(0.1)
        status = run(tmp_path, "status", "-o", "json")
        while '"pass"' not in status.stdout and monotonic() < deadline:
            status = run(tmp_path, "status", "-o", "json")
        states = {probe["probe"]: probe["state"] for probe in json.loads(status.stdout)}
        assert (status.returncode, states["website"]) == (0, "up")
        process.send_signal(SIGTERM)
        _, log = process.communicate(timeout=HANG_S)
    finally:
        end_process(process)
    assert process.returncode == 0
    assert "Traceback" not in log
    assert (tmp_path / "watchdog.db").is_file()


# --- PyPI's other watchdog


@pytest.fixture(scope="module")
def other_watchdog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("other")
    (source / "watchdog").mkdir()
    (source / "watchdog/__init__.py").write_text("# not ours\n")
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "watchdog"\nversion = "6.0.0"\n'
    )
    return build(source, "wheel", source / "dist")


@pytest.mark.parametrize(
    "ours_first", [True, False], ids=["the other package installed over ours", "ours installed over the other package"]
)
def test_beside_the_other_watchdog_the_command_explains_what_to_do(
    wheel: Path, other_watchdog: Path, tmp_path: Path, ours_first: bool
) -> None:
    for package in (wheel, other_watchdog) if ours_first else (other_watchdog, wheel):
        install(package, tmp_path)
    ran = run(tmp_path, "version")
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith('watchdog: the PyPI package "watchdog" 6.0.0')
    assert "in its own virtual environment" in ran.stderr
    assert "Traceback" not in ran.stderr


# --- the locks


def pins(lock: str) -> dict[str, str]:
    """Name -> pinned version."""
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", text, flags=re.MULTILINE))


def requirements(*extras: str) -> list[Requirement]:
    project = PROJECT["project"]
    optional = [line for extra in extras for line in project["optional-dependencies"][extra]]
    return [Requirement(line) for line in [*project["dependencies"], *PROJECT["build-system"]["requires"], *optional]]


@pytest.mark.parametrize(("lock", "extras"), [("run.txt", ["postgres"]), ("dev.txt", ["postgres", "dev"])])
def test_a_lock_satisfies_the_project_and_what_builds_it(lock: str, extras: list[str]) -> None:
    pinned = pins(lock)
    unmet = [
        str(requirement)
        for requirement in requirements(*extras)
        if not requirement.specifier.contains(pinned.get(canonicalize_name(requirement.name), "0"))
    ]
    assert unmet == []


@pytest.mark.parametrize(
    "lock",
    [*ROOT.glob("requirements/*.txt"), *ROOT.glob("tests/support/third_party_locks/*.txt")],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_a_lock_has_hashes_and_no_addresses(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry for entry in entries if not re.match(r"[a-z0-9.-]+==\S+ ", entry)] == []
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert re.findall(r"\w+://\S+|^--?\w.*", text, flags=re.MULTILINE) == []


def test_the_dev_lock_holds_the_run_lock() -> None:
    assert pins("run.txt").items() <= pins("dev.txt").items()
