"""`watchdog probe`: one run, its result, and an exit code that distinguishes a failure from no verdict."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import PROJECT_ROOT, invoke_command
from tests.support.fakes import FakeHttpTarget
from tests.support.ports import find_free_port

KEYS = {"probe", "kind", "outcome", "reason", "message", "phases_ms", "measurements", "evidence"}

Write = Callable[..., Path]


def http_probe(http: Any, **more: Any) -> dict[str, Any]:
    return {"name": "API", "http": http, "timeout": "10s", **more}


def test_one_object_on_standard_output(write: Write, target: FakeHttpTarget) -> None:
    write(probes=[http_probe(target.url)])
    ran = invoke_command("probe", "API", "-o", "json")
    result = ran.json
    assert result.keys() >= KEYS
    assert (ran.exit_code, result["probe"], result["kind"], result["outcome"]) == (0, "api", "http", "pass")
    assert (result["reason"], result["message"]) == ("", "")
    assert list(result["phases_ms"]) == ["connect", "first_byte", "body"]
    assert result["measurements"]["status"] == 200
    assert result["evidence"]["facts"]["status"] == 200


def test_a_failing_target(write: Write, target: FakeHttpTarget) -> None:
    write(probes=[http_probe(target.url)])
    target.up = False
    ran = invoke_command("probe", "api", "-o", "json")
    assert (ran.exit_code, ran.json["outcome"], ran.json["reason"]) == (1, "fail", "http.503")
    assert ran.json["message"] == "HTTP 503, expected 2xx"


def test_a_target_that_hangs_is_a_failure(write: Write, silent: str) -> None:
    write(probes=[http_probe(silent, timeout="3s")])
    ran = invoke_command("probe", "API", "-o", "json")
    assert (ran.exit_code, ran.json["outcome"], ran.json["reason"]) == (1, "fail", "timeout.first_byte")
    assert ran.json["message"] == "timed out after 3\N{NO-BREAK SPACE}s while waiting for the first byte"


def test_each_step_is_shown(write: Write, target: FakeHttpTarget) -> None:
    down = f"http://127.0.0.1:{find_free_port()}/cart"
    steps = [{"name": name, "http": url} for name, url in (("Log in", target.url), ("Cart", down), ("Buy", down))]
    write(probes=[{"name": "Checkout", "steps": steps, "timeout": "60s"}])
    ran = invoke_command("probe", "Checkout")
    text = re.sub(r" in [0-9.]+\N{NO-BREAK SPACE}m?s", "", ran.stdout)
    assert ran.exit_code == 1
    assert text.startswith("fail checkout (steps): step 2 (Cart): connection refused")
    assert "\nsteps\n  1. Log in  HTTP 200\n  2. Cart    no response\n  3. Buy     not run\nphases\n" in text
    assert "step_1" not in text
    assert invoke_command("probe", "Checkout", "-o", "json").json["measurements"]["failed_step"] == 2


def test_an_error_is_neither_pass_nor_fail(write: Write) -> None:
    write(probes=[{"name": "MCP", "mcp": {"command": ["no-such-command"]}}])
    ran = invoke_command("probe", "MCP", "-o", "json")
    assert (ran.exit_code, ran.json["outcome"], ran.json["reason"]) == (3, "error", "command.not_found")


def test_an_unmet_preference_is_shown_and_passes(write: Write, target: FakeHttpTarget) -> None:
    write(probes=[http_probe(target.url, prefer=["status == 204"])])
    ran = invoke_command("probe", "API")
    assert ran.exit_code == 0
    assert "preference: HTTP 200, expected 204" in ran.stdout


@pytest.mark.parametrize(
    ("fault", "code", "outcome", "reason", "message"),
    [
        ("none", 0, "pass", "", ""),
        ("stale", 1, "fail", "task.stale", "task registry_sync is stale: last run .*UTC, limit 15 min"),
        ("is_error", 1, "fail", "task.failed", "task registry_sync failed: upstream returned 502"),
    ],
)
def test_a_scheduled_task_with_a_problem_fails_the_probe(
    write: Write, fault: str, code: int, outcome: str, reason: str, message: str
) -> None:
    command = [sys.executable, str(PROJECT_ROOT / "tests/support/mcp_servers" / "sample.py"), fault, "stdio"]
    mcp = {"command": command, "tools": ["search"], "tasks": {"registry_sync": "15m", "*": "2h"}}
    write(probes=[{"name": "MCP", "mcp": mcp, "timeout": "60s"}])
    ran = invoke_command("probe", "MCP", "-o", "json")
    result = ran.json
    assert (ran.exit_code, result["outcome"], result["reason"]) == (code, outcome, reason)
    assert re.fullmatch(message, result["message"].replace("\N{NO-BREAK SPACE}", " "))
    assert result["measurements"]["tools"] == 2
    assert result["phases_ms"].keys() >= {"list", "call"}
    assert result["listings"]["task"]["registry_sync"]["ok"] is (fault != "is_error")


def test_the_text_output_is_not_wrapped_in_a_pipe(write: Write, target: FakeHttpTarget) -> None:
    target.up = False
    write(probes=[http_probe(target.url, name="API :warning: [b]", expect=[f"body == '{'x' * 120} :warning: [b]'"])])
    ran = invoke_command("probe", "API :warning: [b]")
    first = ran.stdout.splitlines()[0]
    start = "fail api-warning-b (http): HTTP 503, expected 2xx; body is "
    assert first.startswith(start)
    assert f", expected '{'x' * 120} :warning: [b]'" in first
    assert "reason: http.503" in ran.stdout
    assert "response excerpt (untrusted):" in ran.stdout
    assert "\x1b" not in ran.stdout


def test_no_secret_is_printed(write: Write, target: FakeHttpTarget) -> None:
    secret = "s3cr3t-in-the-url"
    write(probes=[http_probe(f"{target.url}?key=${{KEY}}", expect=["status == 204 || headers['x'] == '${KEY}'"])])
    for output in ("table", "json"):
        ran = invoke_command("probe", "API", "-o", output, env={"KEY": secret})
        assert ran.exit_code == 1
        assert secret not in ran.output
        assert "•••" in ran.output


def test_nothing_is_stored(write: Write, tmp_path: Path, target: FakeHttpTarget) -> None:
    write(probes=[http_probe(target.url)])
    invoke_command("probe", "API")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["watchdog.yaml"]


def test_a_heartbeat_cannot_be_run(write: Write) -> None:
    write(probes=[{"name": "Backup", "heartbeat": {"token": "abcdefghij0123456789", "every": "1h"}}])
    ran = invoke_command("probe", "Backup")
    assert (ran.exit_code, ran.stderr) == (
        2,
        "watchdog: Backup cannot be run on demand, because its job checks in at the running service;"
        " look at its status instead\n",
    )
