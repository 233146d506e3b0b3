"""Clicks on the buttons of Slack messages, from the message that is sent to the message that is edited."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.acts import BEN
from tests.support.alert_contexts import HOSTILE_TEXTS
from tests.support.delivery import DeliveryHarness, Receivers
from tests.support.fakes import CannedResponse
from tests.support.polling import wait_until_async
from tests.support.slack_clicks import (
    ANA_IN_SLACK,
    SIGNING_SECRET,
    SlackClicks,
    encode_payload,
    find_buttons,
    make_payload,
    sign,
)
from tests.support.store import INTERVAL_MS, make_registered_probe, make_result
from watchdog.domain.formatting import HOUR_MS, NBSP
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.notifiers.slack import SlackNotifier
from watchdog.service import slack_clicks
from watchdog.service.acts import acknowledge_incident, end_silence, remove_acknowledgement
from watchdog.service.slack_clicks import (
    MESSAGE_IS_OVER_TEXT,
    NO_RUN_RESULT_TEXT,
    RUN_REQUESTED_BEFORE_TEXT,
    SLACK_CLICK_DATABASE_UNAVAILABLE_TEXT,
)
from watchdog.service.slack_requests import parse_slack_click
from watchdog.store.act_tables import acts, requested_runs, silences
from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.outbox_filters import MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS
from watchdog.store.read.acts import list_silences_in_effect
from watchdog.store.read.messages import SentMessage
from watchdog.store.tables import incidents
from watchdog.web import ApiKey
from watchdog.web.routes.slack import MAX_SLACK_REQUEST_BODY_BYTES, build_slack_interactivity

BOT_ONLY = ("bot/slack",)
OTHER_SECRET = "0123456789abcdef0123456789abcdef"
ACKNOWLEDGE, SILENCE_1H, SILENCE_4H, RUN_NOW = "acknowledge", "silence_1h", "silence_4h", "run_now"
UNTIL_RESOLVED = "silence_until_resolved"


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    with Receivers() as receivers:
        yield receivers


@pytest.fixture(autouse=True)
def no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a slow machine passes."""
    monkeypatch.setattr(slack_clicks, "SLACK_ACT_TIMEOUT_S", 300.0)


def make_probe(probe_id: str, target: str = "https://api.example/") -> RegisteredProbe:
    probe = make_registered_probe(probe_id, failure_threshold=1, success_threshold=1, staleness_threshold=10 * HOUR_MS)
    return replace(probe, policy=replace(probe.policy, probe=replace(probe.info, target=target)))


def make_harness(
    database: Database | str, receivers: Receivers, probe_ids: tuple[str, ...] = ("api",), secret: str = SIGNING_SECRET
) -> DeliveryHarness:
    probes = [make_probe(probe_id) for probe_id in probe_ids]
    return DeliveryHarness(database, receivers, probes, BOT_ONLY, bot_options={"signing_secret": secret})


async def open_incidents(harness: DeliveryHarness, *probe_ids: str, **fields: Any) -> None:
    """And send their message."""
    ids = [harness.store.database_id(probe_id) for probe_id in probe_ids]
    harness.record(ids or harness.store.database_ids, "fail", **fields)
    await harness.settle()
    harness.now += 2_000


def list_acts(harness: DeliveryHarness) -> list[tuple[str, str, str]]:
    return [(row["kind"], row["author"], row["interface"]) for row in harness.store.select_rows(acts)]


async def test_acknowledging_edits_the_message(database: Database, receivers: Receivers) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incidents(harness)
        clicks = SlackClicks(harness)
        response = await clicks.click(ACKNOWLEDGE)
        assert (response.status_code, response.content) == (200, b"")
        root, reply = harness.bot.posts
        assert "*Acknowledged* by Ana Example at" in str(root["blocks"])
        assert list(find_buttons(root)) == [SILENCE_1H, SILENCE_4H, UNTIL_RESOLVED, RUN_NOW, "details"]
        assert "Acknowledged by Ana Example at" in reply["text"]
        assert list_acts(harness) == [("acknowledge", "Ana Example", "slack")]
        assert harness.bot.texts_to_one_person == [], "the message shows it"
        row = harness.store.select_row(incidents)
        assert (row["acknowledged_by"], row["acknowledged_through"]) == ("Ana Example", "slack")
        remove_acknowledgement(harness.store.database, row["id"], BEN, "", harness.now)
        await harness.settle()
        assert ACKNOWLEDGE in find_buttons(root), "it can be acknowledged again"


