"""A fault of an MCP server, on real sockets and child processes, and what Watchdog has to report about it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tests.support.mcp_servers.raw_http import RawMcpResponse, running_raw_server
from tests.support.probe_runs import run_probe
from watchdog.domain.model import Finding, Outcome, ResultToRecord
from watchdog.domain.rules import derive_findings_from_result
from watchdog.probes.mcp import McpProbe
from watchdog.service.registration import build_registered_probe

Setup: TypeAlias = Callable[[Path], AbstractAsyncContextManager[dict[str, Any]]]
"""Starts the target in a folder for files. Yields the `mcp` settings of the probe."""
STDIO_SERVER = Path(__file__).parents[1] / "support/mcp_servers/raw_stdio.py"


@dataclass(frozen=True)
class McpFault:
    """One row of a table."""

    name: str
    setup: Setup
    reason: str
    facts: tuple[str, ...]
    """Parts of the message: what was observed, by name."""
    outcome: Outcome = Outcome.FAIL
    rule: str = "availability"
    """Whose finding it is."""
    evidence: tuple[str, ...] = ()
    """Parts of the evidence."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further `mcp` settings."""
    expect: tuple[str, ...] = ()
    timeout: str = "10s"
    shares_remedy_with: str = ""
    """The row that has the same reason, because the same has to be done about it."""


@dataclass(frozen=True)
class Judged:
    """A run, and the problems that the rules find in it."""

    recorded: ResultToRecord
    problems: tuple[Finding, ...]


# --- targets


def command(*argv: str) -> Setup:
    @asynccontextmanager
    async def setup(_: Path) -> AsyncIterator[dict[str, Any]]:
        yield {"command": list(argv)}

    return setup


def stdio(fault: str) -> Setup:
    return command(sys.executable, str(STDIO_SERVER), fault, f"of-{os.getpid()}")


def http(
    responses: Mapping[str, RawMcpResponse | Sequence[RawMcpResponse]] | None = None,
    *,
    configured: str = "url",
    **server: Any,
) -> Setup:
    """A server of streamable HTTP. `configured`: the option that names its URL."""

    @asynccontextmanager
    async def setup(_: Path) -> AsyncIterator[dict[str, Any]]:
        async with running_raw_server(responses, **server) as raw:
            yield {configured: raw.url}

    return setup


def health_check(report: Mapping[str, Any], *, is_error: bool = False) -> Setup:
    """A server whose health check reports this."""
    return http(result={"content": [], "structuredContent": dict(report), "isError": is_error})


# --- runs


async def run_fault(fault: McpFault, folder: Path) -> tuple[Judged, Judged]:
    """The target and a healthy server of the same transport, judged at the same time."""
    async with fault.setup(folder) as mcp, (stdio("none") if "command" in mcp else http())(folder) as neighbour:
        return await asyncio.gather(
            _judge(mcp={**mcp, **fault.settings}, expect=fault.expect, timeout=fault.timeout),
            _judge(mcp=neighbour, timeout="20s"),
        )


async def _judge(**fields: Any) -> Judged:
    probe = McpProbe.model_validate({"name": "Target", **fields})
    recorded = await run_probe(probe)
    findings = derive_findings_from_result(build_registered_probe(probe, "").policy, recorded.result)
    return Judged(recorded, tuple(finding for finding in findings if finding.bad))
