"""Members: which revision decides about a probe, when a probe is retired, and when configurations differ."""

from __future__ import annotations

import pytest

from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.domain.membership import (
    MAX_TOLERATED_PROCESS_CONFIG_DIFFERENCE_MS,
    WATCHDOG_PROCESS_LEASE_MS,
    ConfigDefinitionDigestsByRevision,
    LiveProcessWithSupersededDefinitions,
    LiveWatchdogProcesses,
    WatchdogProcessRecord,
    choose_process_to_run_probe,
    compute_probe_retirement_time,
    derive_live_watchdog_processes,
    find_highest_live_config_revision_by_name,
    find_process_config_difference_start,
    format_process_config_difference_warning,
    list_process_conflict_notes,
)

NOW = 100 * HOUR_MS
NBSP = "\N{NO-BREAK SPACE}"


def live(id: str, revision: int, started_at: int = NOW) -> WatchdogProcessRecord:
    return WatchdogProcessRecord(id, revision, started_at, NOW + WATCHDOG_PROCESS_LEASE_MS)


def lapsed(id: str, revision: int, started_at: int, lease_until: int) -> WatchdogProcessRecord:
    return WatchdogProcessRecord(id, revision, started_at, lease_until)


def left(id: str, revision: int, started_at: int, left_at: int) -> WatchdogProcessRecord:
    return WatchdogProcessRecord(id, revision, started_at, left_at, left_in_order=True)


@pytest.mark.parametrize(
    ("sentence", "member", "is_live"),
    [
        ("within its lease", WatchdogProcessRecord("a", 1, 0, NOW + 1), True),
        ("its lease ends now", WatchdogProcessRecord("a", 1, 0, NOW), False),
        ("it left, by a clock that was ahead", WatchdogProcessRecord("a", 1, 0, NOW + 1, left_in_order=True), False),
    ],
)
def test_a_member_lives(sentence: str, member: WatchdogProcessRecord, is_live: bool) -> None:
    assert member.is_live(NOW) is is_live, sentence


def test_the_highest_live_revision_decides_about_each_probe() -> None:
    names = {1: {"old", "both"}, 2: {"both", "new"}, 3: {"both", "crashed"}}
    assert find_highest_live_config_revision_by_name({2, 1}, names) == {"old": 1, "both": 2, "new": 2}
    assert find_highest_live_config_revision_by_name({1}, names) == {"old": 1, "both": 1}
    assert find_highest_live_config_revision_by_name({9}, names) == {}


@pytest.mark.parametrize(
    ("sentence", "members", "retire_at"),
    [
        ("it left in order", [left("a", 1, 0, NOW)], NOW + WATCHDOG_PROCESS_LEASE_MS),
        ("it crashed", [lapsed("a", 1, 0, NOW)], NOW + HOUR_MS),
        ("the last one left", [lapsed("a", 1, 0, NOW - 1), left("b", 2, 0, NOW)], NOW + WATCHDOG_PROCESS_LEASE_MS),
        ("the last one crashed", [left("a", 1, 0, NOW - 1), lapsed("b", 2, 0, NOW)], NOW + HOUR_MS),
        ("the last one to end comes first", [lapsed("b", 1, 0, NOW), left("c", 2, 0, NOW - 1)], NOW + HOUR_MS),
        ("no member is known that had it", [], 0),
    ],
)
def test_when_a_probe_is_retired(sentence: str, members: list[WatchdogProcessRecord], retire_at: int) -> None:
    assert compute_probe_retirement_time(members) == retire_at, sentence


@pytest.mark.parametrize(
    ("sentence", "members", "since"),
    [
        ("no member", [], None),
        ("one configuration", [live("a", 1), live("b", 1)], None),
        ("two, since the second came", [live("a", 1, NOW - 9 * HOUR_MS), live("b", 2, NOW - HOUR_MS)], NOW - HOUR_MS),
        (
            "one ended long ago",
            [live("a", 2), lapsed("b", 1, 0, NOW - HOUR_MS)],
            None,
        ),
        (
            "an old revision that crashes and starts again is one and the same",
            [
                live("new", 2, NOW - HOUR_MS),
                lapsed("old1", 1, NOW - 50 * MINUTE_MS, NOW - 45 * MINUTE_MS),
                *(lapsed(f"old{n}", 1, NOW - n * MINUTE_MS, NOW - (n - 1) * MINUTE_MS) for n in range(44, 1, -1)),
                live("last", 1, NOW - MINUTE_MS),
            ],
            NOW - 44 * MINUTE_MS,
        ),
        (
            "the configurations were equal in between",
            [
                live("new", 2, NOW - HOUR_MS),
                left("old1", 1, NOW - 50 * MINUTE_MS, NOW - 40 * MINUTE_MS),
                live("old2", 1, NOW - 7 * MINUTE_MS),
            ],
            NOW - 7 * MINUTE_MS,
        ),
        (
            "one revision after the other, never without two",
            [
                left("a", 1, NOW - HOUR_MS, NOW - 20 * MINUTE_MS),
                live("b", 2, NOW - 30 * MINUTE_MS),
                live("c", 3, NOW - 20 * MINUTE_MS),
            ],
            NOW - 30 * MINUTE_MS,
        ),
    ],
)
def test_since_when_configurations_differ(
    sentence: str, members: list[WatchdogProcessRecord], since: int | None
) -> None:
    assert find_process_config_difference_start(members, NOW) == since, sentence


