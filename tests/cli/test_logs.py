"""Logs: on standard error, one JSON object per line unless it is a terminal, and no secret in any of them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.support.command_line import subprocess_env

SECRET = 'hush "hush" /+hush'
LOGGING_PROGRAM = """
import asyncio, logging, sys, warnings
from urllib.parse import quote
import structlog
from watchdog.cli.logs import configure_logging
from watchdog.net import SecretMask

secret = sys.argv[1]
configure_logging(SecretMask([secret]), quiet="quiet" in sys.argv)

class Holder:
    def __repr__(self):
        return f"Holder({secret})"

log, plain = structlog.get_logger(), logging.getLogger("some.package")
log.info("sent", reason=secret, url=f"https://x/?key={quote(secret)}", deep={"a": [secret, {secret: 1}]})
log.warning(f"in the event {secret}", holder=Holder(), raw=secret.encode(), holders=[Holder()], e=ValueError(secret))
plain.warning("of a library: %s %r", secret, Holder())
try:
    try:
        raise ValueError(secret)
    except ValueError as e:
        raise RuntimeError(f"while handling {secret}") from e
except RuntimeError:
    log.exception("internal")
    plain.exception("internal, of a library")
plain.info("not shown")
warnings.warn("not shown, for developers")
log.error("the last line")

async def forgotten():
    async def failing():
        raise ValueError(secret)
    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
asyncio.run(forgotten())
"""
HIDDEN = ("hush", "aHVza")


def log_lines(folder: Path, *words: str) -> list[str]:
    command = [sys.executable, "-c", LOGGING_PROGRAM, SECRET, *words]
    ran = subprocess.run(command, check=True, cwd=folder, env=subprocess_env(), capture_output=True, text=True)
    assert ran.stdout == "", "logs never go to standard output"
    return ran.stderr.splitlines()


def test_a_pipe_gets_one_json_object_per_line_without_secrets(tmp_path: Path) -> None:
    lines = log_lines(tmp_path)
    events = [json.loads(line) for line in lines]
    assert [event["level"] for event in events] == ["info", "warning", "warning", "error", "error", "error", "error"]
    assert all(event["timestamp"].endswith("Z") for event in events)
    assert "while handling •••" in events[3]["exception"]
    assert "while handling •••" in events[4]["exception"]
    assert "Task exception was never retrieved" in events[6]["event"]
    assert not [line for line in lines for hidden in HIDDEN if hidden in line]


def test_quiet_logs_only_internal_errors(tmp_path: Path) -> None:
    events = [json.loads(line) for line in log_lines(tmp_path, "quiet")]
    assert {event["level"] for event in events} == {"error"}


def test_a_terminal_gets_readable_lines_without_secrets(tmp_path: Path) -> None:
    terminal, child_terminal = pty.openpty()
    command = [sys.executable, "-c", LOGGING_PROGRAM, SECRET]
    env = subprocess_env({"NO_COLOR": "1", "TERM": "xterm"})
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=child_terminal) as process:
        os.close(child_terminal)
        output = b""
        while part := _read(terminal):
            output += part
    os.close(terminal)
    assert process.returncode == 0
    text = output.decode()
    assert "the last line" in text
    assert "while handling •••" in text
    assert not [hidden for hidden in HIDDEN if hidden in text]
    assert "\x1b" not in text, "NO_COLOR is honoured"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other side is closed
        return b""
