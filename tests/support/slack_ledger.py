"""People act in Slack on many incidents while Slack is unreliable, and a ledger of what they see in its channels.

Incidents come in waves. Each is acknowledged or silenced with a button, or ignored, and is resolved after hours of
injected time. Everything that Slack is sent is an HTTP request on loopback.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from random import Random
from threading import Event
from types import MappingProxyType
from typing import Any, NamedTuple, Self, TypeVar

from tests.support.delivery import DeliveryHarness, Receivers
from tests.support.fakes import CannedResponse, FakeSlack, ReceivedRequest
from tests.support.slack_clicks import SIGNING_SECRET, SlackClicks, encode_payload, find_buttons, make_payload, sign
from tests.support.store import INTERVAL_MS, make_registered_probe
from watchdog.domain.escalation import EscalationStep
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable
from watchdog.notifiers.slack import SlackNotifier
from watchdog.service.acts import run_act_and_send
from watchdog.service.expired_acts import end_expired_silences_and_send
from watchdog.service.follow_ups import send_due_reminders_and_escalations
from watchdog.service.slack_requests import SLACK_REQUEST_TOLERANCE_MS
from watchdog.store.act_tables import acts
from watchdog.store.database import Database
from watchdog.store.tables import incidents, outbox, outbox_is_waiting

INCIDENTS_PER_WAVE = 10
"""More at once would be merged into one message, which has no buttons."""
RETRY_STEP_MS = 5_000
MAX_RETRY_STEPS = 2_000
ONCALL, MANAGERS = "bot/slack", "managers/slack"
ESCALATION_MS, REMINDER_MS = 15 * MINUTE_MS, 4 * HOUR_MS
WRONG_SECRET = "f" * 32
_ActResultT = TypeVar("_ActResultT")


class SlackFault(StrEnum):
    """How Slack does not do what it was asked, or does not confirm that it did."""

    RATE_LIMITED = "429"
    INTERNAL_ERROR = "500"
    CONNECTION_LOST = "closed"
    """It posts, and closes the connection without a response."""
    NO_RESPONSE = "silent"
    """It posts, and never responds."""


UNANSWERED_FAULTS = (SlackFault.CONNECTION_LOST, SlackFault.NO_RESPONSE)


class SeenText(StrEnum):
    """What people read in a channel about an incident."""

    OPENED = "opened"
    ACKNOWLEDGED = "acknowledged"
    SILENCED = "silenced"
    UNSILENCED = "unsilenced"
    REMINDER = "reminder"
    RESOLVED = "resolved"
    OTHER = "other"


_PATTERN_BY_SEEN_TEXT = {
    SeenText.ACKNOWLEDGED: r"Acknowledged by Ana Example at ",
    SeenText.SILENCED: r"Silenced by Ana Example until ",
    SeenText.UNSILENCED: r"No longer silenced",
    SeenText.REMINDER: r"Still down for ",
    SeenText.RESOLVED: r"P\d+ recovered ",
    SeenText.OPENED: r"Down: P\d+: HTTP 503",
}


class UnreliableSlack(FakeSlack):
    """Slack with faults, which a seed places."""

    def __init__(self, seed: int, rates: Mapping[SlackFault, float], channel: str = "C0ONCALL") -> None:
        """`rates`: how many of the requests that post or edit meet each fault."""
        super().__init__(channel=channel)
        self._random, self._rates, self._closing = Random(seed), rates, Event()
        self.faults: Counter[SlackFault] = Counter()
        self.unanswered_posts = 0
        """Messages that are in the channel although the request had no response."""

    def default_response(self, request: ReceivedRequest) -> CannedResponse | Callable[[], CannedResponse]:
        if not request.path.endswith(("chat.postMessage", "chat.update")) or (fault := self._choose_fault()) is None:
            return super().default_response(request)
        self.faults[fault] += 1
        if fault is SlackFault.RATE_LIMITED:
            seconds = str(self._random.randint(1, 30))
            return CannedResponse(429, b'{"ok": false, "error": "ratelimited"}', (("retry-after", seconds),))
        if fault is SlackFault.INTERNAL_ERROR:
            return CannedResponse(500, b"internal error")
        super().default_response(request)
        self.unanswered_posts += request.path.endswith("chat.postMessage")
        return lambda: self._leave_unanswered(fault)

    def _choose_fault(self) -> SlackFault | None:
        drawn = self._random.random()
        for fault, rate in self._rates.items():
            if drawn < rate:
                return fault
            drawn -= rate
        return None

    def _leave_unanswered(self, fault: SlackFault) -> CannedResponse:
        if fault is SlackFault.NO_RESPONSE:
            self._closing.wait()
        raise ConnectionResetError

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        super().__exit__(*error)


class SenderKilledError(Exception):
    """Stands for the end of the process after Slack confirmed a message, and before that was stored."""


class LedgerLine(NamedTuple):
    """Texts of one kind about one probe in a channel."""

    destination: str
    probe: str
    text: SeenText


class LedgerResult(NamedTuple):
    """What people saw, compared with what happened."""

    incident_count: int
    text_count: int
    lost: list[LedgerLine]
    extra: list[LedgerLine]
    unanswered_posts: int
    kills: int
    messages_without_end: list[str]
    """Probes none of whose messages shows that the incident is over."""
    wrong_states: list[str]
    """Probes whose message did not show whether the incident was acknowledged or silenced."""
    faults: Counter[SlackFault]
    sent_invalid_requests: Counter[str]
    refused_invalid_requests: Counter[str]
    acts: Counter[str]
    expected_acts: Counter[str]


def read_ledger(slacks: Mapping[str, FakeSlack]) -> Counter[LedgerLine]:
    """What is in the channels. `slacks`: by destination."""
    lines: Counter[LedgerLine] = Counter()
    for destination, slack in slacks.items():
        probe_by_ts = {post["ts"]: find_probe_of_root(post) for post in slack.thread_roots}
        lines.update(LedgerLine(destination, probe, SeenText.OPENED) for probe in probe_by_ts.values())
        for post in slack.posts:
            if "thread_ts" in post:
                lines[LedgerLine(destination, probe_by_ts[post["thread_ts"]], classify(post["text"]))] += 1
    return lines


def find_probe_of_root(post: Mapping[str, Any]) -> str:
    match = re.search(r"\bP(\d+)\b", post["text"])
    assert match is not None, post["text"]
    return f"p{match[1]}"


def classify(text: str) -> SeenText:
    kinds = (kind for kind, pattern in _PATTERN_BY_SEEN_TEXT.items() if re.search(pattern, text))
    return next(kinds, SeenText.OTHER)


REPLIES_BY_CLICK: Mapping[str, tuple[tuple[str, SeenText], ...]] = MappingProxyType(
    {
        "acknowledge": ((ONCALL, SeenText.ACKNOWLEDGED),),
        "silence_1h": (
            (ONCALL, SeenText.SILENCED),
            (ONCALL, SeenText.UNSILENCED),
            (ONCALL, SeenText.REMINDER),
            (MANAGERS, SeenText.OPENED),
            (MANAGERS, SeenText.RESOLVED),
        ),
        "silence_4h": ((ONCALL, SeenText.SILENCED),),
        "silence_until_resolved": ((ONCALL, SeenText.SILENCED),),
        "": (
            (ONCALL, SeenText.REMINDER),
            (MANAGERS, SeenText.OPENED),
            (MANAGERS, SeenText.REMINDER),
            (MANAGERS, SeenText.RESOLVED),
        ),
    }
)
"""What people see besides the opening and the end, by the button that is clicked; empty: none is."""
ACT_BY_CLICK = {name: name.partition("_")[0] for name in REPLIES_BY_CLICK if name}
TEXT_IN_MESSAGE_BY_ACT = {
    "acknowledge": "*Acknowledged* by Ana Example at ",
    "silence": "*Silenced* by Ana Example until ",
}


def make_ledger_probe(number: int) -> RegisteredProbe:
    probe = make_registered_probe(
        f"p{number:04}", failure_threshold=1, success_threshold=1, staleness_threshold=10_000 * HOUR_MS
    )
    info = replace(probe.info, target=f"https://p{number:04}.example/")
    return replace(probe, policy=replace(probe.policy, probe=info), repeat_interval_ms=REMINDER_MS)


class SlackPlay:
    """Incidents from opening to end, whose people act in Slack. `seed` decides who does what, and what goes wrong."""

    def __init__(
        self,
        database: str | Database,
        receivers: Receivers,
        incident_count: int,
        *,
        seed: int,
        rates: Mapping[SlackFault, float],
        kill_rate: float,
    ):
        """`receivers`: their Slack bot is replaced. `rates`: of the requests to Slack. `kill_rate`: of the confirmed
        messages."""
        self._random, self._kill_rate = Random(seed), kill_rate
        self.oncall, self.managers = UnreliableSlack(seed, rates), UnreliableSlack(seed + 1, rates, "C0MANAGERS")
        receivers.bot = self.oncall
        self._probes = [make_ledger_probe(number) for number in range(incident_count)]
        step = EscalationStep(ESCALATION_MS, ("managers",), unless_acknowledged=True)
        routes = NotificationRoutingTable(
            {"oncall": (ONCALL,), "managers": (MANAGERS,)}, (NotificationRoute(("oncall",), escalation_steps=(step,)),)
        )
        secret = {"signing_secret": SIGNING_SECRET}
        self.harness = DeliveryHarness(database, receivers, self._probes, (ONCALL,), routes, secret)
        self.kills = 0
        self._expected: Counter[LedgerLine] = Counter()
        self._expected_acts: Counter[str] = Counter()
        self._wrong_states: list[str] = []
        self._sent_invalid_requests: Counter[str] = Counter()
        self._refused_invalid_requests: Counter[str] = Counter()
        self._clicks_in_order = list(REPLIES_BY_CLICK) * (-(-incident_count // len(REPLIES_BY_CLICK)))
        self._random.shuffle(self._clicks_in_order)

    def __enter__(self) -> Self:
        self.oncall.__enter__()
        self.managers.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.managers.__exit__(*error)
        self.oncall.__exit__(*error)

    async def play(self) -> LedgerResult:
        harness = self.harness
        async with harness:
            manager_bot = {"bot_token": self.managers.token, "channel": self.managers.channel}
            harness.notifiers[MANAGERS] = SlackNotifier.model_validate({**manager_bot, "api_url": self.managers.url})
            self._kill_senders_at_times()
            harness.start_sender()
            self._clicks = SlackClicks(harness, run_act=self._run_act)
            ids = harness.store.database_ids
            for start in range(0, len(ids), INCIDENTS_PER_WAVE):
                await self._play_wave(range(start, min(start + INCIDENTS_PER_WAVE, len(ids))))
            return self._close_ledger()

    async def _run_act(self, act: Callable[[Database, int], _ActResultT], /) -> _ActResultT:
        return await run_act_and_send(self.harness.executor, self.harness.sender, act)

    def _kill_senders_at_times(self) -> None:
        mark_sent = self.harness.store.outbox.mark_sent

        def mark_sent_or_die(*arguments: Any, **options: Any) -> None:
            if self._random.random() < self._kill_rate:
                self.kills += 1
                raise SenderKilledError
            mark_sent(*arguments, **options)

        self.harness.store.outbox.mark_sent = mark_sent_or_die  # type: ignore[method-assign] # of this play only

    async def _play_wave(self, numbers: Sequence[int]) -> None:
        harness, clicks = self.harness, self._clicks_in_order
        harness.now += INTERVAL_MS
        opened_at = harness.now
        self._record(numbers, "fail")
        await self._deliver()
        for number in numbers:
            self._expect(number, (ONCALL, SeenText.OPENED), (ONCALL, SeenText.RESOLVED))
            self._expect(number, *REPLIES_BY_CLICK[clicks[number]])
            if clicks[number]:
                await self._click(self._probes[number].info.id, clicks[number])
        await self._deliver()
        assert harness.now < opened_at + ESCALATION_MS, "the clicks were not in time"
        self._check_shown_states(numbers)
        for after_ms in (ESCALATION_MS, HOUR_MS + ESCALATION_MS):
            await self._deliver_at(opened_at + after_ms)
        self._check_shown_states(numbers, ended="silence_1h")
        await self._deliver_at(opened_at + REMINDER_MS - 10 * MINUTE_MS)
        self._record([number for number in numbers if clicks[number] == "silence_4h"], "pass")
        for after_ms in (10 * MINUTE_MS, 20 * MINUTE_MS, ESCALATION_MS + 20 * MINUTE_MS):
            await self._deliver_at(opened_at + REMINDER_MS - 10 * MINUTE_MS + after_ms)
        self._record([number for number in numbers if clicks[number] != "silence_4h"], "pass")
        await self._deliver()

    def _check_shown_states(self, numbers: Sequence[int], ended: str = "") -> None:
        """What the message in the channel shows to everyone. `ended`: a button whose silence is over."""
        root_by_probe = {find_probe_of_root(post): post for post in self.oncall.thread_roots}  # the last copy is edited
        for number in numbers:
            probe, click = self._probes[number].info.id, self._clicks_in_order[number]
            content = str(root_by_probe[probe]["blocks"])
            stated_acts = [act for act, text in TEXT_IN_MESSAGE_BY_ACT.items() if text in content]
            if stated_acts != ([ACT_BY_CLICK[click]] if click and click != ended else []):
                self._wrong_states.append(probe)

    def _expect(self, number: int, *texts: tuple[str, SeenText]) -> None:
        probe = self._probes[number].info.id
        self._expected.update(LedgerLine(destination, probe, text) for destination, text in texts)

    def _record(self, numbers: Sequence[int], outcome: str) -> None:
        if numbers:
            self.harness.record([self.harness.store.database_ids[number] for number in numbers], outcome)

    async def _deliver_at(self, now: int) -> None:
        self.harness.now = max(now, self.harness.now)
        await self._deliver()

    async def _deliver(self) -> None:
        """Let time pass until nothing more waits to be sent. A sender that was killed is replaced."""
        harness, kills = self.harness, self.kills
        for _ in range(MAX_RETRY_STEPS):
            for task in (send_due_reminders_and_escalations, end_expired_silences_and_send):
                await task(harness.executor, harness.sender, lambda: harness.now)
            await harness.settle()
            if self.kills != kills:
                kills = self.kills
                harness.start_sender()
            if not harness.store.select_rows(outbox, outbox_is_waiting):
                return
            harness.now += RETRY_STEP_MS
        raise AssertionError("notifications still wait to be sent")

    async def _click(self, probe: str, action_id: str) -> None:
        """A person clicks, on any copy of the message; others repeat the request, or imitate it."""
        root = self._random.choice([post for post in self.oncall.thread_roots if find_probe_of_root(post) == probe])
        container = {"type": "message", "message_ts": root["ts"], "channel_id": self.oncall.channel}
        self.harness.now += 1
        value = find_buttons(root)[action_id]["value"]
        body = encode_payload(make_payload(action_id, value, self.harness.now, container=container))
        headers = sign(body, self.harness.now)
        await self._send_invalid_request("a wrong signature", body, sign(body, self.harness.now, WRONG_SECRET))
        old = sign(body, self.harness.now - SLACK_REQUEST_TOLERANCE_MS - 1_000)
        await self._send_invalid_request("an old timestamp", body, old)
        response = await self._clicks.post(body, headers)
        assert response.status_code == 200, response.text
        self._expected_acts[ACT_BY_CLICK[action_id]] += 1
        await self._send_invalid_request("a used signature", body, headers)

    async def _send_invalid_request(self, kind: str, body: bytes, headers: Mapping[str, str]) -> None:
        response = await self._clicks.post(body, headers)
        self._sent_invalid_requests[kind] += 1
        self._refused_invalid_requests[kind] += response.status_code == 403

    def _close_ledger(self) -> LedgerResult:
        slacks = {ONCALL: self.oncall, MANAGERS: self.managers}
        in_channels = read_ledger(slacks)
        over = {find_probe_of_root(post) for post in self.oncall.thread_roots if " recovered " in post["text"]}
        return LedgerResult(
            incident_count=len(self.harness.store.select_rows(incidents, incidents.c.resolved_at.is_not(None))),
            text_count=in_channels.total(),
            lost=list((self._expected - in_channels).elements()),
            extra=list((in_channels - self._expected).elements()),
            unanswered_posts=sum(slack.unanswered_posts for slack in slacks.values()),
            kills=self.kills,
            wrong_states=self._wrong_states,
            messages_without_end=sorted({probe.info.id for probe in self._probes} - over),
            faults=self.oncall.faults + self.managers.faults,
            sent_invalid_requests=self._sent_invalid_requests,
            refused_invalid_requests=self._refused_invalid_requests,
            acts=Counter(row["kind"] for row in self.harness.store.select_rows(acts)),
            expected_acts=self._expected_acts,
        )
