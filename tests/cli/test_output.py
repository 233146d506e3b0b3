"""Output to terminals without UTF-8, and to full disks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command_line import WATCHDOG_COMMAND, subprocess_env

Write = Callable[..., Path]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_without_utf_8_gets_replacement_characters(write: Write, encoding: str) -> None:
    probes = [{"name": f"P{i}", "http": "http://127.0.0.1:1/"} for i in range(2)]
    code, output = validate(write(probes=probes), encoding)
    assert (code, output.replace("\xa0", " ")[:25]) == (0, "ok: 2 probes, 0 receivers")
    code, output = validate(write(probes=[{"name": "\N{SNOWMAN}\u202f", "http": "x"}]), encoding)
    assert code == 2
    assert "Traceback" not in output


def validate(config: Path, encoding: str) -> tuple[int, str]:
    env = subprocess_env({"PYTHONIOENCODING": encoding})
    command = [*WATCHDOG_COMMAND, "validate", "-c", str(config)]
    ran = subprocess.run(
        command, check=False, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding=encoding
    )
    return ran.returncode, ran.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("words", [["schema"], ["version"]], ids=str)
def test_a_full_disk_is_one_line(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [*WATCHDOG_COMMAND, *words],
            check=False,
            env=subprocess_env(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (ran.returncode, ran.stderr) == (3, "watchdog: cannot write the output: No space left on device\n")