async def test_acknowledging_twice_is_harmless(database: Database, receivers: Receivers) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incidents(harness)
        clicks, value = SlackClicks(harness), find_buttons(harness.bot.posts[0])[ACKNOWLEDGE]["value"]
        for person in (ANA_IN_SLACK, {"id": "U0BEN", "real_name": "Ben"}):
            harness.now += 150
            assert (await clicks.click(ACKNOWLEDGE, value, user=person)).status_code == 200
        assert list_acts(harness) == [("acknowledge", "Ana Example", "slack")]
        assert len(harness.bot.posts) == 2
        ((person_id, text),) = harness.bot.texts_to_one_person
        assert person_id == "U0BEN"
        assert text.startswith("Already acknowledged by Ana Example at ")


@pytest.mark.parametrize(("action_id", "hours"), [(SILENCE_1H, 1), (SILENCE_4H, 4)])
async def test_silencing(database: Database, receivers: Receivers, action_id: str, hours: int) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incidents(harness)
        response = await SlackClicks(harness).click(action_id)
        assert (response.status_code, response.content) == (200, b"")
        with harness.store.database.open_read_transaction() as connection:
            (silence,) = list_silences_in_effect(connection)
        assert silence.ends_at == harness.now + hours * HOUR_MS
        assert (silence.actor.name, silence.actor.interface) == ("Ana Example", "slack")
        assert silence.matcher.probe.probe == "api"
        ((person_id, text),) = harness.bot.texts_to_one_person
        assert person_id == "U0ANA"
        assert text.startswith("Silenced by Ana Example until ")
        assert text.endswith(f". To end it: watchdog unsilence {silence.id}")
        assert list_acts(harness) == [("silence", "Ana Example", "slack")]


async def test_silencing_until_resolved(database: Database, receivers: Receivers) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incidents(harness)
        clicks = SlackClicks(harness)
        for _ in range(2):
            assert (await clicks.click(UNTIL_RESOLVED)).status_code == 200
            harness.now += 700
        (silence,) = harness.store.select_rows(silences)
        assert silence["incident"] == harness.store.select_row(incidents)["id"]
        text = f"Silenced by Ana Example until the incident is resolved. To end it: watchdog unsilence {silence['id']}"
        assert harness.bot.texts_to_one_person == [("U0ANA", text)] * 2
        assert list_acts(harness) == [("silence", "Ana Example", "slack")]
        await clicks.click(SILENCE_1H)
        assert len(harness.store.select_rows(silences)) == 2, "it holds back later incidents as well"


async def test_two_clicks_on_silence_begin_one_silence(database: Database, receivers: Receivers) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incidents(harness)
        clicks = SlackClicks(harness)
        for person in (ANA_IN_SLACK, ANA_IN_SLACK, {"id": "U0BEN", "real_name": "Ben"}):
            await clicks.click(SILENCE_1H, user=person)
            harness.now += 700
        assert len(harness.store.select_rows(silences)) == 1
        texts = [text for _, text in harness.bot.texts_to_one_person]
        assert len(texts) == 3
        assert len(set(texts)) == 1, "each of them sees the silence that is in effect"
        await clicks.click(SILENCE_4H)
        assert len(harness.store.select_rows(silences)) == 2, "a longer one"
        await clicks.click(SILENCE_1H)
        assert len(harness.store.select_rows(silences)) == 2, "a shorter one adds nothing"
        harness.now += 4 * HOUR_MS
        await clicks.click(SILENCE_1H)
        assert len(harness.store.select_rows(silences)) == 3, "on purpose"


