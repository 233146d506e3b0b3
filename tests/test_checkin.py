"""The check-in client for Python programs: it reports their runs and never affects them."""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.check_in_receiver import FakeCheckInReceiver, unreachable_url
from watchdog import checkin
from watchdog.checkin import CHECK_IN_URL_ENV_VAR, check_in, send_check_in_once


@pytest.fixture(autouse=True)
def _no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHECK_IN_URL_ENV_VAR, raising=False)
    monkeypatch.setattr(checkin, "MAX_CHECK_IN_SEND_ATTEMPTS", 1)


def test_a_decorated_function_reports_each_run(receiver: FakeCheckInReceiver) -> None:
    @check_in(receiver.url)
    def add(first: int, *, second: int) -> int:
        """Adds."""
        return first + second

    assert [add(1, second=n) for n in (2, 3)] == [3, 4]
    assert (add.__name__, add.__doc__) == ("add", "Adds.")
    assert receiver.received_signals() == ["start", "", "start", ""]
    assert len({received.run_id for received in receiver.received}) == 2
    assert [received.run_id for received in receiver.received][::2] == [
        received.run_id for received in receiver.received
    ][1::2]


def test_each_use_is_a_run_of_its_own(receiver: FakeCheckInReceiver) -> None:
    """Watchdog counts two ends with one run id once."""
    nightly = check_in(receiver.url)
    for _ in range(2):
        with nightly:
            pass
    first, second = receiver.received[:2], receiver.received[2:]
    assert first[0].run_id == first[1].run_id != second[0].run_id == second[1].run_id


def test_an_exception_is_reported_and_propagates(receiver: FakeCheckInReceiver) -> None:
    with pytest.raises(ZeroDivisionError), check_in(receiver.url):
        _ = 1 // 0
    assert receiver.received_signals() == ["start", "fail"]
    assert receiver.received[1].body.endswith("ZeroDivisionError: integer division or modulo by zero\n")


@pytest.mark.parametrize(("code", "word"), [(None, ""), (0, ""), (3, "fail"), ("no space left", "fail")], ids=str)
def test_sys_exit_ends_a_run(receiver: FakeCheckInReceiver, code: int | str | None, word: str) -> None:
    with pytest.raises(SystemExit), check_in(receiver.url):
        sys.exit(code)
    assert receiver.received_signals() == ["start", word]


async def test_a_coroutine_reports_without_blocking_the_loop(receiver: FakeCheckInReceiver) -> None:
    @check_in(receiver.url)
    async def work(fails: bool) -> str:
        await asyncio.sleep(0)
        if fails:
            raise OSError("no space left")
        return "done"

    assert await work(False) == "done"
    with pytest.raises(OSError, match="no space left"):
        await work(True)
    assert receiver.received_signals() == ["start", "", "start", "fail"]
    async with check_in(receiver.url) as run:
        assert run.run_id not in {received.run_id for received in receiver.received[:4]}
    assert receiver.received_signals()[4:] == ["start", ""]


def test_a_run_can_log(receiver: FakeCheckInReceiver) -> None:
    with check_in(receiver.url) as run:
        run.log("half way, ü")
    assert [
        (word, received.body) for word, received in zip(receiver.received_signals(), receiver.received, strict=True)
    ] == [
        ("start", ""),
        ("log", "half way, ü"),
        ("", ""),
    ]


def test_the_address_can_be_in_the_environment(receiver: FakeCheckInReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with check_in():
        pass
    assert receiver.received_signals() == []
    monkeypatch.setenv(CHECK_IN_URL_ENV_VAR, receiver.url)
    with check_in():
        pass
    assert receiver.received_signals() == ["start", ""]


@pytest.mark.parametrize(
    ("body", "explanation"),
    [(b"ago: expected milliseconds\n", ": ago: expected milliseconds"), (b"<p>\n<b>", ""), (b"\xff", ""), (b"", "")],
)
def test_a_rejection_is_logged_with_its_explanation(
    receiver: FakeCheckInReceiver, body: bytes, explanation: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status_codes, receiver.explanation = [400], body
    with caplog.at_level(logging.WARNING), check_in(receiver.url):
        pass
    assert caplog.messages[0] == f"check-in not delivered: Watchdog answered HTTP 400{explanation}"


@pytest.mark.parametrize("url", ["nonsense", "ftp://a.example/", "http://[", "http://a b/", "http://x.invalid/in/y"])
def test_no_problem_prevents_the_work(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), check_in(url) as run:
        run.log("\ud800")
        done = True
    assert done
    assert len(caplog.records) == 4  # the start is retried at the end
    assert all("check-in not delivered: " in record.message for record in caplog.records)
    with check_in(url) as run:
        run.log(7)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError), check_in(url):
        _ = 1 // 0


def test_no_log_contains_the_address(caplog: pytest.LogCaptureFixture) -> None:
    url = unreachable_url()
    with caplog.at_level(logging.WARNING), check_in(url):
        pass
    assert "Connection refused" in caplog.text
    assert url not in caplog.text


def test_a_retried_check_in_has_its_age(receiver: FakeCheckInReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkin, "MAX_CHECK_IN_SEND_ATTEMPTS", 2)
    receiver.status_codes = [503, 200, 503]
    with check_in(receiver.url):
        pass
    assert receiver.received_signals() == ["start", ""]
    assert receiver.received[1].ago_ms >= 1_000
    receiver.status_codes = [200, 404]
    with check_in(receiver.url):
        pass
    assert receiver.received_signals() == ["start", "", "start"]


def test_the_end_of_a_long_text_is_sent(receiver: FakeCheckInReceiver) -> None:
    send_check_in_once(receiver.url, "log", "r", 0, b"x" * 50_000 + b"end")
    assert (len(receiver.received[0].body), receiver.received[0].body[-3:]) == (10_240, "end")


def test_the_module_has_no_dependencies_and_can_be_copied(receiver: FakeCheckInReceiver, tmp_path: Path) -> None:
    shutil.copy(Path(checkin.__file__), tmp_path / "checkin.py")
    program = (
        "import sys; before = set(sys.modules); import {0}\n"
        "ours = [m for m in set(sys.modules) - before if m.split('.')[0] not in sys.stdlib_module_names]\n"
        "assert set(ours) <= {{'watchdog', '{0}'}}, ours\n"
        "with {0}.check_in({1!r}): pass\n"
    )
    for module, folder in (("checkin", tmp_path), ("watchdog.checkin", Path(checkin.__file__).parents[1])):
        words = [sys.executable, "-c", program.format(module, receiver.url)]
        subprocess.run(words, cwd=folder, env={"PYTHONPATH": ""}, check=True)
    assert receiver.received_signals() == ["start", ""] * 2
