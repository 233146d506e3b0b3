"""Commands that check something: plugins of the Monitoring Plugins project, and scripts of every kind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pydantic import ValidationError

from tests.support.monitoring_plugins import find_monitoring_plugins
from tests.support.polling import wait_until, wait_until_async
from tests.support.ports import find_free_port
from tests.support.postgres import PostgresServer, find_postgres
from tests.support.probe_runs import EMPTY_MASK, run_probe
from tests.support.processes import child_pids, processes_with
from tests.support.scripted_servers import count_open_descriptors
from watchdog.config.load import load_config
from watchdog.domain.model import HealthState, Outcome, ResultToRecord
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE, derive_findings_from_result
from watchdog.net import SecretMask, command_run
from watchdog.probes import CommandProbe
from watchdog.service.registration import build_registered_probe

NBSP = "\N{NO-BREAK SPACE}"
Runner = Callable[[Coroutine[Any, Any, ResultToRecord]], ResultToRecord]


def command_probe(
    run: Sequence[str], expect: Sequence[str] = (), prefer: Sequence[str] = (), timeout: str = "1m", **command: Any
) -> CommandProbe:
    fields = {"name": "Check", "command": {"run": run, **command}, "expect": expect, "prefer": prefer}
    return CommandProbe.model_validate({**fields, "timeout": timeout})


def run_check(
    run: Sequence[str],
    expect: Sequence[str] = (),
    prefer: Sequence[str] = (),
    runner: Runner = asyncio.run,
    mask: SecretMask = EMPTY_MASK,
    **options: Any,
) -> ResultToRecord:
    return runner(run_probe(command_probe(run, expect, prefer, **options), mask=mask))


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", program, *arguments]


def brief(recorded: ResultToRecord) -> tuple[Outcome, str, str]:
    return recorded.result.outcome, recorded.result.reason, recorded.result.message


@pytest.fixture(scope="module", autouse=True)
def uvloop_in_use() -> None:
    """With its first loop, libuv opens descriptors that stay open."""
    uvloop.run(asyncio.sleep(0))


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """No test leaves a process or a descriptor, however its run ends."""
    descriptors, children = count_open_descriptors(), child_pids()
    yield
    wait_until(lambda: child_pids() <= children)
    wait_until(lambda: count_open_descriptors() <= descriptors)


# --- programs of other projects


@pytest.fixture(scope="module")
def plugins() -> Path:
    folder = find_monitoring_plugins()
    if folder is None:
        pytest.skip("monitoring plugins are missing: apt install monitoring-plugins-basic")
    return folder


@pytest.mark.parametrize(
    ("plugin", "measurement"),
    [
        ("check_load -w 9999,9999,9999 -c 9999,9999,9999", "load5"),
        ("check_disk -w 1 -c 1 -u bytes -p /", "/"),
        ("check_procs -w 1:999999 -c 1:999999", "procs"),
        ("check_users -w 9999 -c 9999", "users"),
    ],
)
def test_a_plugin_that_is_content(plugins: Path, plugin: str, measurement: str) -> None:
    name, *arguments = plugin.split()
    recorded = run_check([str(plugins / name), *arguments], (f"measurements['{measurement}'] >= 0",))
    assert brief(recorded) == (Outcome.PASS, "", "")
    assert recorded.result.measurements[f"measurements.{measurement}"] >= 0  # type: ignore[operator] # it is a number
    assert " OK" in recorded.evidence.excerpt
    assert list(recorded.result.phases) == ["spawn", "run"]


@pytest.mark.parametrize(
    ("state", "outcome", "reason", "message"),
    [
        ("0", Outcome.PASS, "", ""),
        ("1", Outcome.PASS, "", ""),
        ("2", Outcome.FAIL, "command.critical", "exit code 2 (critical): CRITICAL: the disk is full"),
        ("3", Outcome.ERROR, "command.unknown", "exit code 3 (unknown): UNKNOWN: the disk is full"),
    ],
)
def test_the_states_of_a_plugin(plugins: Path, state: str, outcome: Outcome, reason: str, message: str) -> None:
    recorded = run_check([str(plugins / "check_dummy"), state, "the disk is full"])
    assert brief(recorded) == (outcome, reason, message)
    assert recorded.evidence.facts["exit_code"] == int(state)


def test_a_warning_of_a_plugin_degrades_the_probe(plugins: Path) -> None:
    recorded = run_check([str(plugins / "check_dummy"), "1", "the disk is filling up"], prefer=["elapsed_ms < 60000"])
    probe = command_probe(["check_dummy"])
    [finding] = (
        finding
        for finding in derive_findings_from_result(build_registered_probe(probe, "").policy, recorded.result)
        if finding.bad
    )
    message = "exit code 1 (warning): WARNING: the disk is filling up"
    assert (finding.subject, finding.reason, finding.message) == ("exit_code != 1", "command.warning", message)
    assert INCIDENT_HEALTH_STATE_BY_RULE[finding.rule] is HealthState.DEGRADED
    assert set(recorded.result.listings["preference"].subjects) == {"exit_code != 1", "elapsed_ms < 60000"}
    recovered = run_check([str(plugins / "check_dummy"), "0"])
    assert recovered.result.listings["preference"].subjects["exit_code != 1"].problem == ""


def test_a_plugin_with_wrong_arguments_gives_no_verdict(plugins: Path) -> None:
    result = run_check([str(plugins / "check_load"), "--no-such-option"]).result
    assert (result.outcome, result.reason) == (Outcome.ERROR, "command.unknown")


def test_a_plugin_that_reaches_no_server(plugins: Path) -> None:
    result = run_check([str(plugins / "check_tcp"), "-H", "127.0.0.1", "-p", str(find_free_port())]).result
    assert (result.outcome, result.reason) == (Outcome.FAIL, "command.critical")
    assert "Connection refused" in result.message


def test_a_program_of_postgres(postgres: PostgresServer) -> None:
    """Its exit codes have other meanings, which an expectation states."""
    binaries = find_postgres()
    assert binaries is not None
    command = [str(binaries / "bin/pg_isready"), "-h", "127.0.0.1", "-p"]
    expect = ("exit_code == 0",)
    accepting = run_check([*command, str(postgres.port)], (*expect, "output.endsWith('accepting connections')"))
    assert brief(accepting) == (Outcome.PASS, "", "")
    gone = run_check([*command, str(find_free_port())], expect)
    assert brief(gone) == (Outcome.FAIL, "expectation.failed", "exit code 2, expected 0")


# --- exit codes and output


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_both_streams_are_evidence(runner: Runner) -> None:
    recorded = run_check(shell("echo first; echo 'no disk' >/dev/stderr; echo second; exit 2"), runner=runner)
    assert brief(recorded) == (Outcome.FAIL, "command.critical", "exit code 2 (critical): first")
    assert recorded.evidence.excerpt == "first\nsecond\n\nstandard error:\nno disk"


@pytest.mark.parametrize(
    ("script", "outcome", "reason", "message"),
    [
        ("exit 0", Outcome.PASS, "", ""),
        ("exit 2", Outcome.FAIL, "command.critical", "exit code 2 (critical): no output"),
        ("echo; exit 4", Outcome.FAIL, "command.failed", "exit code 4: no output"),
        ("no-such-program", Outcome.FAIL, "command.failed", "exit code 127: sh: 1: no-such-program: not found"),
        ("kill -9 $$", Outcome.FAIL, "command.killed", "the command was killed by signal 9 (Killed)"),
        ("kill -SEGV $$", Outcome.FAIL, "command.killed", "the command was killed by signal 11 (Segmentation fault)"),
        ("printf 'lag 5 | lag=5'; exit 2", Outcome.FAIL, "command.critical", "exit code 2 (critical): lag 5"),
    ],
)
def test_how_a_command_ends(script: str, outcome: Outcome, reason: str, message: str) -> None:
    result = run_check(shell(script)).result
    assert (result.outcome, result.reason) == (outcome, reason)
    assert result.message == message


def test_an_exception_of_a_script_is_named() -> None:
    recorded = run_check(python("raise ValueError('no such replica')"))
    problem = recorded.result.listings["preference"].subjects["exit_code != 1"].problem
    assert problem == "exit code 1 (warning): ValueError: no such replica"
    failed = run_check(python("raise ValueError('no such replica')"), ("exit_code == 0",))
    assert brief(failed) == (Outcome.FAIL, "expectation.failed", "exit code 1, expected 0")
    assert failed.result.listings == {}
    assert "ValueError: no such replica" in failed.evidence.excerpt


def test_an_expectation_about_the_exit_code_decides_about_it() -> None:
    assert run_check(shell("exit 2"), ("exit_code in [0, 2]",)).result.outcome is Outcome.PASS
    assert run_check(shell("exit 3"), ("exit_code == 0",)).result.outcome is Outcome.FAIL
    assert run_check(shell("exit 1"), ("exit_code < 2",)).result.listings == {}
    assert run_check(shell("kill -9 $$"), ("exit_code == 137",)).result.reason == "command.killed"


def test_what_a_command_reports_as_json() -> None:
    report = {"ok": False, "message": "40 s\nbehind", "measurements": {"lag_s": 40, "on": True, "text": "x"}}
    recorded = run_check(["echo", json.dumps(report)], ("measurements.lag_s < 30",))
    message = "40 s behind; measurements.lag_s is 40, expected < 30"
    assert brief(recorded) == (Outcome.FAIL, "command.reported_failure", message)
    assert recorded.result.measurements == {"measurements.lag_s": 40}
    ignored = run_check(["echo", json.dumps(report)], ("!json.ok", "json.measurements.text == 'x'"))
    assert brief(ignored) == (Outcome.PASS, "", "")


@pytest.mark.parametrize(
    ("output", "reason", "message"),
    [
        ('{"ok": true}', "", ""),
        ('{"ok": null}', "", ""),
        ('{"status": "fine"}', "", ""),
        ('{"ok": false}', "command.reported_failure", "the command reports ok: false"),
        (
            '{"ok": "false"}',
            "command.result_invalid",
            "`ok` in the JSON of the command is neither true nor false: 'false'",
        ),
        ('{"ok": 0}', "command.result_invalid", "`ok` in the JSON of the command is neither true nor false: 0"),
        ('{"ok": fals', "", ""),
        ("[false]", "", ""),
    ],
)
def test_ok_in_json(output: str, reason: str, message: str) -> None:
    result = run_check(["echo", output]).result
    assert (result.reason, result.message) == (reason, message)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("all fine", "the output is not JSON: Expecting value at line 1, column 1"),
        ('{"ok": true', "the output is not JSON: it is empty, or has no end"),
        ("[" * 30_000, "the output is not JSON: it is nested too deeply"),
    ],
)
def test_json_that_is_none(output: str, message: str) -> None:
    result = run_check(["echo", output], ("json.ok",)).result
    assert (result.outcome, result.reason, result.message) == (Outcome.FAIL, "command.output_not_json", message)
    assert run_check(["echo", output]).result.outcome is Outcome.PASS


def test_the_exit_code_counts_beside_ok() -> None:
    assert run_check(shell("echo '{\"ok\": true}'; exit 2")).result.reason == "command.critical"


def test_secrets_are_masked() -> None:
    mask = SecretMask(["s3cret-0123"])
    script = 'echo "the password is $TOKEN"; echo "$TOKEN" >&2; exit 2'
    recorded = run_check(shell(script), mask=mask, env={"TOKEN": "s3cret-0123"})
    assert "s3cret" not in repr(recorded)
    assert recorded.result.message == "exit code 2 (critical): the password is •••"


# --- limits


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_at_the_deadline_every_process_is_killed(runner: Runner, tmp_path: Path) -> None:
    """Also those that have detached themselves."""
    mark = str(tmp_path)
    sleep = f"import time; time.sleep(600)  # {mark}"
    script = f"echo started; setsid {sys.executable} -c '{sleep}' {mark} & {sys.executable} -c '{sleep}' {mark}"
    recorded = run_check(shell(script), timeout="3s", runner=runner)
    message = f"timed out after 3{NBSP}s while running the command"
    assert brief(recorded) == (Outcome.FAIL, "timeout.command", message)
    assert recorded.evidence.excerpt == "started"
    assert processes_with(mark) == []


def test_a_run_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    mark = str(tmp_path)

    async def cancel_once_it_runs() -> None:
        run = asyncio.create_task(run_probe(command_probe(python("import time; time.sleep(600)", mark))))
        await wait_until_async(lambda: processes_with(mark))
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert processes_with(mark) == []

    asyncio.run(cancel_once_it_runs())


def test_what_a_command_leaves_behind_is_killed_and_named(tmp_path: Path) -> None:
    mark = str(tmp_path)
    script = f"{sys.executable} -c 'import time; time.sleep(600)' {mark} & echo done"
    recorded = run_check(shell(script))
    assert brief(recorded) == (Outcome.PASS, "", "")
    [process] = recorded.evidence.facts["left_processes"]
    assert process.startswith(("python", "sh"))
    assert recorded.evidence.excerpt == "done"
    assert processes_with(mark) == []


def test_a_command_that_ignores_signals_is_killed(tmp_path: Path) -> None:
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    )
    assert run_check(python(program, str(tmp_path)), timeout="3s").result.reason == "timeout.command"
    assert processes_with(str(tmp_path)) == []


def test_a_first_line_that_does_not_come_in_time(tmp_path: Path) -> None:
    script = f"printf 'no line'; {sys.executable} -c 'import time; time.sleep(600)' {tmp_path}"
    recorded = run_check(shell(script), ready_within="500ms")
    message = f"the command wrote no line within 500{NBSP}ms"
    assert brief(recorded) == (Outcome.FAIL, "command.not_ready", message)
    assert recorded.evidence.excerpt == "no line"
    assert processes_with(str(tmp_path)) == []


def test_a_command_that_is_ready_has_until_the_deadline() -> None:
    recorded = run_check(shell("echo ready; sleep 1; echo done"), ("output == 'ready\\ndone'",), ready_within="900ms")
    assert brief(recorded) == (Outcome.PASS, "", "")


@pytest.mark.parametrize(("script", "reason"), [("exit 0", ""), ("exit 2", "command.critical")])
def test_a_command_that_ends_before_its_first_line_is_judged_by_its_end(script: str, reason: str) -> None:
    assert run_check(shell(script), ready_within="30s").result.reason == reason


def test_output_beyond_the_limit_is_discarded() -> None:
    script = "head -c 3000000 /dev/zero | tr '\\0' x; head -c 99000 /dev/zero | tr '\\0' y >&2; echo ' the end' >&2"
    recorded = run_check(shell(script), ("output.startsWith('xx')",), max_output="4KiB")
    assert brief(recorded) == (Outcome.PASS, "", "")
    facts = recorded.evidence.facts
    assert (facts["output_bytes"], facts["output_cut_after_bytes"]) == (3_000_000, 4096)
    assert facts["standard_error_bytes"] == 99_009
    assert recorded.evidence.excerpt.endswith("standard error:\n… the end")


def test_no_half_of_a_secret_is_evidence() -> None:
    mask = SecretMask(["s3cret-0123456789"])
    program = "import sys; text = 'x ' * 1000 + 's3cret-0123456789 ' * 200; print(text); print(text, file=sys.stderr)"
    for max_output in ("64KiB", "2KiB"):
        excerpt = run_check(python(program), mask=mask, max_output=max_output).evidence.excerpt
        assert "standard error" in excerpt
        assert not {"s3", "3cret", "9 "} & {part for part in ("s3", "3cret", "9 ") if part in excerpt}


@pytest.mark.parametrize("expression", ["output.endsWith('x')", "json == null"])
def test_an_expression_that_depends_on_the_discarded_output_gives_no_verdict(expression: str) -> None:
    recorded = run_check(shell("head -c 70000 /dev/zero | tr '\\0' x"), (expression,))
    message = "an expression cannot be evaluated: the output is longer than 64KiB (max_output)"
    assert brief(recorded) == (Outcome.ERROR, "command.output_cut", message)


def test_a_command_that_writes_without_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_run, "MAX_COMMAND_OUTPUT_READ_BYTES", 4 << 20)
    recorded = run_check(["yes"])
    assert brief(recorded) == (Outcome.FAIL, "command.too_much_output", "the command wrote more than 4 MiB")
    assert recorded.evidence.facts["output_bytes"] < 5 << 20
    assert run_check(shell("yes >&2")).result.reason == "command.too_much_output"
    assert run_check(["cat", "/dev/zero"], ready_within="9s").result.reason == "command.too_much_output"


def test_a_large_output_is_judged_outside_the_event_loop() -> None:
    script = "printf '{\"ok\": false, \"x\": \"'; head -c 200000 /dev/zero | tr '\\0' x; echo '\"}'"
    recorded = run_check(shell(script), max_output="1MiB")
    assert recorded.result.reason == "command.reported_failure"
    assert "judge" in recorded.result.phases


# --- starting


def test_a_script_beside_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever Watchdog is started, a relative path is that of the file."""
    (tmp_path / "conf/checks").mkdir(parents=True)
    script = tmp_path / "conf/checks/lag.sh"
    script.write_text('#!/bin/sh\necho "$1 $(pwd)"\n')
    script.chmod(0o755)
    file = tmp_path / "conf/watchdog.yaml"
    file.write_text("probes: [{name: Lag, command: [./checks/lag.sh, 5 s]}]")
    monkeypatch.chdir("/")
    [probe] = load_config(file).config.probes
    recorded = asyncio.run(run_probe(probe))
    assert recorded.evidence.excerpt == f"5 s {os.path.realpath(tmp_path / 'conf')}"