@pytest.mark.parametrize(
    ("outcome", "message", "text"),
    [
        ("fail", "HTTP 503, expected 200", "Api failed: HTTP 503, expected 200 (182 ms)"),
        ("pass", "", "Api passed (182 ms)"),
        ("error", "<!channel> the network failed", "Api has no verdict: &lt;!channel&gt; the network failed (182 ms)"),
    ],
)
async def test_a_run_takes_place_once_and_its_result_is_shown(
    database: Database, receivers: Receivers, outcome: str, message: str, text: str
) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incidents(harness)
        harness.store.advance_watermark(harness.now)
        clicks, value = SlackClicks(harness), find_buttons(harness.bot.posts[0])[RUN_NOW]["value"]
        first_click = asyncio.create_task(clicks.click(RUN_NOW))
        await wait_until_async(lambda: harness.store.select_rows(requested_runs))
        assert (await clicks.click(RUN_NOW, value, user={"id": "U0BEN", "real_name": "Ben"})).status_code == 200
        assert harness.bot.texts_to_one_person == [("U0BEN", RUN_REQUESTED_BEFORE_TEXT)]
        (run,) = [run for run in harness.store.claim_slots(harness.now) if run.is_requested]
        result = make_result(run.probe, run.slot, outcome, message=message, measurements={"manual": True})
        harness.store.record_results(result, now=harness.now)
        assert (await first_click).status_code == 200
        person_id, shown_text = harness.bot.texts_to_one_person[1]
        assert (person_id, shown_text.replace(NBSP, " ")) == ("U0ANA", text)
        assert list_acts(harness) == [("run_now", "Ana Example", "slack")]
        assert (ACKNOWLEDGE in find_buttons(harness.bot.posts[0])) == (outcome != "pass")


async def test_a_run_that_cannot_take_place_is_explained(database: Database, receivers: Receivers) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incidents(harness)
        harness.store.advance_watermark(harness.now - HOUR_MS)
        assert (await SlackClicks(harness).click(RUN_NOW)).status_code == 200
        ((person_id, text),) = harness.bot.texts_to_one_person
        assert person_id == "U0ANA"
        assert text.startswith("No process can run Api: ")
        assert list_acts(harness) == []


async def test_a_run_without_a_result_is_explained(
    tmp_path: Path, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slack_clicks, "SLACK_RUN_RESULT_TIMEOUT_S", 0.0)
    async with make_harness(f"sqlite:///{tmp_path}/watchdog.db", receivers) as harness:
        await open_incidents(harness)
        harness.store.advance_watermark(harness.now)
        assert (await SlackClicks(harness).click(RUN_NOW)).status_code == 200
        assert harness.bot.texts_to_one_person == [("U0ANA", NO_RUN_RESULT_TEXT)]


@pytest.mark.parametrize("action_id", [ACKNOWLEDGE, SILENCE_1H])
async def test_a_repeated_request_is_refused_in_every_process(
    database: Database, receivers: Receivers, action_id: str
) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incidents(harness)
        processes = [SlackClicks(harness), SlackClicks(harness)]
        value = find_buttons(harness.bot.posts[0])[action_id]["value"]
        body = encode_payload(make_payload(action_id, value, harness.now))
        headers = sign(body, harness.now)
        assert (await processes[0].post(body, headers)).status_code == 200
        if action_id == ACKNOWLEDGE:
            incident = harness.store.select_row(incidents)["id"]
            remove_acknowledgement(harness.store.database, incident, BEN, "", harness.now)
        else:
            (silence,) = harness.store.select_rows(silences)
            end_silence(harness.store.database, silence["id"], BEN, harness.now)
        acts_before, texts_before = list_acts(harness), len(harness.bot.texts_to_one_person)
        for process in processes:
            harness.now += 140_000
            response = await process.post(body, headers)
            assert (response.status_code, response.json()["detail"]) == (403, "The request was made before.")
        assert list_acts(harness) == acts_before
        assert len(harness.bot.texts_to_one_person) == texts_before


