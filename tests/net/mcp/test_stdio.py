"""An MCP server as a child process: each fault has its own reason, and no process outlives the run."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.support.mcp_probe_runs import McpProbeRunner, run_mcp_probe
from tests.support.polling import HANG_S
from tests.support.processes import processes_with
from watchdog.domain.model import Observation, Outcome
from watchdog.net import NetworkAccess

SERVER = Path(__file__).parents[2] / "support/mcp_servers" / "raw_stdio.py"
OURS = f"of-{os.getpid()}"
"""Distinguishes the servers of this worker from those of other workers."""


def command(error: str) -> dict[str, Any]:
    return {"command": [sys.executable, str(SERVER), error, OURS]}


def alive(error: str) -> list[int]:
    """Processes of a server that this process started, zombies aside."""
    return processes_with(str(SERVER), error, OURS)


BROKEN = {
    "exits": ("mcp.server_exited", "the server exited with code 1 while negotiating the protocol version"),
    "killed": (
        "mcp.server_exited",
        "the server was killed by signal 9 (Killed) while negotiating the protocol version",
    ),
    "leaves_at_call": ("mcp.server_exited", "the server exited with code 3 while calling the tool"),
    "mutes": ("mcp.output_closed", "the server closed its output but is still running while calling the tool"),
    "sdk_error_code": ("mcp.rpc_error", "tools/call returns error -32000: no database"),
    "wrong_id": ("mcp.unexpected_id", "the server replies to request '77', which was never sent"),
    "fails_with_a_holder": (
        "mcp.output_held",
        "the server exited with code 3, but a process that it started (python) keeps its output open",
    ),
    "leaves_a_holder": (
        "mcp.output_held",
        "the server exited with code 0, but a process that it started (python) keeps its output open",
    ),
    "flood": ("body.too_large", "the server sent more than 4 MiB, Watchdog's limit (max_body)"),
    "lines": (
        "mcp.output_not_mcp",
        f"the server wrote more than 1000 lines that are not MCP; the first is '{'x' * 59}…'",
    ),
}
HANGING = ("deaf", "hangs", "stubborn", "forks_and_hangs", "escapes_and_hangs", "notifies_forever")
WORKING = (
    "none",
    "forks",
    "escapes",
    "launches",
    "banner",
    "banner_in_line",
    "banner_with_braces",
    "banner_with_a_message",
    "byte_order_mark_after_banner",
    "byte_order_mark",
    "leaves",
    "ignores",
    "blocks_at_discovery",
    "bad_byte",
)
DEADLINE = 3.0
"""Timeout of a server that hangs, in seconds, from the phase on in which it does. The others get more."""


@dataclass(frozen=True)
class Ran:
    observation: Observation
    took: float
    left: list[int]
    """Processes that outlived the run."""


@pytest.fixture(scope="module", params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def runs(request: pytest.FixtureRequest) -> dict[str, Ran]:
    """Runs every server once, concurrently."""

    async def run_server(network: NetworkAccess, error: str) -> Ran:
        runner = McpProbeRunner(network)
        if error in HANGING:
            phase = "negotiate" if error == "deaf" else "call"
            observation = await runner.run_probe(command(error), timeout_s=DEADLINE, timeout_in_phase=phase)
        else:
            observation = await runner.run_probe(command(error), timeout_s=20)
        return Ran(observation, runner.duration_s, alive(error))

    async def all_of_them() -> dict[str, Ran]:
        names = [*BROKEN, *HANGING, *WORKING]
        async with NetworkAccess() as network:
            return dict(zip(names, await asyncio.gather(*(run_server(network, name) for name in names)), strict=True))

    ran: dict[str, Ran] = request.param(all_of_them())
    return ran


@pytest.mark.parametrize("error", [*BROKEN, *HANGING, *WORKING])
def test_no_process_outlives_the_run(runs: dict[str, Ran], error: str) -> None:
    assert runs[error].left == []


@pytest.mark.parametrize("error", BROKEN)
def test_a_fault_has_its_reason_before_the_deadline(runs: dict[str, Ran], error: str) -> None:
    observation = runs[error].observation
    outcome = Outcome.ERROR if error == "flood" else Outcome.FAIL  # a limit of Watchdog's
    assert (observation.outcome, observation.reason, observation.message) == (outcome, *BROKEN[error])


def test_standard_error_is_evidence(runs: dict[str, Ran]) -> None:
    evidence = runs["exits"].observation.evidence
    assert evidence.excerpt.strip() == "config.toml: no such file"
    assert evidence.facts["exit_code"] == 1


@pytest.mark.parametrize("error", HANGING)
def test_a_hang_ends_with_the_deadline(runs: dict[str, Ran], error: str) -> None:
    observation = runs[error].observation
    doing = "negotiating the protocol version" if error == "deaf" else "calling the tool"
    assert observation.message == f"timed out while {doing}"
    assert runs[error].took < HANG_S
    assert sum(observation.phases.values()) <= runs[error].took * 1000


@pytest.mark.parametrize("error", WORKING)
def test_a_server_that_works_passes(runs: dict[str, Ran], error: str) -> None:
    observation = runs[error].observation
    assert (observation.outcome, observation.reason) == (Outcome.PASS, "")
    assert list(observation.phases) == ["spawn", "negotiate", "list", "call"]
    assert observation.measurements["tools"] == 1


def test_other_lines_on_standard_output_are_evidence(runs: dict[str, Ran]) -> None:
    facts = runs["banner"].observation.evidence.facts
    assert (facts["non_mcp_line_count"], facts["first_non_mcp_line"]) == (1, "Server started on stdio")


def test_text_before_a_message_on_its_line_is_evidence(runs: dict[str, Ran]) -> None:
    facts = runs["banner_in_line"].observation.evidence.facts
    assert (facts["non_mcp_line_count"], facts["first_non_mcp_line"]) == (1, "Server {debug} started on stdio...")
    assert "non_mcp_line_count" not in runs["byte_order_mark"].observation.evidence.facts


@pytest.mark.parametrize("error", ["banner_with_braces", "banner_with_a_message", "byte_order_mark_after_banner"])
def test_no_banner_hides_the_first_message(runs: dict[str, Ran], error: str) -> None:
    """Whether it was read does not show in the outcome: the negotiation goes on after a request without a reply."""
    assert "error" not in runs[error].observation.evidence.facts["first_non_mcp_line"]


def test_an_invalid_byte_affects_one_character(runs: dict[str, Ran]) -> None:
    assert runs["bad_byte"].observation.evidence.excerpt == "caf\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("mcp", "reason", "message"),
    [
        ({"command": ["no-such-command"]}, "command.not_found", "command not found: no-such-command"),
        (
            {"command": [sys.executable], "cwd": "/nowhere"},
            "command.not_found",
            "working directory not found: /nowhere",
        ),
        ({"command": ["/etc/passwd"]}, "command.not_executable", "cannot start /etc/passwd: Permission denied"),
    ],
)
def test_a_command_that_cannot_be_started_is_an_error(mcp: dict[str, Any], reason: str, message: str) -> None:
    observation = asyncio.run(run_mcp_probe(mcp))
    assert (observation.outcome, observation.reason, observation.message, observation.duration) == (
        Outcome.ERROR,
        reason,
        message,
        None,
    )


def test_it_gets_its_configured_variables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    program = "import os, sys; sys.exit(' '.join(f'{k}={v}' for k, v in os.environ.items()))"
    mcp = {"command": [sys.executable, "-c", program], "env": {"MODE": "probe"}}
    excerpt = asyncio.run(run_mcp_probe(mcp)).evidence.excerpt
    assert "MODE=probe" in excerpt
    assert "PATH=" in excerpt
    assert "hunter2" not in excerpt


def test_it_starts_in_its_folder(tmp_path: Path) -> None:
    mcp = {"command": [sys.executable, "-c", "import os, sys; sys.exit(os.getcwd())"], "cwd": str(tmp_path)}
    assert asyncio.run(run_mcp_probe(mcp)).evidence.excerpt.strip() == os.path.realpath(tmp_path)


def test_a_run_that_is_cancelled_twice_leaves_nothing_behind() -> None:
    async def go() -> None:
        run = asyncio.create_task(run_mcp_probe(command("stubborn")))
        while not alive("stubborn"):  # noqa: ASYNC110 - a process has no event to wait for
            await asyncio.sleep(0.02)
        run.cancel()
        await asyncio.sleep(0.1)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(asyncio.wait_for(go(), HANG_S))
    assert alive("stubborn") == []
