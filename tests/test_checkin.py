"""What a Python program checks in with: it tells how the work went, and never gets into its way."""

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
from watchdog.checkin import CHECK_IN_URL_ENV_VAR, check_in, send_check_in


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHECK_IN_URL_ENV_VAR, raising=False)
    monkeypatch.setattr(checkin, "MAX_SEND_ATTEMPTS", 1)


def test_a_decorated_function_tells_of_each_run(ear: FakeCheckInReceiver) -> None:
    @check_in(ear.url)
    def add(one: int, *, other: int) -> int:
        """Adds."""
        return one + other

    assert [add(1, other=n) for n in (2, 3)] == [3, 4]
    assert (add.__name__, add.__doc__) == ("add", "Adds.")
    assert ear.received_signals() == ["start", "", "start", ""]
    assert len({heard.run_id for heard in ear.received}) == 2
    assert [heard.run_id for heard in ear.received][::2] == [heard.run_id for heard in ear.received][1::2]


def test_each_time_that_it_is_entered_is_a_run_of_its_own(ear: FakeCheckInReceiver) -> None:
    """Watchdog takes an end that comes twice within seconds for one."""
    nightly = check_in(ear.url)
    for _ in range(2):
        with nightly:
            pass
    first, second = ear.received[:2], ear.received[2:]
    assert first[0].run_id == first[1].run_id != second[0].run_id == second[1].run_id


def test_an_exception_is_told_and_goes_on_its_way(ear: FakeCheckInReceiver) -> None:
    with pytest.raises(ZeroDivisionError), check_in(ear.url):
        _ = 1 // 0
    assert ear.received_signals() == ["start", "fail"]
    assert ear.received[1].body.endswith("ZeroDivisionError: integer division or modulo by zero\n")


@pytest.mark.parametrize(("code", "word"), [(None, ""), (0, ""), (3, "fail"), ("no space left", "fail")], ids=str)
def test_leaving_the_program_is_an_end_too(ear: FakeCheckInReceiver, code: int | str | None, word: str) -> None:
    with pytest.raises(SystemExit), check_in(ear.url):
        sys.exit(code)
    assert ear.received_signals() == ["start", word]


async def test_a_coroutine_tells_without_holding_up_the_loop(ear: FakeCheckInReceiver) -> None:
    @check_in(ear.url)
    async def work(fails: bool) -> str:
        await asyncio.sleep(0)
        if fails:
            raise OSError("no space left")
        return "done"

    assert await work(False) == "done"
    with pytest.raises(OSError, match="no space left"):
        await work(True)
    assert ear.received_signals() == ["start", "", "start", "fail"]
    async with check_in(ear.url) as run:
        assert run.run_id not in {heard.run_id for heard in ear.received[:4]}
    assert ear.received_signals()[4:] == ["start", ""]


def test_something_is_said_on_the_way(ear: FakeCheckInReceiver) -> None:
    with check_in(ear.url) as run:
        run.log("half way, ü")
    assert [(word, heard.body) for word, heard in zip(ear.received_signals(), ear.received, strict=True)] == [
        ("start", ""),
        ("log", "half way, ü"),
        ("", ""),
    ]


def test_the_address_may_stand_in_the_environment(ear: FakeCheckInReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with check_in():
        pass
    assert ear.received_signals() == []
    monkeypatch.setenv(CHECK_IN_URL_ENV_VAR, ear.url)
    with check_in():
        pass
    assert ear.received_signals() == ["start", ""]


@pytest.mark.parametrize("url", ["nonsense", "ftp://a.example/", "http://[", "http://a b/", "http://x.invalid/in/y"])
def test_whatever_is_wrong_the_work_is_done(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), check_in(url) as run:
        run.log("\ud800")
        done = True
    assert done
    assert len(caplog.records) == 4  # the start is tried again at the end
    assert all("check-in not delivered: " in record.message for record in caplog.records)
    with check_in(url) as run:
        run.log(7)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError), check_in(url):
        _ = 1 // 0


def test_no_log_tells_the_address(caplog: pytest.LogCaptureFixture) -> None:
    url = unreachable_url()
    with caplog.at_level(logging.WARNING), check_in(url):
        pass
    assert "Connection refused" in caplog.text
    assert url not in caplog.text


def test_what_is_tried_again_says_when_it_was(ear: FakeCheckInReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkin, "MAX_SEND_ATTEMPTS", 2)
    ear.status_codes = [503, 200, 503]
    with check_in(ear.url):
        pass
    assert ear.received_signals() == ["start", ""]
    assert ear.received[1].ago_ms >= 1_000
    ear.status_codes = [200, 404]
    with check_in(ear.url):
        pass
    assert ear.received_signals() == ["start", "", "start"]


def test_the_end_of_a_long_text_is_told(ear: FakeCheckInReceiver) -> None:
    send_check_in(ear.url, "log", "r", 0, b"x" * 50_000 + b"end")
    assert (len(ear.received[0].body), ear.received[0].body[-3:]) == (10_240, "end")


def test_it_needs_nothing_and_may_be_copied(ear: FakeCheckInReceiver, tmp_path: Path) -> None:
    shutil.copy(Path(checkin.__file__), tmp_path / "checkin.py")
    program = (
        "import sys; before = set(sys.modules); import {0}\n"
        "ours = [m for m in set(sys.modules) - before if m.split('.')[0] not in sys.stdlib_module_names]\n"
        "assert set(ours) <= {{'watchdog', '{0}'}}, ours\n"
        "with {0}.check_in({1!r}): pass\n"
    )
    for module, folder in (("checkin", tmp_path), ("watchdog.checkin", Path(checkin.__file__).parents[1])):
        words = [sys.executable, "-c", program.format(module, ear.url)]
        subprocess.run(words, cwd=folder, env={"PYTHONPATH": ""}, check=True)
    assert ear.received_signals() == ["start", ""] * 2
