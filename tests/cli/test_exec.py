"""`watchdog exec`: the command runs as if nothing wrapped it, and its runs are reported."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.check_in_receiver import HEARTBEAT_TOKEN, FakeCheckInReceiver, unreachable_url
from tests.support.command_line import invoke_command
from tests.support.polling import wait_until
from watchdog.cli import exec as exec_module
from watchdog.cli import exec_queue
from watchdog.cli.exec_run import WatchdogExecArguments, parse_exec_arguments

SCRIPT = """
import sys
sys.stdout.write("copying\\n"); sys.stdout.flush(); sys.stderr.write("no space left\\n"); sys.stderr.flush()
sys.exit(int(sys.argv[1]))
"""


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "watchdog.cli", "exec", *words]


def environment(folder: Path, url: str = "") -> dict[str, str]:
    variables = {"XDG_STATE_HOME": str(folder / "state"), "WATCHDOG_CHECK_IN_URL": url}
    return {**os.environ, **{name: value for name, value in variables.items() if value}}


def run(folder: Path, *words: str, url: str = "", **more: Any) -> subprocess.CompletedProcess[str]:
    env = environment(folder, url)
    return subprocess.run(command(*words), env=env, cwd=folder, capture_output=True, text=True, check=False, **more)


def script(code: int) -> tuple[str, ...]:
    return ("--", sys.executable, "-c", SCRIPT, str(code))


def test_a_run_is_reported_from_start_to_end(receiver: FakeCheckInReceiver, tmp_path: Path) -> None:
    ran = run(tmp_path, "Backup", *script(0), url=receiver.url)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "copying\n", "no space left\n")
    start, end = receiver.received
    assert receiver.received_signals() == ["start", "0"]
    assert start.run_id == end.run_id
    assert len(start.run_id) == 32
    assert sorted(end.body.splitlines()) == ["copying", "no space left"]


@pytest.mark.parametrize("code", [1, 3, 255])
def test_the_exit_code_is_passed_on_and_reported(receiver: FakeCheckInReceiver, tmp_path: Path, code: int) -> None:
    ran = run(tmp_path, "Backup", *script(code), url=receiver.url)
    assert (ran.returncode, ran.stdout, ran.stderr) == (code, "copying\n", "no space left\n")
    assert receiver.received_signals() == ["start", str(code)]


def test_input_and_options_are_passed_to_the_command(receiver: FakeCheckInReceiver, tmp_path: Path) -> None:
    echo = "import sys; print(sys.argv[1:], sys.stdin.read())"
    for dashes in ((), ("--",)):
        words = ("Backup", *dashes, sys.executable, "-c", echo, "--config", "-o", "--", "x")
        ran = run(tmp_path, *words, url=receiver.url, input="hello")
        assert ran.stdout == "['--config', '-o', '--', 'x'] hello\n"


def test_a_command_that_checks_in_by_itself_does_not_report_the_run_twice(
    receiver: FakeCheckInReceiver, tmp_path: Path
) -> None:
    program = "from watchdog.checkin import check_in\nwith check_in(): print('done')"
    ran = run(tmp_path, "Backup", "--", sys.executable, "-P", "-c", program, url=receiver.url)
    assert (ran.returncode, ran.stdout, receiver.received_signals()) == (0, "done\n", ["start", "0"])


def test_all_of_a_long_output_is_passed_on_and_its_tail_reported(receiver: FakeCheckInReceiver, tmp_path: Path) -> None:
    loud = "print('x' * 3_000_000); print('the end')"
    ran = run(tmp_path, "Backup", "--", sys.executable, "-c", loud, url=receiver.url)
    assert len(ran.stdout) == 3_000_009
    assert len(receiver.received[1].body) == 10_240
    assert receiver.received[1].body.endswith("the end\n")


TEXT = "Größe: 10\nError: no space left\n"


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "utf-8"], ids=lambda encoding: encoding
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_in_any_encoding_is_passed_on_as_it_is_and_reported_as_text(
    receiver: FakeCheckInReceiver, tmp_path: Path, encoding: str, stream: str
) -> None:
    """Of a long output, too, whose beginning is not reported, and beside the other stream in UTF-8."""
    data = (TEXT * 2_000).encode(encoding)
    program = f"""
