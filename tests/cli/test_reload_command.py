"""`watchdog reload`: a command and a real process that it asks."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import invoke_command
from tests.support.ports import find_free_port
from tests.support.watchdog_process import WatchdogProcess, run_watchdog
from watchdog.cli.acts import build_cli_actor_from_os_user

KEY, OTHER_KEY = "operator-key-0123456789abcdef", "operator-key-fedcba9876543210"
PROBE = {"name": "A", "every": "1h", "http": "http://127.0.0.1:9/"}
NOTHING_APPLIED: dict[str, Any] = {
    "changes": {},
    "former_applied_at": None,
    "former_changes": {},
    "warnings": [],
}
RUNNING = "is `watchdog run` running on this machine, with this configuration?"


def make_config(port: int, *, key: str = KEY, **more: Any) -> dict[str, Any]:
    keys = [{"name": "wall", "role": "reader", "key": f"reader-{key}"}, {"name": "ops", "role": "operator", "key": key}]
    return {
        "server": {"listen": f"127.0.0.1:{port}"},
        "access": {"api_keys": keys},
        "probes": [PROBE],
        "receivers": {"oncall": {"log": {}}},
        "reload": "on_signal",
        **more,
    }


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "watchdog.yaml"
    file.write_text(json.dumps(make_config(find_free_port())))
    return file


@pytest.fixture
def process(config: Path) -> Iterator[WatchdogProcess]:
    with run_watchdog(config) as run:
        yield run


def change(config: Path, **more: Any) -> None:
    config.write_text(json.dumps(json.loads(config.read_text()) | more))


def test_the_service_reloads_and_its_audit_log_names_the_person(process: WatchdogProcess, config: Path) -> None:
    change(config, probes=[PROBE, PROBE | {"name": "B"}])
    ran = invoke_command("reload", "--comment", "B is new")
    in_use = "Reloaded: the configuration is valid and in use"
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, f"{in_use}. Changes: 1\xa0probe added.\n", "")
    again = invoke_command("reload")
    loaded_at = r"it was loaded at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    nothing = rf"{in_use}\. Nothing has changed since {loaded_at}, with these changes: 1\xa0probe added\.\n"
    assert re.fullmatch(nothing, again.stdout)
    change(config, routes=[{"match": {"group": "none"}, "receivers": ["oncall"]}])
    lines = invoke_command("reload").stdout.splitlines()
    assert lines[0] == f"{in_use}. Changes: 2\xa0probes rerouted, 1\xa0other section changed."
    assert any(line.startswith("warning: ") and "no route matches probe 'B'" in line for line in lines[1:])
    probes = process.get("api/v1/probes", authorization=f"Bearer {KEY}").json()["items"]
    assert {row["probe"] for row in probes} >= {"a", "b"}

    change(config, probes=[PROBE | {"name": "B", "evry": "1h"}])
    ran = invoke_command("reload")
    problem, conclusion = ran.stderr.splitlines()
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "watchdog.yaml:1:" in problem
    assert "probes.0.evry: unknown field 'evry'; did you mean 'every'?" in problem
    assert conclusion == (
        "watchdog: not reloaded: the configuration is invalid, so the former one stays in use; `watchdog validate` "
        "shows details"
    )
    ran = invoke_command("reload", "-o", "json")
    assert (ran.exit_code, ran.json) == (2, {"result": "invalid", "problems": [problem], **NOTHING_APPLIED})

    audit = process.get("api/v1/audit", authorization=f"Bearer {KEY}").json()["items"]
    by = f"ops for {build_cli_actor_from_os_user().name}"
    assert [(row["act"], row["by"], row["through"], row["comment"]) for row in audit] == [
        ("reload", by, "api", "invalid"),
        ("reload", by, "api", "invalid"),
        ("reload", by, "api", "applied"),
        ("reload", by, "api", "applied"),
        ("reload", by, "api", "applied: B is new"),
    ]
    assert process.stop() == 0
    ran = invoke_command("reload")
    url = f"http://{json.loads(config.read_text())['server']['listen']}"
    assert ran.exit_code == 3
    assert ran.stderr == f"watchdog: no response from {url}: connection refused; {RUNNING}\n"


def test_the_service_reloads_although_only_it_has_a_variable(config: Path) -> None:
    change(config, probes=[PROBE | {"http": "http://${HOST_OF_A}/"}])
    with run_watchdog(config, env={"HOST_OF_A": "127.0.0.1"}) as process:
        assert invoke_command("reload").exit_code == 0
        assert process.stop() == 0


def test_a_key_that_the_service_does_not_know_yet(process: WatchdogProcess, config: Path) -> None:
    listen = json.loads(config.read_text())["server"]["listen"]
    config.write_text(json.dumps(make_config(int(listen.rpartition(":")[2]), key=OTHER_KEY)))
    ran = invoke_command("reload")
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert ran.stderr == (
        f"watchdog: the service at http://{listen} refuses this: the API key of this configuration is not valid there; "
        "if `access.api_keys` has changed since the start, send SIGHUP to `watchdog run`\n"
    )
    assert process.stop() == 0


@pytest.mark.parametrize(
    ("sections", "code", "message"),
    [
        ({"server": {"listen": "127.0.0.1:0"}}, 2, "the port of the service is chosen at random: set a port in"),
        ({"server": {"lisen": ":1"}}, 2, "server.lisen: unknown field 'lisen'; did you mean 'listen'?"),
        ({"acces": {}}, 2, "acces: unknown section 'acces'; did you mean 'access'?"),
    ],
)
def test_an_unknown_service(tmp_path: Path, sections: dict[str, Any], code: int, message: str) -> None:
    (tmp_path / "watchdog.yaml").write_text(json.dumps(sections))
    ran = invoke_command("reload")
    assert (ran.exit_code, ran.stdout) == (code, "")
    assert message in ran.stderr


class ScriptedHandler(http.server.BaseHTTPRequestHandler):
    status, body = 200, b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.send_header("Location", "http://127.0.0.1:9/")
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def respond(tmp_path: Path) -> Iterator[Callable[[int, str], str]]:
    """Have another server respond so at the address of the service; returns its URL."""
    server = http.server.HTTPServer(("127.0.0.1", 0), ScriptedHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    (tmp_path / "watchdog.yaml").write_text(json.dumps({"server": {"listen": f"127.0.0.1:{server.server_port}"}}))

    def script(status: int, body: str) -> str:
        ScriptedHandler.status, ScriptedHandler.body = status, body.encode()
        return f"http://127.0.0.1:{server.server_port}"

    yield script
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, '{"result": "postponed", "problems": []}', "the configuration is applied later, because the database"),
        (200, "<html>", "the server at {url} is not Watchdog"),
        (200, "[]", "the server at {url} is not Watchdog"),
        (200, '{"result": "other"}', "the server at {url} is not Watchdog"),
        (404, "not found", "the server at {url} answered HTTP 404"),
        (302, "", "the server at {url} answered HTTP 302"),
        (200, "[" * 100_000, "the server at {url} is not Watchdog"),
        (200, '{"result": "invalid", "problems": 1}', "the server at {url} is not Watchdog"),
        (409, "[" * 100_000, "the server at {url} answered HTTP 409"),
        (
            409,
            '{"detail": "a\\u001b]0;x\\u0007\\nwatchdog: b"}',
            "the service at {url} refuses this: a�]0;x� watchdog: b\n",
        ),
        (409, '{"detail": "Restart it."}', "the service at {url} refuses this: Restart it."),
    ],
)
def test_another_answer(respond: Callable[[int, str], str], status: int, body: str, message: str) -> None:
    url = respond(status, body)
    ran = invoke_command("reload", env={"http_proxy": "http://127.0.0.1:9"})
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert ran.stderr.startswith(f"watchdog: {message.format(url=url)}")


@pytest.mark.parametrize("words", [[], ["-o", "json"]])
def test_another_server_cannot_control_the_terminal(respond: Callable[[int, str], str], words: list[str]) -> None:
    respond(200, json.dumps({"result": "invalid", "problems": ["a\x1b[2J\x9b1m\u202e", 7, "b\nwatchdog: c"]}))
    ran = invoke_command("reload", *words)
    assert ran.exit_code == 2
    assert not set("\x1b\x9b\u202e").intersection(ran.stdout + ran.stderr)
    if not words:
        assert ran.stderr.splitlines()[:3] == ["a�[2J�1m�", "7", "b watchdog: c"]
