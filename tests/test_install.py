"""`./dev` installs exactly the versions of a lock, from an index that also has newer releases."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BACKEND = """
import zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "watchdog_monitor-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{wheel_directory}/{name}", "w") as wheel:
        info = "watchdog_monitor-0.1.0.dist-info"
        wheel.writestr("watchdog_monitor.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: watchdog-monitor\\nVersion: 0.1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "watchdog-monitor"
version = "0.1.0"
"""


def write_wheel(index: Path, name: str, version: str, *requirements: str) -> str:
    """Add a release to a local index. Returns the SHA-256 of its wheel."""
    folder = index / name
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nProvides-Extra: fast\n"
        + "".join(f"Requires-Dist: {requirement}\n" for requirement in requirements),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}\n"
        for path, text in files.items()
    )
    wheel = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)
    links = "".join(f'<a href="{file.name}">{file.name}</a>\n' for file in sorted(folder.glob("*.whl")))
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def pythons() -> list[str]:
    """Every Python that `./dev` may use here: each has its own version of pip."""
    folders = [Path(sys.executable).resolve().parent, *map(Path, os.environ["PATH"].split(os.pathsep))]
    check = "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))"
    return [
        str(folder)
        for folder in dict.fromkeys(folders)
        if not str(folder).startswith(sys.prefix)
        and (folder / "python3").exists()
        and subprocess.run([folder / "python3", "-c", check], capture_output=True, check=False).returncode == 0
    ]


@pytest.mark.parametrize("python", pythons())
def test_a_newer_release_on_the_index_changes_nothing(python: str, tmp_path: Path) -> None:
    index, checkout = tmp_path / "simple", tmp_path / "checkout"
    (checkout / "requirements").mkdir(parents=True)
    pinned = {
        "plain": write_wheel(index, "plain", "1.0", "leaf[fast]>=1.0", "plain-extra>=1.0; extra == 'fast'"),
        "leaf": write_wheel(index, "leaf", "1.0", "plain-extra>=1.0; extra == 'fast'"),
        "plain-extra": write_wheel(index, "plain-extra", "1.0"),
    }
    for name in pinned:
        write_wheel(index, name, "1.1", "not-in-the-lock[fast]>=3")
    write_wheel(index, "not-in-the-lock", "3.0")
    lock = "".join(f"{name}==1.0 \\\n    --hash=sha256:{digest}\n" for name, digest in pinned.items())
    for name in ("run", "dev"):
        (checkout / f"requirements/{name}.txt").write_text(lock)
    (checkout / "pyproject.toml").write_text(PROJECT)
    (checkout / "backend.py").write_text(BACKEND)
    shutil.copy(ROOT / "dev", checkout / "dev")

    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{python}:/usr/bin:/bin",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index.as_uri(),
    }
    run = subprocess.run(
        [str(checkout / "dev"), "demo"], env=environment, capture_output=True, text=True, check=False, timeout=120
    )

    assert "Installing requirements/run.txt" in run.stderr
    assert (checkout / ".venv/stamp").exists(), run.stderr
    freeze = [str(checkout / ".venv/bin/python"), "-m", "pip", "freeze", "--exclude-editable"]
    installed = subprocess.run(freeze, env=environment, capture_output=True, text=True, check=True).stdout.split("\n")
    assert {line for line in installed if "==" in line} >= {f"{name}==1.0" for name in pinned}
    assert "not-in-the-lock" not in "".join(installed)


def test_a_failed_install_leaves_no_stamp(tmp_path: Path) -> None:
    index, checkout = tmp_path / "simple", tmp_path / "checkout"
    (checkout / "requirements").mkdir(parents=True)
    write_wheel(index, "plain", "1.0")
    for name in ("run", "dev"):
        (checkout / f"requirements/{name}.txt").write_text(f"plain==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    (checkout / "pyproject.toml").write_text(PROJECT)
    shutil.copy(ROOT / "dev", checkout / "dev")
    environment = {"HOME": str(tmp_path), "PATH": f"{pythons()[0]}:/usr/bin:/bin"}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index.as_uri()}
    run = subprocess.run([str(checkout / "dev"), "demo"], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "HASHES" in run.stderr
    assert not (checkout / ".venv/stamp").exists()


def test_the_lock_is_complete() -> None:
    """Every requirement of every installed package is met, so installing without resolving leaves nothing out."""
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert (check.returncode, check.stdout.strip()) == (0, "No broken requirements found.")