async def test_two_processes_that_get_the_same_request_at_once_act_once(
    database: Database, receivers: Receivers
) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incidents(harness)
        value = find_buttons(harness.bot.posts[0])[SILENCE_1H]["value"]
        body = encode_payload(make_payload(SILENCE_1H, value, harness.now))
        headers = sign(body, harness.now)
        responses = await asyncio.gather(*(SlackClicks(harness).post(body, headers) for _ in range(4)))
        assert sorted(response.status_code for response in responses) == [200, 403, 403, 403]
        assert list_acts(harness) == [("silence", "Ana Example", "slack")]


async def test_a_request_without_a_recent_time_is_refused_before_its_body_is_read(
    tmp_path: Path, receivers: Receivers
) -> None:
    async with make_harness(f"sqlite:///{tmp_path}/watchdog.db", receivers) as harness:
        await open_incidents(harness)
        too_long = b"payload=" + b"x" * MAX_SLACK_REQUEST_BODY_BYTES
        for headers in ({}, sign(too_long, harness.now - 301_000)):
            assert (await SlackClicks(harness).post(too_long, headers)).status_code == 403


async def test_a_click_on_the_link_does_nothing(database: Database, receivers: Receivers) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incidents(harness)
        response = await SlackClicks(harness).send(make_payload("details", "", harness.now))
        assert (response.status_code, response.content) == (200, b"")
        assert list_acts(harness) == []


@pytest.mark.parametrize("action_id", [ACKNOWLEDGE, SILENCE_1H])
async def test_an_incident_that_is_over_is_explained(database: Database, receivers: Receivers, action_id: str) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incidents(harness)
        value = find_buttons(harness.bot.posts[0])[action_id]["value"]
        harness.now += INTERVAL_MS
        harness.record(harness.store.database_ids, "pass")
        await harness.settle()
        assert action_id not in find_buttons(harness.bot.posts[0])
        response = await SlackClicks(harness).click(action_id, value)
        assert response.status_code == 200
        assert harness.bot.texts_to_one_person == [("U0ANA", MESSAGE_IS_OVER_TEXT)]
        assert list_acts(harness) == []


async def test_only_incidents_of_the_receiver_whose_secret_it_is_are_acted_on(
    database: Database, receivers: Receivers
) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incidents(harness)
        other = SlackNotifier.model_validate(
            {"bot_token": "xoxb-other", "channel": "#other", "api_url": harness.bot.url, "signing_secret": OTHER_SECRET}
        )
        notifiers = {"other/slack": other, **harness.notifiers}
        slack = build_slack_interactivity(notifiers, harness.network)
        clicks = SlackClicks(harness, slack=slack)
        value = find_buttons(harness.bot.posts[0])[ACKNOWLEDGE]["value"]
        payload = make_payload(ACKNOWLEDGE, value, harness.now)
        with capture_logs() as logs:
            response = await clicks.send(payload, OTHER_SECRET)
        assert response.status_code == 404
        assert [(log["event"], log["destinations"]) for log in logs] == [("slack_request_refused", ["other/slack"])]
        assert list_acts(harness) == []
        assert (await clicks.send(payload)).status_code == 200
        assert list_acts(harness) == [("acknowledge", "Ana Example", "slack")]


@pytest.mark.parametrize(
    ("changes", "status_code", "detail"),
    [
        ({"channel": {"id": "C0OTHER"}}, 403, "another channel"),
        ({"team": {"id": "T0OTHER"}, "user": {"id": "U0EVE", "team_id": "T0OTHER"}}, 403, "another workspace"),
        ({"user": {"id": "U0EVE", "team_id": "T0OTHER"}}, 403, "another workspace"),
        ({"type": "view_submission"}, 400, "not valid: type"),
        ({"actions": []}, 400, "not valid: actions"),
        ({"value": f"{1:024x}:1700000000000"}, 404, "no message about this incident"),
        ({"value": "drop table"}, 400, "not one of Watchdog's"),
        ({"action_id": "delete_everything"}, 400, "no such button"),
    ],
)
async def test_what_is_signed_but_not_a_click_of_the_message_is_refused(
    database: Database, receivers: Receivers, changes: dict[str, Any], status_code: int, detail: str
) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incidents(harness)
        value = find_buttons(harness.bot.posts[0])[ACKNOWLEDGE]["value"]
        values: dict[str, Any] = {"action_id": ACKNOWLEDGE, "value": value, "clicked_at": harness.now, **changes}
        with capture_logs() as logs:
            response = await SlackClicks(harness).send(make_payload(**values))
        assert response.status_code == status_code
        assert detail in response.json()["detail"]
        assert response.headers["content-type"] == "application/problem+json"
        refusals = [log for log in logs if log["event"] == "slack_request_refused"]
        assert len(refusals) == 1
        assert detail in refusals[0]["error"]
        assert list_acts(harness) == []
        assert harness.bot.texts_to_one_person == []


