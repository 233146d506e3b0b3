"""Valid and invalid configurations of MCP probes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from watchdog.probes.mcp import McpProbe

URL = "https://mcp.example/mcp"
OAUTH = {"client_id": "watchdog", "client_secret": "cl1ent-s3cret"}


def made(mcp: Any, **fields: Any) -> McpProbe:
    return McpProbe.model_validate({"name": "Search", "mcp": mcp, **fields})


def problems(mcp: Any, **fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        made(mcp, **fields)
    return str(caught.value)


def test_a_url_is_a_complete_configuration() -> None:
    probe = made(URL)
    assert (probe.mcp.url, probe.target, probe.network_endpoint) == (URL, URL, "mcp.example:443")


def test_a_target_is_safe_to_show() -> None:
    probe = made("https://user:pass@mcp.example/mcp?key=s3cret")
    assert probe.target == URL


def test_a_command_is_shown_without_its_secrets() -> None:
    probe = made({"command": ["python", "server.py", "--token=x"]})
    assert (probe.target, probe.network_endpoint) == ("python server.py --token=•••", "")


@pytest.mark.parametrize(
    "mcp",
    [
        {"url": URL, "oauth": OAUTH},
        {"sse": URL, "oauth": OAUTH | {"scope": "tools"}},
        {"url": URL, "oauth": OAUTH | {"token_url": "https://login.example/token"}},
        {"url": "http://localhost:8000/mcp", "oauth": OAUTH | {"token_url": "http://127.0.0.1:9000/token"}},
    ],
)
def test_credentials_whose_token_endpoint_the_server_names(mcp: dict[str, Any]) -> None:
    probe = made(mcp)
    assert probe.mcp.oauth is not None
    assert "cl1ent-s3cret" not in f"{probe!r}"
    assert "Authorization" not in probe.mcp.request_headers


def test_limits_of_tasks_are_milliseconds() -> None:
    probe = made({"url": URL, "tasks": {"sync": "15m", "*": "2h"}})
    assert probe.max_task_ages == {"sync": 900_000, "*": 7_200_000}


@pytest.mark.parametrize(
    ("mcp", "complaint"),
    [
        ({}, "expected exactly one of url, sse, command"),
        ({"url": URL, "command": ["x"]}, "expected exactly one of url, sse, command, found url and command"),
        ({"command": []}, "at least 1 item"),
        ({"url": "ftp://mcp.example"}, "starts with http:// or https://"),
        ({"url": URL, "env": {"A": "b"}}, "applies to command, not to url"),
        ({"sse": URL, "cwd": "/"}, "applies to command, not to sse"),
        ({"command": ["x"], "headers": {"A": "b"}}, "applies to url and sse, not to command"),
        ({"command": ["x"], "auth": {"bearer": "t"}}, "applies to url and sse, not to command"),
        ({"url": URL, "headers": {"Not a name": "b"}}, "not a valid header name"),
        (
            {"url": URL, "headers": {"Authorization": "b"}, "auth": {"bearer": "t"}},
            "`auth` and an `Authorization` header cannot be combined",
        ),
        ({"url": URL, "call": "off", "tasks": {"*": "1h"}}, "remove tasks or `call: off`"),
        ({"url": URL, "tasks": {"*": "often"}}, "expected a duration"),
        ({"url": URL, "drift": "sometimes"}, "Input should be 'breaking', 'any' or 'off'"),
        ({"url": URL, "tols": ["x"]}, "Extra inputs are not permitted"),
        ({"url": URL, "auth": {"bearer": "t"}, "oauth": OAUTH}, "`oauth` and `auth` cannot be combined"),
        ({"url": URL, "headers": {"AUTHORIZATION": "b"}, "oauth": OAUTH}, "`oauth` and an `Authorization` header"),
        ({"command": ["x"], "oauth": OAUTH}, "applies to url and sse, not to command"),
        ({"url": URL, "oauth": {"client_id": "w"}}, "Field required"),
        ({"url": URL, "oauth": OAUTH | {"token_url": "http://127.0.0.1/token"}}, "expected https://"),
        ({"sse": "http://mcp.example/", "oauth": OAUTH | {"token_url": "http://a.example/"}}, "expected https://"),
        ({"url": "http://[::1]/mcp", "oauth": OAUTH | {"token_url": "http://a.example/"}}, "expected https://"),
    ],
)
def test_invalid_configurations_are_refused(mcp: Any, complaint: str) -> None:
    assert complaint in problems(mcp)


@pytest.mark.parametrize(
    ("mcp", "expression", "complaint"),
    [
        ({"url": URL, "call": "off"}, "result.healthy", "result has no value, because no tool is called"),
        ({"url": URL}, "resource.rows > 1", "resource has no value, because no resource is read"),
        ({"url": URL}, "tool.size() > 1", "did you mean 'tools'?"),
        ({"url": URL}, "elapsed_ms", "not true or false"),
        ({"command": ["x"]}, "token_days > 7", "token_days has no value, because a command is sent no bearer token"),
    ],
)
def test_an_expression_without_a_value_is_refused(mcp: Any, expression: str, complaint: str) -> None:
    assert complaint in problems(mcp, expect=[expression])
    assert complaint in problems(mcp, prefer=[expression])


def test_a_call_is_a_tool_name_or_a_tool_with_arguments() -> None:
    assert made({"url": URL, "call": "ping"}).mcp.required_tools == ("ping",)
    probe = made({"url": URL, "tools": ["a"], "call": {"tool": "b", "arguments": {"n": 1}}})
    assert probe.mcp.required_tools == ("a", "b")