@pytest.mark.parametrize(
    ("content", "mode", "reason", "message"),
    [
        ("#!/bin/sh\n", 0o644, "command.not_executable", "cannot start ./check: Permission denied"),
        (
            "#!/no/such/python\n",
            0o755,
            "command.not_found",
            "the interpreter that ./check names in its first line does not exist",
        ),
        ("echo\n", 0o755, "command.start_failed", "cannot start ./check: Exec format error"),
    ],
)
def test_a_script_that_cannot_be_started(tmp_path: Path, content: str, mode: int, reason: str, message: str) -> None:
    (tmp_path / "check").write_text(content)
    (tmp_path / "check").chmod(mode)
    recorded = run_check(["./check"], cwd=str(tmp_path))
    assert brief(recorded) == (Outcome.ERROR, reason, message)
    assert recorded.result.duration is None


@pytest.mark.parametrize(
    ("command", "reason", "message"),
    [
        ({"run": ["no-such-command"]}, "command.not_found", "command not found: no-such-command"),
        ({"run": ["/no/such"]}, "command.not_found", "command not found: /no/such"),
        ({"run": ["sh"], "cwd": "/nowhere"}, "command.not_found", "working directory not found: /nowhere"),
        (
            {"run": ["sh"], "cwd": "/etc/passwd"},
            "command.start_failed",
            "cannot use working directory /etc/passwd: Not a directory",
        ),
        ({"run": [""]}, "command.start_failed", "cannot start an empty name: Invalid argument"),
        ({"run": ["echo", "a\0b"]}, "command.start_failed", "cannot start echo: Invalid argument"),
        ({"run": ["echo"], "env": {"A=B": "1"}}, "command.start_failed", "cannot start echo: Invalid argument"),
    ],
)
def test_a_command_that_does_not_exist(command: Mapping[str, Any], reason: str, message: str) -> None:
    assert brief(run_check(**command)) == (Outcome.ERROR, reason, message)