async def test_requests_that_slack_has_not_signed_are_refused_and_logged_once_a_minute(
    tmp_path: Path, receivers: Receivers
) -> None:
    async with make_harness(f"sqlite:///{tmp_path}/watchdog.db", receivers) as harness:
        await open_incidents(harness)
        clicks, value = SlackClicks(harness), find_buttons(harness.bot.posts[0])[ACKNOWLEDGE]["value"]
        body = encode_payload(make_payload(ACKNOWLEDGE, value, harness.now))
        with capture_logs() as logs:
            for headers in (
                {},
                sign(body, harness.now, OTHER_SECRET),
                sign(body + b"x", harness.now),
                sign(body, harness.now - 301_000),
                sign(body, harness.now + 301_000),
            ):
                response = await clicks.post(body, headers)
                assert response.status_code == 403
                assert SIGNING_SECRET not in response.text
            harness.now += 60_000
            await clicks.post(body, {})
        assert [(log["event"], log["count"]) for log in logs] == [
            ("slack_request_not_verified", 1),
            ("slack_request_not_verified", 5),
        ]
        assert list_acts(harness) == []


@pytest.mark.parametrize("name", [*HOSTILE_TEXTS, "Ana\r\nBcc: x", "\x1b[2J", "<@U0BEN>", "x" * 10_240])
async def test_a_hostile_name_is_text(tmp_path: Path, receivers: Receivers, name: str) -> None:
    async with make_harness(f"sqlite:///{tmp_path}/watchdog.db", receivers) as harness:
        await open_incidents(harness)
        person = {"id": "U0EVE", "real_name": name.encode("utf-8", "replace").decode()}
        clicks, value = SlackClicks(harness), find_buttons(harness.bot.posts[0])[ACKNOWLEDGE]["value"]
        for action_id in (ACKNOWLEDGE, ACKNOWLEDGE, SILENCE_1H):
            harness.now += 100
            assert (await clicks.click(action_id, value, user=person)).status_code == 200
        authors = {author for _, author, _ in list_acts(harness)}
        assert [author for author in authors if not author or len(author) > 100 or "\n" in author] == []
        assert len(harness.bot.texts_to_one_person) == 2
        visible = f"{harness.bot.posts} {harness.bot.texts_to_one_person}"
        for markup in ("<!", "<@", "<http", "<#", "\x1b", "\u202e", "\\x1b", "\\u202e"):
            assert markup not in visible.replace("<https://status.example/", "")


GROUP = ("api-1", "api-2", "api-3")
REFUSED = {"reason": "connection.refused", "message": "connection refused"}


async def test_a_group_is_acknowledged_at_once(database: Database, receivers: Receivers) -> None:
    async with make_harness(database, receivers, GROUP) as harness:
        await open_incidents(harness, **REFUSED)
        assert find_buttons(harness.bot.posts[0])[ACKNOWLEDGE]["text"]["text"] == "Acknowledge all 3"
        harness.now += MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS
        assert (await SlackClicks(harness).click(ACKNOWLEDGE)).status_code == 200
        assert list_acts(harness) == [("acknowledge", "Ana Example", "slack")] * 3
        root, reply = harness.bot.posts
        assert "*Acknowledged* by Ana Example at" in str(root["blocks"])
        assert ACKNOWLEDGE not in find_buttons(root)
        assert "Acknowledged by Ana Example at" in reply["text"]