import sys
sys.stdout.flush(), sys.stderr.flush()
data = ({TEXT!r} * 2_000).encode({encoding!r})
for i in range(0, len(data), 4_093): # characters are split between writes
    sys.{stream}.buffer.write(data[i : i + 4_093]); sys.{stream}.buffer.flush()
"""
    words = [*command("backup", "--", sys.executable, "-c", program)]
    ran = subprocess.run(words, env=environment(tmp_path, receiver.url), capture_output=True, check=True)
    assert getattr(ran, stream) == data
    reported = receiver.received[-1].body
    assert reported.endswith(TEXT)
    assert "\N{REPLACEMENT CHARACTER}" not in reported[4:]
    assert "\0" not in reported


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("no-such-command",), 127, "cannot run no-such-command: no such file or directory"),
        (("/",), 126, "cannot run /: permission denied"),
    ],
)
def test_a_command_that_cannot_be_run(
    receiver: FakeCheckInReceiver, tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    ran = run(tmp_path, "Backup", "--", *words, url=receiver.url)
    assert (ran.returncode, ran.stderr) == (code, f"watchdog: {message}\n")
    assert [(receiver.received_signals(), check_in.body) for check_in in receiver.received] == [([str(code)], message)]


def test_a_command_may_have_the_name_of_an_argument(receiver: FakeCheckInReceiver, tmp_path: Path) -> None:
    ran = run(tmp_path, "Backup", "name", "it", url=receiver.url)
    assert (ran.returncode, ran.stderr) == (127, "watchdog: cannot run name: no such file or directory\n")


def test_a_command_is_required(tmp_path: Path) -> None:
    for words in (("Backup",), ("Backup", "--")):
        ran = run(tmp_path, *words)
        assert ran.returncode == 2
        assert re.search("missing (argument|command)", ran.stderr, re.IGNORECASE)


WITH_DEFAULT_ACTIONS = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""A shell starts background processes with SIGINT ignored, and nohup with SIGHUP; the command would inherit that."""