def test_no_descriptor_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("watchdog.net.command_run.os.pipe", fail)
    result = run_check(["true"]).result
    assert (result.outcome, result.reason) == (Outcome.ERROR, "watchdog.out_of_resources")


def test_it_inherits_few_variables_and_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    excerpt = run_check(shell("cat; env"), env={"MODE": "check"}).evidence.excerpt
    assert "MODE=check" in excerpt
    assert "PATH=" in excerpt
    assert "hunter2" not in excerpt


def test_it_does_not_outlive_watchdog(tmp_path: Path) -> None:
    program = f"""
import asyncio
from tests.probes.test_command import command_probe, python
from tests.support.probe_runs import run_probe
asyncio.run(run_probe(command_probe(python("import time; time.sleep(600)", {str(tmp_path)!r}))))
"""

    async def kill_once_it_runs() -> None:
        watchdog = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=Path(__file__).parents[2])
        await wait_until_async(lambda: len(processes_with(str(tmp_path))) > 0)
        watchdog.send_signal(signal.SIGKILL)
        await watchdog.wait()

    asyncio.run(kill_once_it_runs())
    wait_until(lambda: processes_with(str(tmp_path)) == [])


# --- configuration


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"command": "./check.sh --verbose"}, 'expected a list of arguments, such as ["./check.sh", "--verbose"]'),
        ({"command": []}, "at least 1 item"),
        ({"command": {"ready_within": "5s"}}, "Field required"),
        ({"command": {"run": ["x"], "ready_within": "10s"}}, "expected less than `timeout` (10s), found 10s"),
        ({"command": {"run": ["x"], "max_output": "1GiB"}}, "expected a size such as '512KiB' or '4MiB'"),
        ({"command": {"run": ["x"], "shell": True}}, "Extra inputs are not permitted"),
        ({"command": ["x"], "expect": ["status == 200"]}, "unknown name 'status'"),
    ],
)
def test_an_invalid_configuration_states_why(fields: Mapping[str, Any], why: str) -> None:
    with pytest.raises(ValidationError) as refused:
        CommandProbe.model_validate({"name": "x", **fields})
    assert why in str(refused.value)


