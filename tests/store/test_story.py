"""What a notification may tell: every field, for each kind of incident."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.store.lab import EVERY, HERE, T0, Lab, member, report, result, series
from watchdog.model import Event, Evidence, Incident, Notification, Outcome, Run, Sample, Severity, Story, Task
from watchdog.store import story as telling
from watchdog.store.database import Database
from watchdog.store.story import RECENT, story
from watchdog.store.tables import evidence, results

FAIL, PASS = Outcome.FAIL, Outcome.PASS
GOT = "got 503"


def at(slot: int) -> int:
    return T0 + slot * EVERY


def told(lab: Lab, incident: str, event: Event = Event.OPENED, now: int | None = None, **more: object) -> Story:
    with lab.database.read() as connection:
        notification = Notification(incident, "oncall/slack", int(event is Event.RESOLVED), event)
        return story(connection, notification, now or at(10), **more)  # type: ignore[arg-type]


def test_a_target_that_is_down(database: Database) -> None:
    lab = Lab(database, [member(after=3, severity=Severity.CRITICAL)])
    probe = lab.ids[0]
    for made, excerpt in zip(series(probe, "ppfff"), ("", "", "first", "", "last"), strict=True):
        lab.journal.record([report(made, excerpt)], made.slot + 300)
    incident = told(lab, lab.live(probe)["availability", ""].incident or "").incident
    seen = told(lab, incident.id, now=at(5) + 400, link="https://status.example")
    assert seen == Story(
        event=Event.OPENED,
        incident=Incident(
            incident.id, probe, "availability", "", Severity.CRITICAL, at(3), at(5) + 300, "http.status", GOT
        ),
        probe=lab.fleet[probe].info,
        now=at(5) + 400,
        streak=3,
        needed=3,
        last_good=Run(at(2), PASS, 182),
        recent=tuple(Run(at(i), o, 182) for i, o in enumerate([PASS, PASS, FAIL, FAIL, FAIL], 1)),
        first_bad=Sample(
            at(3), HERE, FAIL, "http.status", GOT, 182, Evidence({"status": 503}, "first")
        ),
        latest=Sample(at(5), HERE, FAIL, "http.status", GOT, 182, Evidence({"status": 503}, "last")),
        location=HERE,
        link=f"https://status.example/incidents/{incident.id}",
    )  # fmt: skip


def test_a_target_that_recovered(database: Database) -> None:
    lab = Lab(database, [member(after=2)])
    (opened, resolved) = lab.feed(*series(lab.ids[0], "pffpffpp"))
    seen = told(lab, opened.incident, Event.RESOLVED, merged=True)
    assert resolved.slot == at(8)
    assert (seen.event, seen.merged, seen.link) == (Event.RESOLVED, True, "")
    assert (seen.incident.state, seen.incident.resolved_at, seen.incident.resolution) == (
        "resolved", at(8) + 300, ""
    )  # fmt: skip
    assert seen.streak == 4, "those that failed, up to the end"
    assert seen.last_good == Run(at(1), PASS, 182)
    assert seen.latest
    assert (seen.latest.slot, seen.latest.outcome, seen.latest.evidence) == (at(8), PASS, Evidence())


def test_what_failed_after_the_end_or_came_too_late_does_not_count(database: Database) -> None:
    lab = Lab(database, [member(after=2)])
    opened = lab.feed(*series(lab.ids[0], "ffppfff"))[0]
    lab.record(result(lab.ids[0], at(2) + 1_000, "fail"), now=at(8))
    assert told(lab, opened.incident, Event.RESOLVED).streak == 2


def test_a_target_that_never_was_up(database: Database) -> None:
    lab = Lab(database, [member(after=1)])
    (opened,) = lab.feed(*series(lab.ids[0], "f"))
    seen = told(lab, opened.incident)
    assert (seen.last_good, len(seen.recent), seen.streak, seen.needed) == (None, 1, 1, 1)


@pytest.mark.parametrize("outcome", ["pass", "fail"])
def test_a_task_that_fails(database: Database, outcome: str) -> None:
    """Its server answers, and may call that an error: only the results in which the task was bad are counted."""
    lab = Lab(database, [member(after=2, task_limits={"*": 60_000})])
    well, stale, failed = Task(True, 1_000), Task(True, 90_000), Task(False, 1_000, None, "", "boom")
    reason = "" if outcome == "pass" else "mcp.tool_error"
    changes = []
    for i, nightly in enumerate([well, failed, stale, well, failed, well, well], 1):
        good = nightly is well
        made = result(
            lab.ids[0], at(i), "pass" if good else outcome, reason="" if good else reason,
            tasks={"nightly": nightly, "hourly": well},
        )  # fmt: skip
        changes += lab.record(made)
    assert [c.event for c in changes] == [Event.OPENED, Event.RESOLVED]
    seen = told(lab, changes[0].incident)
    assert (seen.incident.rule, seen.incident.subject, seen.incident.since) == ("task", "nightly", at(2))
    assert seen.incident.message.startswith("task nightly is stale: last run 1")
    assert seen.incident.reason == "task.stale"
    assert seen.probe.task_limits == {"*": 60_000}
    assert (seen.streak, seen.needed) == (3, 2)
    assert seen.last_good == Run(at(1), PASS, 182)
    assert seen.first_bad
    assert seen.first_bad.slot == at(2)


def test_a_probe_that_fell_silent(database: Database) -> None:
    lab = Lab(database, [member()]).without_gaps()
    lab.feed(*series(lab.ids[0], "pp"))
    (opened,) = lab.wake(at(2) + 300_000)
    seen = told(lab, opened.incident)
    assert (seen.incident.rule, seen.incident.message) == ("stale", "no result for 5\N{NO-BREAK SPACE}min")
    assert (seen.incident.since, seen.incident.opened_at) == (at(2), at(2) + 300_000)
    assert (seen.streak, seen.needed) == (0, 1)
    assert seen.last_good == Run(at(2), PASS, 182), "the last that came"
    assert seen.latest
    assert seen.latest.slot == at(2)
    lab.record(result(lab.ids[0], at(9), "fail"))
    assert told(lab, opened.incident, Event.RESOLVED).streak == 0


def test_a_probe_that_never_spoke(database: Database) -> None:
    lab = Lab(database, [member()]).without_gaps()
    lab.wake(T0)
    (opened,) = lab.wake(T0 + 300_000)
    seen = told(lab, opened.incident)
    assert (seen.last_good, seen.recent, seen.first_bad, seen.latest, seen.location) == (None, (), None, None, "")


def test_what_we_could_not_judge(database: Database) -> None:
    lab = Lab(database, [member(after=2)])
    (opened,) = lab.feed(*series(lab.ids[0], "peeme"))
    seen = told(lab, opened.incident)
    assert (seen.incident.rule, seen.incident.reason, seen.streak) == ("unjudged", "watchdog.internal_error", 3)


def test_recent_runs_are_the_newest_without_slots_that_nobody_ran(database: Database) -> None:
    lab = Lab(database, [member(after=1)])
    changes = lab.feed(*series(lab.ids[0], "p" * 15 + "m" + "p" * 14 + "f", every=1_000))
    seen = told(lab, changes[0].incident)
    assert len(seen.recent) == RECENT
    assert [run.slot - T0 for run in seen.recent] == [i * 1_000 for i in range(11, 32) if i != 16]
    assert seen.recent[-1].outcome is FAIL


@pytest.mark.parametrize("rule", ["availability", "preference", "unjudged"])
def test_a_long_incident_is_counted_without_judging_all_of_it(
    database: Database, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    monkeypatch.setattr(telling, "COUNTED", 5)
    lab = Lab(database, [member(after=1)])
    bad = {"availability": "fail", "preference": "pass", "unjudged": "error"}[rule]
    preferences = {"x": "not so"} if rule == "preference" else None
    made = [result(lab.ids[0], T0 + i * 1_000, bad, preferences=preferences) for i in range(1, 13)]
    if rule != "preference":
        made[2] = result(lab.ids[0], T0 + 3_000)
    made[3] = result(lab.ids[0], T0 + 4_000, "missed")
    (opened,) = lab.record(*made)
    assert opened.rule == rule
    assert told(lab, opened.incident).streak == (11 if rule == "preference" else 10)


def test_a_story_outlives_its_probe_and_its_results(database: Database) -> None:
    lab = Lab(database, [member(after=1)])
    (opened,) = lab.feed(*series(lab.ids[0], "f"))
    Lab(database, [], now=at(5), new=False)
    with lab.database.write() as connection:
        connection.execute(sa.delete(results))
        connection.execute(sa.delete(evidence))
    seen = told(lab, opened.incident, Event.RESOLVED)
    assert (seen.incident.resolution, seen.probe.key) == ("probe.removed", "api")
    assert (seen.first_bad, seen.latest, seen.last_good, seen.recent, seen.streak) == (None, None, None, (), 0)


def test_an_unknown_incident_has_no_story(database: Database) -> None:
    with pytest.raises(sa.exc.NoResultFound):
        told(Lab(database), "nothing")
