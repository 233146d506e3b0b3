"""Names and messages that others write run no command when a shell completes or runs a command."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command_line import run_completion, subprocess_env
from tests.support.fixture_rows import FixtureRows
from watchdog.domain.formatting import HOUR_MS
from watchdog.resources import find_resource_folder
from watchdog.service.clock import read_wall_clock_ms
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema

Write = Callable[..., Path]
HOSTILE_TEXTS = (
    r"\$(touch pwned)",
    r"\`touch pwned\`",
    r"\") ; touch pwned ; (",
    r"\\\" ; touch pwned ; \"",
    "'; touch pwned; '",
    "')); touch pwned; (('",
    "$(touch pwned) `touch pwned`",
    "x\n))'; touch pwned; '((",
    "[/b] [red]x[/red] [link=x",
    "a!b ~root {a,b} * ? # <(touch pwned) & touch pwned | touch pwned > pwned",
)
OFFERED_BY_ZSH = re.compile(r"""_arguments '\*: :\(\(("[\w .,/+@…-]+"(:"[\w .,/+@…-]+")?\n?)+\)\)'\n""")
ZSH_ARGUMENTS = r"""
set -f
_arguments() { action=${1#"*: :"}; action=${action#??}; action=${action%??}; eval "ws=( $action )"; }
eval $1
printf '%s\n' "${ws[@]}"
"""
"""What zsh does with the code of a completion, and how its `_arguments` reads the words: by another `eval`."""


def store_incidents(write: Write, messages: tuple[str, ...], name: str = "API") -> None:
    write(probes=[{"name": "API", "http": "http://127.0.0.1:9/"}])
    rows, now = FixtureRows(), read_wall_clock_ms()
    probe = rows.add_probe(name)
    for number, message in enumerate(messages):
        rows.add_incident(probe, "availability", message, now - HOUR_MS, subject=f"{number}")
    database = Database("sqlite:///watchdog.db")
    upgrade_schema(database, find_resource_folder("migrations"))
    with database.open_write_transaction() as connection:
        rows.insert_into(connection)
    database.close()


@pytest.mark.parametrize("command", ["ack", "incidents", "silence --incident"])
def test_zsh_evaluates_no_message_of_a_target(write: Write, tmp_path: Path, command: str) -> None:
    store_incidents(write, HOSTILE_TEXTS)
    code = run_completion("zsh", f"watchdog {command} 0")
    assert OFFERED_BY_ZSH.fullmatch(code), code
    shell = ["bash", "-c", ZSH_ARGUMENTS, "bash", code]
    ran = subprocess.run(shell, check=True, cwd=tmp_path, env=subprocess_env(), capture_output=True, text=True)
    offered = ran.stdout.splitlines()
    assert len(offered) == len(HOSTILE_TEXTS)
    assert all(re.match(r"[0-9a-f]{24}:API, ", line) for line in offered), offered
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_no_shell_is_given_characters_that_it_interprets(write: Write, shell: str) -> None:
    store_incidents(write, HOSTILE_TEXTS, r"API \$(touch pwned)[/b]")
    env = {"_TYPER_COMPLETE_FISH_ACTION": "get-args", "_TYPER_COMPLETE_WORD_TO_COMPLETE": "0"}
    offered = run_completion(shell, "watchdog ack 0", env)
    assert len(re.findall(r"\b0[0-9a-f]{23}\b", offered)) == len(HOSTILE_TEXTS)
    framed = offered.removeprefix("_arguments '*: :((").removesuffix("))'\n").replace('":"', " ").replace(":::", " ")
    framed = re.sub('^"|"$', "", framed, flags=re.MULTILINE)
    assert re.fullmatch(r"[\w .,/+@…\n\t-]+", framed), framed


def test_a_message_is_described_on_one_line_of_limited_length(write: Write) -> None:
    store_incidents(write, ("HTTP 503 (expected 200): 'no\n  backend' " + "x" * 200,))
    (line,) = run_completion("fish", "watchdog ack 0", {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}).splitlines()
    id, _, text = line.partition("\t")
    assert (id, len(text)) == (f"{1:024x}", 80)
    assert text.startswith("API, HTTP 503 expected 200 no backend xxx")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_names_that_a_shell_would_interpret_are_not_offered(write: Write, shell: str) -> None:
    """Their ids are."""
    hostile = [*(" ".join(text.split()) for text in HOSTILE_TEXTS), "x --all", "-x", "~root", "x #y"]
    names = ["API gateway", "Übersicht 2", *hostile]
    write(probes=[{"name": name, "id": f"p{i}", "http": "http://127.0.0.1:9/"} for i, name in enumerate(names)])
    offered = run_completion(shell, "watchdog probe ")
    words = offered.removeprefix("_arguments '*: :((").removesuffix("))'\n").replace('"', "").splitlines()
    assert sorted(words) == sorted([*names[:2], *(f"p{i}" for i in range(len(names)))])