def test_what_is_shown_of_a_command() -> None:
    probe = command_probe(["check_http", "--header=Authorization: Bearer abc", "-p", "https://u:p@a.example/x?y=z"])
    assert probe.target == "check_http '--header=Authorization: •••' -p https://a.example/x"
    assert (probe.network_endpoint, probe.may_change_target, probe.may_run_without_store) == ("", True, False)


def test_secret_arguments_and_variables_of_a_configuration_are_masked(tmp_path: Path) -> None:
    text = """
probes:
  - {name: A, command: [check, --password, 'lit3ral-secret']}
  - {name: B, command: {run: [check, --token=tok3n-0123456], env: {API_KEY: k3y-0123456789}}}
  - {name: C, sql: {url: 'postgresql://u:pw-0123456789@h/d', query: "SELECT 1 WHERE token = 'inl1ne-0123'"}}
"""
    loaded = load_config(None, text, {})
    secrets = loaded.mask.secrets
    assert secrets >= {"lit3ral-secret", "tok3n-0123456", "k3y-0123456789", "pw-0123456789", "inl1ne-0123"}
    assert "lit3ral" not in repr([probe.target for probe in loaded.config.probes])


@pytest.mark.skipif(shutil.which("setsid") is None, reason="setsid is missing: apt install util-linux")
def test_the_tests_have_their_tools() -> None:
    """The test of the deadline uses it."""