def test_each_member_knows_what_it_leaves_to_others() -> None:
    old, new, other = live("a", 1), live("b", 2), live("c", 3)
    definitions = ConfigDefinitionDigestsByRevision(
        probes={1: {"same": "s", "changed": "1", "old": "o"}, 2: {"same": "s", "changed": "2"}, 3: {}},
        destinations={1: {"oncall/slack": "1"}, 2: {"oncall/slack": "2"}, 3: {"oncall/slack": "2"}},
    )
    ended = lapsed("d", 4, 0, NOW - 1)
    status = derive_live_watchdog_processes([other, old, ended, new], definitions, NOW)
    assert status.members == (
        LiveProcessWithSupersededDefinitions(old, {"changed": 2}, {"oncall/slack": 3}),
        LiveProcessWithSupersededDefinitions(new),
        LiveProcessWithSupersededDefinitions(other),
    )
    assert status.differing_since == NOW
    assert status.find_live_process("b") == LiveProcessWithSupersededDefinitions(new)
    assert status.find_live_process("d") is None


def test_a_member_whose_revision_has_nothing_leaves_nothing_to_others() -> None:
    definitions = ConfigDefinitionDigestsByRevision(probes={2: {"api": "2"}}, destinations={})
    assert derive_live_watchdog_processes([live("a", 1), live("b", 2)], definitions, NOW).members == (
        LiveProcessWithSupersededDefinitions(live("a", 1)),
        LiveProcessWithSupersededDefinitions(live("b", 2)),
    )


@pytest.mark.parametrize(("count", "rest"), [(1, "is"), (20, "are"), (21, "are")])
def test_a_note_names_up_to_twenty_probes_and_none_to_the_public(count: int, rest: str) -> None:
    left_to_others = LiveProcessWithSupersededDefinitions(live("a", 1), {f"p{n}": 2 for n in range(count)})
    status = LiveWatchdogProcesses((left_to_others, LiveProcessWithSupersededDefinitions(live("b", 2))))
    text = f"probe{'s' if count > 1 else ''} of this process {rest} run by processes with the newer revision 2"
    listed = ", ".join(f"p{n}" for n in range(min(count, 20))) + (", ..." if count > 20 else "")
    (named,), (public,) = (
        [note.replace(NBSP, " ") for note in list_process_conflict_notes(status, "a", show_names=show_names)]
        for show_names in (True, False)
    )
    assert (named, public) == (f"{count} {text}: {listed}", f"{count} {text}")


def test_notes_name_what_a_member_leaves_to_others() -> None:
    many = {f"p{n}": 3 for n in range(25)}
    status = LiveWatchdogProcesses(
        (
            LiveProcessWithSupersededDefinitions(live("a", 1), {"api": 2, **many}, {"oncall/slack": 3}),
            LiveProcessWithSupersededDefinitions(live("b", 3)),
        ),
        NOW - 1,
    )
    listed = ", ".join(f"p{n}" for n in range(20))
    assert [note.replace(NBSP, " ") for note in list_process_conflict_notes(status, "a")] == [
        "1 probe of this process is run by processes with the newer revision 2: api",
        f"25 probes of this process are run by processes with the newer revision 3: {listed}, ...",
        "1 destination of this process is notified by processes with the newer revision 3: oncall/slack",
    ]
    assert list_process_conflict_notes(status, "b") == list_process_conflict_notes(status, "unknown") == []


def test_configurations_that_differ_for_long_are_a_warning() -> None:
    members = (
        LiveProcessWithSupersededDefinitions(live("host-1", 1)),
        LiveProcessWithSupersededDefinitions(live("host-2", 2)),
    )
    assert format_process_config_difference_warning(LiveWatchdogProcesses(members), NOW) == ""
    assert (
        format_process_config_difference_warning(
            LiveWatchdogProcesses(members, NOW - MAX_TOLERATED_PROCESS_CONFIG_DIFFERENCE_MS), NOW
        )
        == ""
    )
    status = LiveWatchdogProcesses(members, NOW - 6 * MINUTE_MS)
    warning = (
        f"processes on one database have had different configurations for 6{NBSP}min: host-1 has revision 1, host-2 has"
        " revision 2"
    )
    assert format_process_config_difference_warning(status, NOW) == warning
    assert list_process_conflict_notes(status, "host-2") == [], "it is a finding of Watchdog itself"


def test_members_share_probes_without_the_database_and_a_member_that_ends_moves_its_own_alone() -> None:
    members, probe_ids = ["host-1", "host-2", "host-3"], [f"probe-{n}" for n in range(300)]
    chosen = {id: choose_process_to_run_probe(members, id) for id in probe_ids}
    assert {id: choose_process_to_run_probe(members[::-1], id) for id in probe_ids} == chosen
    assert all(60 <= list(chosen.values()).count(member) <= 140 for member in members)
    left = {id: choose_process_to_run_probe(members[:2], id) for id in probe_ids}
    assert {id for id in probe_ids if left[id] != chosen[id]} == {id for id in probe_ids if chosen[id] == "host-3"}


def test_members_with_different_versions_of_watchdog_share_probes_alike() -> None:
    """So no version may choose otherwise."""
    members = ["host-1", "host-2", "host-3"]
    assert [choose_process_to_run_probe(members, f"probe-{n}")[-1] for n in range(12)] == list("232232131211")
