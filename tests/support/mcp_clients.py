"""Watchdog's MCP server in this process, and clients of the current SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from watchdog.app import RunningWatchdogService, create_asgi_app, start_watchdog_service_and_stop_on_exit
from watchdog.config.load import load_config
from watchdog.server import WebServer, open_listen_socket

READER_KEY, OPERATOR_KEY = "read-me-0123456789", "operate-me-0123456789"
ACCESS_CONFIG = {
    "api_keys": [
        {"name": "grafana", "role": "reader", "key": READER_KEY},
        {"name": "ops", "role": "operator", "key": OPERATOR_KEY},
    ]
}
TASK_NAMES = [
    "claim",
    "record",
    "wake",
    "deliver",
    "end_silences",
    "end_pauses",
    "decide_muting",
    "remind_and_escalate",
    "plan_maintenance",
    "maintain",
    "report_faults",
    "renew_lease",
    "watch_store",
    "flush_check_ins",
    "check_database_file",
]
"""The background tasks of a service without a remediation."""
TOOL_NAMES = [
    "health_check",
    "list_service_findings",
    "trigger_task",
    "list_probes",
    "get_probe",
    "get_contract",
    "list_incidents",
    "get_incident",
    "run_probe",
    "acknowledge",
    "unacknowledge",
    "close_incident",
    "resend",
    "test_receiver",
    "silence",
    "silence_until_resolved",
    "unsilence",
    "pause_probe",
    "resume_probe",
    "forget_jobs",
    "accept_contract",
    "begin_maintenance",
    "end_maintenance",
]
ACTING_TOOL_NAMES = {
    "trigger_task",
    "run_probe",
    "acknowledge",
    "unacknowledge",
    "close_incident",
    "resend",
    "test_receiver",
    "silence",
    "silence_until_resolved",
    "unsilence",
    "pause_probe",
    "resume_probe",
    "forget_jobs",
    "accept_contract",
    "begin_maintenance",
    "end_maintenance",
}
PROTOCOL_VERSION_BY_MODE = {"legacy": "2025-11-25", "auto": "2026-07-28"}
"""Client mode -> the protocol version that it negotiates."""


@asynccontextmanager
async def running_watchdog(
    folder: Path, probes: list[dict[str, Any]], env: Mapping[str, str] | None = None, **more: Any
) -> AsyncIterator[tuple[RunningWatchdogService, str]]:
    """A running Watchdog, and the URL of its MCP endpoint."""
    with open_listen_socket("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        server = {"listen": f"127.0.0.1:{port}", "public_url": "https://status.example"}
        config = {"server": server, "storage": {"url": f"sqlite:///{folder}/watchdog.db"}, "probes": probes, **more}
        loaded = load_config(folder / "watchdog.yaml", json.dumps(config), dict(env or {}))
        async with start_watchdog_service_and_stop_on_exit(loaded) as app, WebServer(create_asgi_app(app), listening):
            yield app, f"http://127.0.0.1:{port}/mcp"


@asynccontextmanager
async def connected_client(url: str, key: str = "", mode: str = "auto") -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with (
        httpx2.AsyncClient(headers=headers, trust_env=False, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as talking,
    ):
        yield talking


async def call_tool(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured result of a tool. Fails if the result is an error."""
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    content: dict[str, Any] = answer.structured_content or {}
    return content


async def call_tool_error(client: Client, tool: str, **arguments: Any) -> str:
    """The error message of a tool."""
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error
    text: str = answer.content[0].text  # type: ignore[union-attr]
    return text.removeprefix(f"Error executing tool {tool}: ")