async def test_a_group_is_silenced_once(database: Database, receivers: Receivers) -> None:
    async with make_harness(database, receivers, GROUP) as harness:
        await open_incidents(harness, **REFUSED)
        clicks = SlackClicks(harness)
        for _ in range(2):
            await clicks.click(SILENCE_1H)
            harness.now += 300
        with harness.store.database.open_read_transaction() as connection:
            matched = sorted(silence.matcher.probe.probe for silence in list_silences_in_effect(connection))
        assert matched == sorted(GROUP)
        texts = [text for _, text in harness.bot.texts_to_one_person]
        assert [text.startswith("Silenced until ") and "3 silences" in text for text in texts] == [True, True]


async def test_each_incident_of_a_group_is_silenced_until_it_is_resolved(
    database: Database, receivers: Receivers
) -> None:
    async with make_harness(database, receivers, GROUP) as harness:
        await open_incidents(harness, **REFUSED)
        button = find_buttons(harness.bot.posts[0])[UNTIL_RESOLVED]
        assert button["text"]["text"] == "Silence all until resolved"
        harness.record(harness.store.database_ids[:1], "pass")
        await harness.settle()
        clicks = SlackClicks(harness)
        for _ in range(2):
            harness.now += MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS
            await clicks.click(UNTIL_RESOLVED, button["value"])
        open_ids = {row["id"] for row in harness.store.select_rows(incidents) if row["resolved_at"] is None}
        assert sorted(row["incident"] for row in harness.store.select_rows(silences)) == sorted(open_ids)
        assert len(open_ids) == 2
        assert "*Silenced* by Ana Example until the incident is resolved" in str(harness.bot.posts[0]["blocks"])
        first, second = (text for _, text in harness.bot.texts_to_one_person)
        assert first == second
        assert first.startswith("Silenced until each incident is resolved, by 2 silences. To end them: ")


async def test_an_incident_that_the_message_did_not_list_is_not_acted_on(
    database: Database, receivers: Receivers
) -> None:
    async with make_harness(database, receivers, GROUP) as harness:
        await open_incidents(harness, "api-1", "api-2", **REFUSED)
        value = find_buttons(harness.bot.posts[0])[ACKNOWLEDGE]["value"]
        await open_incidents(harness, "api-3", **REFUSED)
        await SlackClicks(harness).click(ACKNOWLEDGE, value)
        rows = harness.store.select_rows(incidents)
        assert sorted(row["acknowledged_by"] for row in rows) == ["", "Ana Example", "Ana Example"]
        await harness.advance(2 * MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS)
        root = harness.bot.posts[0]
        assert "*Acknowledged* 2 of 3 by Ana Example at" in str(root["blocks"])
        assert find_buttons(root)[ACKNOWLEDGE]["text"]["text"] == "Acknowledge"
        await SlackClicks(harness).click(ACKNOWLEDGE)
        assert len(list_acts(harness)) == 3, "the message lists it by now"


async def test_an_unavailable_database_is_explained(tmp_path: Path, receivers: Receivers) -> None:
    async def fail(_: Any) -> Any:
        raise StoreUnavailableError("locked")

    async with make_harness(f"sqlite:///{tmp_path}/watchdog.db", receivers) as harness:
        await open_incidents(harness)
        for options in ({"run_read_query": fail}, {"run_act": fail}):
            assert (await SlackClicks(harness, **options).click(ACKNOWLEDGE)).status_code == 200
            harness.now += 1_000
        assert harness.bot.texts_to_one_person == [("U0ANA", SLACK_CLICK_DATABASE_UNAVAILABLE_TEXT)] * 2
        assert list_acts(harness) == []


