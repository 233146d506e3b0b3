"""The cases of reload.py: what is edited, the effect that it must have, and the messages that it may cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.reload_edits import (
    FILE_TOKEN,
    ROTATED_TOKEN,
    STORM_SIZE,
    Check,
    Edit,
    accepts_check_ins,
    add_included_probe,
    add_probe,
    add_receiver_while_steady_fails,
    add_storm_probes,
    begin_maintenance_of_victim,
    begin_storm_and_write,
    change_kind,
    change_receiver,
    combine,
    do_nothing,
    edit_managed_text,
    fail_and_recover,
    find_probe,
    has_fields,
    has_no_own_findings,
    has_the_revision_of_the_start,
    incident_ends,
    incident_opens,
    is_gone,
    is_not_requested,
    is_requested,
    link_to_itself,
    needs_restart,
    post_reload,
    put_managed_probe,
    recover_and_fail_again,
    remove_oncall,
    remove_probe,
    replace_by_folder,
    replace_by_pipe,
    require,
    send_hangup,
    set_file,
    set_in_main,
    set_of_probe,
    wait_until_storm_is_open,
    wait_until_storm_is_requested,
    was_refused,
    was_reloaded,
    write_and_request,
    write_and_wait_and_request,
    write_in_two_parts,
)
from benchmarks.reload_harness import ENV, MAIN_FILE, TOKEN_FILE, Files, ReloadHarness, encode_file


@dataclass(frozen=True)
class ReloadCase:
    """A change of the files of `build_files`. If `edit` does nothing, it reverts the case before, which `stays`."""

    sentence: str
    edit: Edit
    has_effect: Check
    """Whether the process works as its files specify."""
    then: Check = do_nothing
    """A later event that shows the effect."""
    messages: tuple[str, ...] = ()
    """Messages to expect from the edit until the next case, such as "chat opened api"."""
    place: Callable[[Path], object] = do_nothing
    """Replaces the main file by something else."""
    apply: Callable[[ReloadHarness, Files], object] = ReloadHarness.write
    ended: frozenset[str] = frozenset()
    """The probes whose open incident ends."""
    stays: bool = False
    is_valid: bool = True
    checks_own_messages: bool = False
    """Whether `then` checks the messages, because they arrive in groups."""
    is_shown: bool = True
    """Whether `watchdog diff` can show it: it waits for the end of a pipe, and compares with the newest process."""


OPENED_AGAIN = ("oncall opened down", "oncall resolved down")
ON_SIGNAL = set_in_main(reload="on_signal")


def refuse(
    sentence: str, edit: Edit, place: Callable[[Path], object] = do_nothing, *, is_first: bool = False
) -> ReloadCase:
    messages = ("chat opened watchdog",) if is_first else ()
    return ReloadCase(sentence, edit, was_refused, place=place, messages=messages, stays=True, is_valid=False)


INVALID_CASES = [
    refuse("a YAML syntax error", set_file(MAIN_FILE, "probes: ["), is_first=True),
    refuse("an unknown field", set_of_probe("steady", evry="1s")),
    refuse("a variable that is not set", set_of_probe("steady", group="${NOWHERE}")),
    refuse("two probes with one id", set_of_probe("second", id="steady")),
    refuse("an included file that vanished", set_in_main(include=["conf.d/needed.yaml"])),
    refuse("a file of a secret that vanished", lambda files, _: files.pop(TOKEN_FILE)),
    refuse("an empty file", set_file(MAIN_FILE, "")),
    refuse("a file that is not text", set_file(MAIN_FILE, b"\xff\xfe\x00")),
    refuse("a link that leads to itself", do_nothing, link_to_itself),
    refuse("a folder in the place of the file", do_nothing, replace_by_folder),
    replace(refuse("a named pipe in the place of the file", do_nothing, replace_by_pipe), is_shown=False),
    refuse("half a file", lambda files, h: files.update({MAIN_FILE: encode_file(files[MAIN_FILE])[:600]})),
    ReloadCase(
        "the former file again",
        do_nothing,
        was_reloaded,
        has_no_own_findings,
        messages=("chat resolved watchdog",),
        ended=frozenset({"watchdog"}),
    ),
]
PROBE_CASES = [
    ReloadCase("a probe added", add_probe("New"), has_fields("new", kind="http"), is_requested("/new")),
    ReloadCase("a probe removed", remove_probe("changing"), is_gone("changing"), is_not_requested("/changing")),
    ReloadCase(
        "another name, and the same id",
        set_of_probe("changing", name="Altered", id="changing"),
        has_fields("changing", name="Altered"),
    ),
    ReloadCase(
        "another name, and therefore another id",
        set_of_probe("changing", name="Altered"),
        has_fields("altered", kind="http"),
    ),
    ReloadCase("a shorter interval", set_of_probe("changing", every="1s"), has_fields("changing", schedule="1 s")),
    ReloadCase("a longer interval", set_of_probe("changing", every="4s"), has_fields("changing", schedule="4 s")),
    ReloadCase(
        "a cron schedule in place of an interval",
        set_of_probe("changing", every=None, schedule="*/2 * * * * *"),
        has_fields("changing", schedule="*/2 * * * * *"),
    ),
    ReloadCase(
        "another timeout", set_of_probe("changing", timeout="4s"), has_fields("changing", configuration="timeout: 4s")
    ),
    ReloadCase("another default", set_in_main("defaults", timeout="6s"), was_reloaded),
    ReloadCase("another kind, and the same id", change_kind, has_fields("changing", kind="heartbeat")),
    ReloadCase(
        "an expectation that does not hold",
        set_of_probe("victim", expect=["status == 201"]),
        has_fields("victim", configuration="status == 201"),
        incident_opens("victim"),
        messages=("chat opened victim", "chat resolved victim"),
        ended=frozenset({"victim"}),
    ),
]
INCIDENT_CASES = [
    ReloadCase(
        "another group of a probe with an open incident",
        set_of_probe("down", group="Edge"),
        has_fields("down", group="Edge"),
    ),
    ReloadCase(
        "other tags of a probe with an open incident",
        set_of_probe("down", tags=["test"]),
        has_fields("down", tags=["test"]),
    ),
    ReloadCase(
        "another severity of a probe with an open incident",
        set_of_probe("down", alert={"severity": "critical"}),
        has_fields("down", severity="critical"),
    ),
    ReloadCase(
        "an expectation by which an open incident is over",
        set_of_probe("ruled", expect=["status == 503"]),
        has_fields("ruled", configuration="status == 503"),
        incident_ends("ruled"),
        messages=("chat resolved ruled", "chat opened ruled"),
        ended=frozenset({"ruled"}),
    ),
    ReloadCase(
        "a probe removed whose incident is open, and added again",
        remove_probe("down"),
        is_gone("down"),
        is_not_requested("/down"),
    ),
    ReloadCase(
        "another address of a receiver while an incident is open",
        change_receiver("oncall", "moved"),
        was_reloaded,
        recover_and_fail_again("down"),
        ("moved resolved down", "moved opened down"),
        ended=frozenset({"down"}),
    ),
    ReloadCase(
        "a receiver added while an incident is open",
        add_receiver_while_steady_fails,
        was_reloaded,
        recover_and_fail_again("steady"),
        ("oncall opened steady", "oncall resolved steady", "oncall opened steady", "extra opened steady"),
        ended=frozenset({"steady"}),
    ),
    ReloadCase(
        "another order of routes while an incident is open",
        lambda files, _: files[MAIN_FILE]["routes"].reverse(),
        was_reloaded,
        recover_and_fail_again("steady", stays_down=False),
        ("oncall resolved steady", "chat opened steady"),  # it flaps now: the last end is not sent
        ended=frozenset({"steady"}),
    ),
    ReloadCase(
        "a receiver removed while an incident is open",
        remove_oncall,
        was_reloaded,
        recover_and_fail_again("down"),
        ("chat opened down", "oncall resolved down"),  # the end is sent when the receiver is back
        ended=frozenset({"down"}),
    ),
]
SECTION_CASES = [
    ReloadCase(
        "the token of another variable",
        lambda files, _: find_probe(files, "backup")["heartbeat"].update(token="${OTHER_TOKEN}"),
        accepts_check_ins(ENV["OTHER_TOKEN"], ENV["BACKUP_TOKEN"]),
    ),
    ReloadCase(
        "another token in a file", set_file(TOKEN_FILE, ROTATED_TOKEN), accepts_check_ins(ROTATED_TOKEN, FILE_TOKEN)
    ),
    ReloadCase(
        "a file that a pattern includes",
        add_included_probe("1s"),
        has_fields("included", schedule="1 s"),
        is_requested("/included"),
        stays=True,
    ),
    ReloadCase("another interval in it", add_included_probe("2s"), has_fields("included", schedule="2 s"), stays=True),
    ReloadCase("the included file deleted", do_nothing, is_gone("included"), is_not_requested("/included")),
    ReloadCase(
        "a paused probe",
        set_of_probe("changing", paused=True),
        has_fields("changing", state="paused"),
        is_not_requested("/changing"),
        stays=True,
    ),
    ReloadCase("no longer paused", do_nothing, has_fields("changing", pause=None), is_requested("/changing")),
    ReloadCase(
        "a maintenance window that is in effect",
        begin_maintenance_of_victim,
        lambda h: h.get_probe("victim")["maintenance_until"] is not None,
        partial(fail_and_recover, opens=False),
    ),
    ReloadCase(
        "`needs` of a probe that is down",
        set_of_probe("victim", needs=["Down"]),
        has_fields("victim", configuration="needs"),
        fail_and_recover,
    ),
    ReloadCase(
        "`inhibit` by a probe that is down",
        set_in_main(inhibit=[{"when": {"probe": "down"}, "mute": {"probe": "victim"}}]),
        was_reloaded,
        fail_and_recover,
    ),
    ReloadCase(
        "the managed file edited by hand",
        edit_managed_text("/managed\n", "/managed\n    group: By hand\n"),
        has_fields("managed", group="By hand"),
    ),
    ReloadCase(
        "the managed file edited through the API",
        edit_managed_text("/managed\n", "/managed\n    group: API\n"),
        has_fields("managed", group="API"),
        apply=put_managed_probe,
    ),
    ReloadCase(
        "another title of the status page",
        set_in_main("status_page", title="Acme"),
        lambda h: "Acme" in h.process.get().text,
    ),
    ReloadCase(
        "another address to listen on",
        set_in_main("server", listen="127.0.0.1:1"),
        needs_restart("server.listen"),
        messages=("chat opened watchdog",),
        stays=True,
    ),
    ReloadCase(
        "the former address again",
        do_nothing,
        was_reloaded,
        has_no_own_findings,
        messages=("chat resolved watchdog",),
        ended=frozenset({"watchdog"}),
    ),
]
REQUEST_CASES = [
    ReloadCase(
        "a file written with a pause of 0.1 s",
        set_of_probe("changing", timeout="7s"),
        has_fields("changing", configuration="timeout: 7s"),
        lambda h: require(h.refusal_count == len(h.entries("config_invalid")), "half a file was read"),
        apply=partial(write_in_two_parts, 0.1),
    ),
    ReloadCase("reloads on a signal only", ON_SIGNAL, was_reloaded, stays=True),
    ReloadCase(
        "SIGHUP",
        combine(ON_SIGNAL, set_of_probe("changing", timeout="8s")),
        has_fields("changing", configuration="timeout: 8s"),
        apply=partial(write_and_wait_and_request, send_hangup),
        stays=True,
    ),
    ReloadCase(
        "a request to the API",
        combine(ON_SIGNAL, set_of_probe("changing", timeout="9s")),
        has_fields("changing", configuration="timeout: 9s"),
        apply=partial(write_and_wait_and_request, post_reload),
        stays=True,
    ),
    ReloadCase(
        "a signal, a request and a change at once",
        set_of_probe("changing", timeout="8s"),
        has_fields("changing", configuration="timeout: 8s"),
        apply=partial(write_and_request, (send_hangup, post_reload)),
    ),
    ReloadCase(
        "two requests at once",
        set_of_probe("changing", timeout="7s"),
        has_fields("changing", configuration="timeout: 7s"),
        apply=partial(write_and_request, (post_reload, post_reload)),
        stays=True,
    ),
    ReloadCase("back to the files of the start", do_nothing, has_the_revision_of_the_start, stays=True),
]
STORM_CASES = [
    ReloadCase(
        f"{STORM_SIZE} probes added",
        add_storm_probes("10s"),
        lambda h: f"storm-{STORM_SIZE - 1}" in h.load_running().probe_digests,
        wait_until_storm_is_requested,
        stays=True,
    ),
    ReloadCase(
        "another timeout of each while they fail",
        add_storm_probes("11s"),
        has_fields("storm-0", configuration="timeout: 11s"),
        wait_until_storm_is_open,
        apply=begin_storm_and_write,
        checks_own_messages=True,
        stays=True,
    ),
]
CASES = [*INVALID_CASES, *PROBE_CASES, *INCIDENT_CASES, *SECTION_CASES, *REQUEST_CASES, *STORM_CASES]
TWO_PROCESS_CASES = [
    ReloadCase(
        "one of two processes: a probe added, a shorter interval",
        combine(add_probe("New"), set_of_probe("changing", every="1s")),
        has_fields("changing", schedule="1 s"),
        is_requested("/new"),
        stays=True,
    ),
    ReloadCase(
        "the other process follows",
        combine(add_probe("New"), set_of_probe("changing", every="1s")),
        was_reloaded,
        is_requested("/new"),
        stays=True,
        is_shown=False,
    ),
]