ENDS_WITH_7 = """
import signal, sys, time
for number in (2, 15):
    signal.signal(number, lambda *_: sys.exit(7))
print("up", flush=True)
for _ in range(600):
    time.sleep(0.1)
"""
"""Sleeps in short steps: Python may miss a signal that arrives just before a sleep begins until the sleep is over."""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 7), (signal.SIGINT, 7), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)]
)
def test_signals_are_passed_on(
    receiver: FakeCheckInReceiver, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """A command that handles a signal returns its own exit code; any other command is ended by the signal."""
    words = command("Backup", "--", sys.executable, "-c", ENDS_WITH_7)
    env = environment(tmp_path, receiver.url)
    words = [sys.executable, "-c", WITH_DEFAULT_ACTIONS, *words]
    with subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.wait(60) == code
    assert receiver.received_signals()[-1] == str(code)


def test_a_signal_is_passed_on_at_once_even_if_another_thread_gets_it(
    receiver: FakeCheckInReceiver, tmp_path: Path
) -> None:
    """The system may give a signal to any thread, and the main thread, which runs the handlers, must wake up for it."""
    script = """
import signal, sys, threading, time
from watchdog.cli.exec_run import WatchdogExecArguments, run_external_command_and_send_check_ins

def signal_this_thread():
    while not open(sys.argv[1]).read():
        time.sleep(0.1)
    time.sleep(1)  # the main thread waits for the end of the command by then
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

threading.Thread(target=signal_this_thread, daemon=True).start()
command = [sys.executable, "-c", sys.argv[2]]
sys.exit(run_external_command_and_send_check_ins(WatchdogExecArguments("Backup", command, url=sys.argv[3])))
"""
    output = tmp_path / "output.txt"
    with output.open("w") as stdout:
        ran = subprocess.run(
            [sys.executable, "-c", script, str(output), ENDS_WITH_7, receiver.url],
            env=environment(tmp_path, receiver.url),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            timeout=120,
            check=False,
        )
    assert ran.returncode == 7
    assert receiver.received_signals() == ["start", "7"]


def test_output_of_background_children_is_passed_on_but_not_reported(
    receiver: FakeCheckInReceiver, tmp_path: Path
) -> None:
    ran = run(tmp_path, "Backup", "--", "sh", "-c", "(sleep 2; echo later) & echo now", url=receiver.url)
    assert ran.stdout == "now\nlater\n"
    assert receiver.received[1].body == "now\n"


# --- the check-in address


def write(folder: Path, port: int, name: str = "Nightly backup", **server: str) -> Path:
    probe = {"name": name, "heartbeat": {"token": HEARTBEAT_TOKEN, "every": "1h"}}
    other = {"name": "Website", "http": "https://a.example/"}
    file = folder / "watchdog.yaml"
    file.write_text(json.dumps({"server": {"listen": f"127.0.0.1:{port}", **server}, "probes": [other, probe]}))
    return file


def test_the_configuration_has_the_address(receiver: FakeCheckInReceiver, tmp_path: Path) -> None:
    file = write(tmp_path, receiver.port)
    config, name = ("-c", str(file)), ("nightly-backup",)
    behind = (config, (f"--config={file}",), (f"-c{file}",))
    for words in (("Nightly backup",), name, (*config, *name), *((*name, *option) for option in behind)):
        assert run(tmp_path, *words, *script(0)).returncode == 0
    assert receiver.received_signals() == ["start", "0"] * 6
    write(tmp_path, 1, public_url=f"http://127.0.0.1:{receiver.port}")
    assert run(tmp_path, "nightly-backup", *script(0)).returncode == 0
    assert len(receiver.received) == 14


def test_the_command_runs_despite_any_problem_with_watchdog(tmp_path: Path) -> None:
    runs = [run(tmp_path, "Backup", *script(3))]
    write(tmp_path, 1, "Another")
    runs.append(run(tmp_path, "Backup", *script(3)))
    (tmp_path / "watchdog.yaml").write_text("probes: [")
    runs.append(run(tmp_path, "Backup", *script(3)))
    runs.append(run(tmp_path, "Backup", "--", *script(3)[1:], url="ftp://nowhere"))
    assert [(ran.returncode, ran.stdout) for ran in runs] == [(3, "copying\n")] * 4
    lines = [[line for line in ran.stderr.splitlines() if line.startswith("watchdog: ")] for ran in runs]
    assert lines[0][0].startswith("watchdog: cannot check in: no watchdog.yaml in this directory: pass -c FILE")
    assert lines[1] == ["watchdog: cannot check in: no heartbeat is named 'Backup'; heartbeats: Another"]
    assert lines[2][0].startswith("watchdog: cannot check in: watchdog.yaml:1:")
    assert lines[3] == ["watchdog: check-in not delivered: the URL does not start with http:// or https://"] * 2
    assert not (tmp_path / "state/watchdog/check-ins.jsonl").exists()


def test_an_unknown_token_is_a_warning_and_not_retried(receiver: FakeCheckInReceiver, tmp_path: Path) -> None:
    receiver.status_codes = [404, 404]
    ran = run(tmp_path, "Backup", *script(0), url=receiver.url)
    assert ran.stderr.count("check-in not delivered: Watchdog answered HTTP 404") == 2
    assert HEARTBEAT_TOKEN not in ran.stderr
    assert run(tmp_path, "Backup", *script(0), url=receiver.url).stderr == "no space left\n"
    assert receiver.received_signals() == ["start", "0"]


# --- when Watchdog cannot be reached


def test_unsent_check_ins_are_sent_with_the_next_run_and_keep_their_time(
    receiver: FakeCheckInReceiver, tmp_path: Path
) -> None:
    ran = run(tmp_path, "Backup", *script(3), url=unreachable_url())
    assert (ran.returncode, ran.stdout) == (3, "copying\n")
    assert ran.stderr.splitlines()[-1] == "watchdog: the check-in will be sent with the next run"
    queue = tmp_path / "state/watchdog/check-ins.jsonl"
    assert queue.stat().st_mode & 0o777 == 0o600
    words = [
        json.loads(line) for line in queue.read_text().replace(unreachable_port(queue), str(receiver.port)).splitlines()
    ]
    an_hour_ago = [
        word | {"boot_clock_s": word["boot_clock_s"] - 3_600, "wall_time_s": word["wall_time_s"] - 3_600}
        for word in words
    ]
    queue.write_text("".join(json.dumps(word) + "\n" for word in an_hour_ago))
    started = time.monotonic()
    assert run(tmp_path, "Backup", *script(0), url=receiver.url).stderr == "no space left\n"
    took = (time.monotonic() - started) * 1_000
    assert receiver.received_signals() == ["start", "0", "start", "3"]
    newer, older = receiver.received[:2], receiver.received[2:]
    assert newer[0].run_id != older[0].run_id == older[1].run_id
    assert older[0].ago_ms >= older[1].ago_ms >= 3_600_000
    assert newer[1].ago_ms <= took
    assert "copying" in older[1].body
    assert queue.read_text() == ""


def test_an_address_that_does_not_answer_delays_only_its_own_check_ins(
    receiver: FakeCheckInReceiver, tmp_path: Path
) -> None:
    assert run(tmp_path, "Retired", *script(1), url=unreachable_url()).returncode == 1
    assert run(tmp_path, "Backup", *script(3), url=unreachable_url()).returncode == 3
    queue = tmp_path / "state/watchdog/check-ins.jsonl"
    retired, back = queue.read_text().splitlines()[:2], queue.read_text().splitlines()[2:]
    here = [json.dumps(json.loads(line) | {"url": receiver.url}) for line in back]
    queue.write_text("".join(f"{line}\n" for line in (*retired, *here)))
    run(tmp_path, "Backup", *script(0), url=receiver.url)
    assert receiver.received_signals() == ["start", "0", "start", "3"]
    assert queue.read_text().splitlines() == retired


def unreachable_port(queue: Path) -> str:
    port = urlsplit(json.loads(queue.read_text().splitlines()[0])["url"]).port
    return str(port)


def test_a_start_that_failed_is_sent_with_the_end(receiver: FakeCheckInReceiver, tmp_path: Path) -> None:
    receiver.status_codes = [503]
    started = time.monotonic()
    ran = run(tmp_path, "Backup", "--", "sleep", "1", url=receiver.url)
    took_ms = (time.monotonic() - started) * 1_000
    assert ran.stderr == "watchdog: check-in not delivered: Watchdog answered HTTP 503\n"
    assert receiver.received_signals() == ["start", "0"]
    assert receiver.received[0].ago_ms >= 1_000
    assert receiver.received[1].ago_ms <= took_ms - 1_000


def test_a_corrected_wall_clock_does_not_change_the_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two days forward, and two back, between the run and its check-in."""
    word = exec_queue._build_queued_check_in_timestamps(5.0)
    now = time.time()
    for hours in (-48, 48):
        monkeypatch.setattr(time, "time", lambda hours=hours: now + hours * 3600)
        assert 5 <= exec_queue._compute_queued_check_in_age_s(word) < 30
    monkeypatch.setattr(exec_queue, "_read_boot_id", lambda: "another boot")
    monkeypatch.setattr(time, "time", lambda: now + 60)
    assert 65 <= exec_queue._compute_queued_check_in_age_s(word) < 95
    monkeypatch.setattr(time, "time", lambda: now - 60)
    assert exec_queue._compute_queued_check_in_age_s(word) == 0


def test_the_queue_is_bounded_and_survives_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(exec_queue, "MAX_UNSENT_CHECK_INS_FILE_BYTES", 2_000)
    words = [
        {"url": "x", "event": str(n), "run": "r", "body": "b" * 100, **exec_queue._build_queued_check_in_timestamps(0)}
        for n in range(50)
    ]
    old = {**words[0], **exec_queue._build_queued_check_in_timestamps(40 * 86_400)}
    with exec_queue._open_locked_check_in_queue() as file:
        exec_queue._overwrite_check_in_queue_file(file, [old, *words])
    path = tmp_path / "watchdog/check-ins.jsonl"
    assert path.stat().st_size <= 2_000
    path.write_text(json.dumps(old) + "\n" + path.read_text() + '{"url": "cut o')
    with exec_queue._open_locked_check_in_queue() as file:
        events = [check_in["event"] for check_in in exec_queue._read_unsent_check_ins_from_queue(file)]
    assert events == [str(n) for n in range(50 - len(events), 50)]


@contextmanager
def hanging() -> Iterator[str]:
    """Accepts connections and never answers."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/in/{HEARTBEAT_TOKEN}"


def test_a_watchdog_that_hangs_does_not_delay_the_command_or_lengthen_its_run(tmp_path: Path) -> None:
    with hanging() as url:
        words = command("Backup", "--", sys.executable, "-c", "print('up', flush=True)")
        env = environment(tmp_path, url)
        with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout
            assert process.stdout.readline() == b"up\n"
            queue = tmp_path / "state/watchdog/check-ins.jsonl"
            assert not queue.exists(), "the command started before the first check-in timed out"
            wait_until(lambda: queue.exists() and queue.stat().st_size)
            start, end = map(json.loads, queue.read_text().splitlines())
            assert end["boot_clock_s"] - start["boot_clock_s"] < 4.5, "the command's own run, not that of the check-in"
            assert process.wait(60) == 0


# --- arguments


ARGUMENTS = [
    "backup -- true",
    "backup true",
    "backup true -c x --url y",
    "backup -- -c x",
    "-c f.yaml backup -- true",
    "-cf.yaml backup -- true",
    "-c=f.yaml backup -- true",
    "--config f.yaml backup -- true",
    "--config=f.yaml --url=http://w/in/x backup -- true",
    "--url http://w/in/x backup true",
    "backup -c f.yaml -- true",
    "backup -cf.yaml true",
    "backup --config=f.yaml --url http://w/in/x -- true -- false",
    "backup -- -- true",
]


@pytest.mark.parametrize("words", ARGUMENTS)
@pytest.mark.parametrize("variable", ["", "http://env/in/x"])
def test_arguments_mean_the_same_with_and_without_typer(
    words: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_typer: list[WatchdogExecArguments] = []

    def record(arguments: WatchdogExecArguments) -> int:
        by_typer.append(arguments)
        return 0

    monkeypatch.setattr(exec_module, "run_external_command_and_send_check_ins", record)
    monkeypatch.setenv("WATCHDOG_CHECK_IN_URL", variable)
    assert invoke_command("exec", *words.split()).exit_code == 0
    assert [parse_exec_arguments(words.split())] == by_typer


@pytest.mark.parametrize(
    "words",
    [
        *("", "backup", "backup --", "--help", "backup --help", "-c", "-c f.yaml"),
        *("--nonsense backup true", "-- backup true"),
    ],
)
def test_help_and_errors_are_left_to_typer(words: str) -> None:
    assert parse_exec_arguments(words.split()) is None