async def test_a_text_that_cannot_be_shown_is_logged(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(f"sqlite:///{tmp_path}/watchdog.db", receivers) as harness:
        await open_incidents(harness)
        harness.bot.canned_responses.append(CannedResponse(200, b'{"ok": false, "error": "user_not_in_channel"}'))
        with capture_logs() as logs:
            assert (await SlackClicks(harness).click(SILENCE_1H)).status_code == 200
        (log,) = [log for log in logs if log["event"] == "slack_reply_not_delivered"]
        assert log["error"] == "Slack error user_not_in_channel"
        assert len(harness.store.select_rows(silences)) == 1


async def test_no_receiver_has_a_signing_secret(tmp_path: Path, receivers: Receivers) -> None:
    probes = [make_probe("api")]
    async with DeliveryHarness(f"sqlite:///{tmp_path}/watchdog.db", receivers, probes, BOT_ONLY) as harness:
        await open_incidents(harness)
        assert list(find_buttons(harness.bot.posts[0])) == ["details"]
        response = await SlackClicks(harness).send(make_payload("details", "", harness.now))
        assert response.status_code == 404
        assert "signing_secret" in response.json()["detail"]


async def test_neither_api_keys_nor_the_csrf_check_apply(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(f"sqlite:///{tmp_path}/watchdog.db", receivers) as harness:
        await open_incidents(harness)
        clicks = SlackClicks(harness, api_keys=[ApiKey("ops", "operator", "k" * 30)])
        value = find_buttons(harness.bot.posts[0])[ACKNOWLEDGE]["value"]
        body = encode_payload(make_payload(ACKNOWLEDGE, value, harness.now))
        foreign = {"Origin": "https://slack.com", "Sec-Fetch-Site": "cross-site", "Cookie": "watchdog_session=x"}
        assert (await clicks.post(body, sign(body, harness.now) | foreign)).status_code == 200
        assert list_acts(harness) == [("acknowledge", "Ana Example", "slack")]


async def test_a_key_does_not_replace_the_signature(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(f"sqlite:///{tmp_path}/watchdog.db", receivers) as harness:
        await open_incidents(harness)
        clicks = SlackClicks(harness, api_keys=[ApiKey("ops", "operator", "k" * 30)])
        body = encode_payload(make_payload(ACKNOWLEDGE, "", harness.now))
        assert (await clicks.post(body, {"Authorization": f"Bearer {'k' * 30}"})).status_code == 403


async def test_the_body_is_bounded(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(f"sqlite:///{tmp_path}/watchdog.db", receivers) as harness:
        await open_incidents(harness)
        clicks, value = SlackClicks(harness), find_buttons(harness.bot.posts[0])[ACKNOWLEDGE]["value"]
        too_long = b"payload=" + b"x" * MAX_SLACK_REQUEST_BODY_BYTES
        assert (await clicks.post(too_long, sign(too_long, harness.now))).status_code == 413
        long_message = {"type": "message", "text": "✕" * 33_000}
        assert (await clicks.click(ACKNOWLEDGE, value, message=long_message)).status_code == 200
        assert list_acts(harness) == [("acknowledge", "Ana Example", "slack")]


async def test_an_acknowledgement_from_elsewhere_removes_the_button(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(f"sqlite:///{tmp_path}/watchdog.db", receivers) as harness:
        await open_incidents(harness)
        acknowledge_incident(harness.store.database, harness.store.select_row(incidents)["id"], BEN, "", harness.now)
        await harness.settle()
        assert ACKNOWLEDGE not in find_buttons(harness.bot.posts[0])


@pytest.mark.parametrize(
    ("message_ts", "destination"), [("1.1", "oncall/slack"), ("2.2", "team/slack"), ("", "oncall/slack")]
)
def test_the_message_is_the_one_with_the_button(
    monkeypatch: pytest.MonkeyPatch, message_ts: str, destination: str
) -> None:
    """Two receivers with one app and one channel each have a message about the incident."""
    sent = [
        SentMessage(name, {"channel": "C0ONCALL", "ts": ts})
        for name, ts in (("oncall/slack", "1.1"), ("team/slack", "2.2"))
    ]
    monkeypatch.setattr(slack_clicks, "list_messages_of_incident", lambda *_: sent)
    monkeypatch.setattr(slack_clicks, "list_open_incidents_of_message", lambda *_: [])
    payload = make_payload(ACKNOWLEDGE, "1c9b:1", 1, container={"type": "message", "message_ts": message_ts})
    click = parse_slack_click(encode_payload(payload))
    assert click.message is not None
    connection: Any = None
    content = slack_clicks.load_message_of_click(connection, click, click.message, ["oncall/slack", "team/slack"])
    assert content.sent.destination == destination
