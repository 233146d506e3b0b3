"""Direct notices: for each absence and destination one, and one when the database is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs

from tests.support.store import START_AT
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS, SECOND_MS
from watchdog.net import NetworkAccess, SecretMask
from watchdog.notifiers.base import NotificationDeliveryError, NotificationDeliveryRequest, Notifier
from watchdog.notifiers.message import compose_alert_message
from watchdog.service.absence_record import StoreAbsenceRecordFile
from watchdog.service.direct_notices import (
    BACKUP_NOTICE_DELAY_MS,
    NOTICE_DELAY_MS,
    STORE_BACK_NOTICE_DELAY_MS,
    StoreAbsenceNotifier,
)
from watchdog.service.store_watch import StoreAbsence

ERROR = "database or disk is full"


class ScriptedNotifier(Notifier):
    """Accepts everything, unless it has an error to raise."""

    kind: ClassVar[str] = "scripted"
    received: list[NotificationDeliveryRequest]
    errors: list[Any]

    @property
    def recipient(self) -> str:
        return "scripted"

    async def send(self, request: NotificationDeliveryRequest) -> dict[str, Any]:
        self.received.append(request)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        return {"ts": f"{len(self.received)}"}


class NoticeHarness:
    """A sender with two destinations. Time passes in steps of a second."""

    def __init__(self, folder: Path, *, member: str = "a", is_lowest: bool = True):
        self.now, self.is_lowest = START_AT, is_lowest
        self.notifiers = {
            name: ScriptedNotifier.model_construct(received=[], errors=[]) for name in ("ops/chat", "ops/mail")
        }
        self.sender = StoreAbsenceNotifier(
            notifiers=self.notifiers,
            network=NetworkAccess(),
            mask=SecretMask(["hush-hush"]),
            clock=lambda: self.now,
            member=member,
            record_file=StoreAbsenceRecordFile(folder / "absence"),
            is_lowest_member=lambda: self.is_lowest,
        )
        self.away_since: int | None = None

    async def pass_time(self, duration_ms: int, failing: Collection[str] = ()) -> None:
        end = self.now + duration_ms
        while self.now < end:
            self.now += SECOND_MS
            absence = None if self.away_since is None else StoreAbsence(self.away_since, ERROR)
            self.sender.update(absence, failing)
            await asyncio.gather(*self.sender._tasks.values())

    def events(self, destination: str = "ops/chat") -> list[str]:
        return [request.notification.event.value for request in self.notifiers[destination].received]

    def headlines(self, destination: str = "ops/chat") -> list[str]:
        received = self.notifiers[destination].received
        return [compose_alert_message(request.alert_context).headline for request in received]


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[NoticeHarness]:
    harness = NoticeHarness(folder, **options)
    await harness.sender.load()
    yield harness
    await harness.sender.stop()
    harness.sender._disk_executor.shutdown(wait=True)


@pytest.mark.parametrize(("is_lowest", "delay_ms"), [(True, NOTICE_DELAY_MS), (False, BACKUP_NOTICE_DELAY_MS)])
async def test_one_notice_of_an_absence_and_one_of_its_end(tmp_path: Path, is_lowest: bool, delay_ms: int) -> None:
    async with opened(tmp_path, is_lowest=is_lowest) as harness:
        harness.away_since = harness.now
        await harness.pass_time(delay_ms - SECOND_MS)
        assert harness.events() == []
        await harness.pass_time(SECOND_MS)
        assert [harness.events(name) for name in harness.notifiers] == [["opened"]] * 2
        await harness.pass_time(30 * MINUTE_MS)
        assert harness.events() == ["opened"], "once"
        harness.away_since = None
        await harness.pass_time(MINUTE_MS)
        assert [harness.events(name) for name in harness.notifiers] == [["opened", "resolved"]] * 2
        ids = {request.notification.incident for request in harness.notifiers["ops/chat"].received}
        assert len(ids) == 1
        assert harness.notifiers["ops/chat"].received[1].previous_receipt == {"ts": "1"}
        harness.away_since = harness.now
        await harness.pass_time(MINUTE_MS)
        assert harness.events() == ["opened", "resolved", "opened"], "another absence"


async def test_the_notice_names_the_cause_and_what_fails(tmp_path: Path) -> None:
    async with opened(tmp_path) as harness:
        harness.away_since = harness.now
        await harness.pass_time(MINUTE_MS, ["Shop", "API"])
        harness.away_since = None
        await harness.pass_time(MINUTE_MS)
    assert harness.headlines() == [
        "Degraded: Watchdog: the database has been unavailable since 22:14 UTC (database or disk is full), so alerts"
        " are delayed; failing now: API, Shop",
        "Watchdog: database of a can be used again · degraded 1\N{NO-BREAK SPACE}min 1\N{NO-BREAK SPACE}s",
    ]


async def test_a_short_absence_is_not_reported(tmp_path: Path) -> None:
    async with opened(tmp_path) as harness:
        for _ in range(5):
            harness.away_since = harness.now
            await harness.pass_time(NOTICE_DELAY_MS - SECOND_MS)
            harness.away_since = None
            await harness.pass_time(30 * SECOND_MS)
    assert harness.events() == []
    assert not (tmp_path / "absence").exists(), "nothing has to be remembered"


async def test_a_database_that_comes_and_goes_is_one_absence(tmp_path: Path) -> None:
    async with opened(tmp_path) as harness:
        for _ in range(20):
            harness.away_since = harness.now
            await harness.pass_time(15 * SECOND_MS)
            harness.away_since = None
            await harness.pass_time(5 * SECOND_MS)
        assert harness.events() == ["opened"]
        await harness.pass_time(MINUTE_MS)
        assert harness.events() == ["opened", "resolved"]


async def test_it_is_repeated_at_most_every_ten_minutes_if_more_targets_fail(tmp_path: Path) -> None:
    async with opened(tmp_path) as harness:
        harness.away_since = harness.now
        await harness.pass_time(MINUTE_MS, ["API"])
        await harness.pass_time(5 * MINUTE_MS, ["API", "Shop"])
        assert harness.events() == ["opened"]
        await harness.pass_time(6 * MINUTE_MS, ["API", "Shop"])
        assert harness.events() == ["opened", "changed"]
        await harness.pass_time(30 * MINUTE_MS, ["Shop"])
        assert harness.events() == ["opened", "changed"], "fewer targets are no news"
        await harness.pass_time(MINUTE_MS, ["Shop", "Mail"])
        assert harness.events() == ["opened", "changed", "changed"]


async def test_a_refused_notice_is_sent_again_to_that_destination_alone(tmp_path: Path) -> None:
    refusal = NotificationDeliveryError("http.503", "HTTP 503 of hush-hush")
    async with opened(tmp_path) as harness:
        harness.notifiers["ops/chat"].errors[:] = [refusal, TimeoutError(), RuntimeError("a bug")]
        harness.away_since = harness.now
        with capture_logs() as entries:
            await harness.pass_time(2 * MINUTE_MS)
        assert (len(harness.events()), len(harness.events("ops/mail"))) == (4, 1)
        (warning,) = [entry for entry in entries if entry["event"] == "direct_notice_failed"]
        assert "hush-hush" not in warning["error"]


async def test_the_end_is_reported_as_soon_after_the_clock_was_set_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as harness:
        harness.away_since = harness.now
        await harness.pass_time(MINUTE_MS)
        harness.notifiers["ops/chat"].errors.append(NotificationDeliveryError("http.503", "HTTP 503"))
        harness.away_since = None
        await harness.pass_time(STORE_BACK_NOTICE_DELAY_MS // 2)
        harness.now -= 2 * HOUR_MS
        await harness.pass_time(STORE_BACK_NOTICE_DELAY_MS + SECOND_MS)
        assert harness.events() == ["opened", "resolved"]
        assert harness.events("ops/mail") == ["opened", "resolved"]
        harness.now -= 2 * HOUR_MS
        await harness.pass_time(SECOND_MS)
        assert harness.events() == ["opened", "resolved", "resolved"], "it was refused once"


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_later_absence_waits_until_the_end_of_the_first_is_reported(tmp_path: Path, restarts: bool) -> None:
    """Where the end of the first was reported, the later one has a notice of its own. Another destination, which could
    not be reached meanwhile, learns of both in order."""
    unreachable = [NotificationDeliveryError("http.503", "HTTP 503")] * 1000
    async with opened(tmp_path) as harness:
        harness.away_since = harness.now
        await harness.pass_time(MINUTE_MS)
        harness.notifiers["ops/mail"].errors[:] = unreachable
        harness.away_since = None
        await harness.pass_time(5 * MINUTE_MS)
        harness.away_since = harness.now
        await harness.pass_time(MINUTE_MS)
        assert harness.events() == ["opened", "resolved", "opened"]
        assert set(harness.events("ops/mail")[1:]) == {"resolved"}
        if not restarts:
            harness.notifiers["ops/mail"].errors.clear()
            await harness.pass_time(3 * MINUTE_MS)
        harness.away_since = None
        await harness.pass_time(5 * MINUTE_MS)
        received = {name: [r.notification for r in notifier.received] for name, notifier in harness.notifiers.items()}
    if restarts:
        async with opened(tmp_path) as harness:
            await harness.pass_time(MINUTE_MS)
            received["ops/mail"] += [r.notification for r in harness.notifiers["ops/mail"].received]
            assert harness.events() == []
    chat, mail = received.values()
    assert [n.event.value for n in chat] == ["opened", "resolved"] * 2
    assert chat[0].incident == chat[1].incident != chat[2].incident == chat[3].incident
    first = [n.event.value for n in mail if n.incident == chat[0].incident]
    assert (first[0], set(first[1:])) == ("opened", {"resolved"})
    assert [n.event.value for n in mail if n.incident == chat[2].incident] == (
        [] if restarts else ["opened", "resolved"]
    )
    assert mail[-1].event.value == "resolved"


@pytest.mark.parametrize(
    "error",
    [
        NotificationDeliveryError("delivery.unconfirmed", "an HTML page", maybe_delivered=True),
        NotificationDeliveryError("http.400", "rejected", retry_for_s=0),
    ],
)
async def test_a_notice_that_may_have_arrived_or_never_will_is_not_repeated(
    tmp_path: Path, error: NotificationDeliveryError
) -> None:
    async with opened(tmp_path) as harness:
        harness.notifiers["ops/chat"].errors[:] = [error]
        harness.away_since = harness.now
        await harness.pass_time(10 * MINUTE_MS)
        assert harness.events() == ["opened"]


async def test_the_next_process_reports_the_end(tmp_path: Path) -> None:
    """The process was killed during the absence; a process that starts has its database."""
    async with opened(tmp_path, member="killed") as harness:
        harness.away_since = harness.now
        await harness.pass_time(MINUTE_MS)
    async with opened(tmp_path, member="next") as later:
        later.now = harness.now + 5 * MINUTE_MS
        await later.pass_time(MINUTE_MS)
        assert later.events() == ["resolved"]
        opening, end = (each.notifiers["ops/chat"].received[0] for each in (harness, later))
        assert end.previous_receipt == {"ts": "1"}
        assert end.notification.incident == opening.notification.incident
        assert end.notification.seq == 1
        assert end.alert_context.incident.subject == opening.alert_context.incident.subject
    async with opened(tmp_path, member="third") as third:
        await third.pass_time(MINUTE_MS)
        assert third.events() == []


async def test_processes_that_share_a_path_remember_apart(tmp_path: Path) -> None:
    async with opened(tmp_path) as first, opened(tmp_path, member="b", is_lowest=False) as second:
        for harness in (first, second):
            harness.away_since = harness.now
            await harness.pass_time(MINUTE_MS)
            harness.away_since = None
        for harness in (first, second):
            await harness.pass_time(MINUTE_MS)
            assert harness.events() == ["opened", "resolved"]


@pytest.mark.parametrize("content", [b"no JSON", b"[1]", b'{"since": 1}', b'{"notices": {"a": {}}}'])
async def test_a_record_that_cannot_be_read_is_ignored(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "absence").write_bytes(content)
    async with opened(tmp_path) as harness:
        await harness.pass_time(MINUTE_MS)
        harness.away_since = harness.now
        await harness.pass_time(MINUTE_MS)
        assert harness.events() == ["opened"]


async def test_without_a_file_it_remembers_in_memory(tmp_path: Path) -> None:
    (tmp_path / "absence").mkdir()
    async with opened(tmp_path) as harness:
        harness.away_since = harness.now
        await harness.pass_time(30 * MINUTE_MS)
        harness.away_since = None
        await harness.pass_time(MINUTE_MS)
        assert harness.events() == ["opened", "resolved"]
