"""What the cases of reload.py consist of: edits of files, ways to request a reload, and effects that can be seen."""

from __future__ import annotations

import copy
import os
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.reload_harness import (
    INCLUDED_FILE,
    MAIN_FILE,
    MANAGED_FILE,
    TOKEN_FILE,
    Files,
    ReloadHarness,
    encode_file,
)

Edit = Callable[[Files, ReloadHarness], object]
Check = Callable[[ReloadHarness], object]
LONGEST_INTERVAL_S = 2.0
STORM_SIZE, STORM_INTERVAL, MAX_STORM_WAIT_S = 200, "15s", 60.0
FILE_TOKEN, ROTATED_TOKEN = "0123456789abcdef-file", "fedcba9876543210-file"


def do_nothing(*_: object) -> None:
    pass


def build_files(harness: ReloadHarness) -> Files:
    http = f"http://127.0.0.1:{harness.targets.port}"
    hook = harness.receiver.url
    config = {
        "server": {"listen": "127.0.0.1:0"},
        "storage": {
            "url": str(harness.database.writer.url.render_as_string(hide_password=False)).replace("+psycopg", ""),
            "check_in_log": str(harness.folder / "check-ins"),
        },
        "include": ["conf.d/*.yaml"],
        "managed": MANAGED_FILE,
        "defaults": {
            "every": "1s",
            "timeout": "5s",
            "alert": {"failure_threshold": 1, "success_threshold": 1, "repeat_interval": "off"},
        },
        "probes": [
            # on a host of its own, so that its incidents share no cause with those of the other probes
            {"name": "Steady", "http": f"http://127.0.0.2:{harness.targets.port}/steady", "group": "Core"},
            {"name": "Second", "http": f"{http}/second", "every": "2s", "tags": ["prod"]},
            {"name": "Changing", "http": f"{http}/changing", "every": "2s"},
            {"name": "Victim", "http": f"{http}/victim"},
            {"name": "Down", "http": f"{http}/down", "group": "Core", "tags": ["prod"]},
            {"name": "Ruled", "http": f"{http}/ruled", "expect": ["status == 200"]},
            {"name": "Backup", "heartbeat": {"token": "${BACKUP_TOKEN}", "every": "1h"}},
            {"name": "Nightly", "heartbeat": {"token_file": TOKEN_FILE, "every": "1h"}},
        ],
        "receivers": {name: {"webhook": {"url": f"{hook}{name}"}} for name in ("oncall", "chat")},
        "routes": [{"match": {"group": "Core"}, "receivers": ["oncall"]}, {"receivers": ["chat"]}],
    }
    managed = f"probes:\n  - name: Managed\n    http: {http}/managed\n"
    return {MAIN_FILE: config, MANAGED_FILE: managed, TOKEN_FILE: FILE_TOKEN}


# --- edits


def find_probe(files: Files, id: str) -> dict[str, Any]:
    return next(probe for probe in files[MAIN_FILE]["probes"] if probe.get("id", probe["name"].lower()) == id)


def set_of_probe(id: str, /, **fields: Any) -> Edit:
    """A field that is None is removed."""

    def edit(files: Files, _: ReloadHarness) -> None:
        probe = find_probe(files, id)
        probe.update(fields)
        for name in [name for name, value in probe.items() if value is None]:
            del probe[name]

    return edit


def set_in_main(*path: str, **fields: Any) -> Edit:
    def edit(files: Files, _: ReloadHarness) -> None:
        section = files[MAIN_FILE]
        for part in path:
            section = section.setdefault(part, {})
        section.update(copy.deepcopy(fields))

    return edit


def set_file(path: str, content: Any) -> Edit:
    return lambda files, _: files.update({path: content})


def add_probe(name: str, **fields: Any) -> Edit:
    def edit(files: Files, harness: ReloadHarness) -> None:
        url = f"http://127.0.0.1:{harness.targets.port}/{name.lower()}"
        files[MAIN_FILE]["probes"].append({"name": name, "http": url, **fields})

    return edit


def remove_probe(id: str) -> Edit:
    return lambda files, _: files[MAIN_FILE]["probes"].remove(find_probe(files, id))


def change_receiver(name: str, path: str) -> Edit:
    def edit(files: Files, harness: ReloadHarness) -> None:
        files[MAIN_FILE]["receivers"][name] = {"webhook": {"url": f"{harness.receiver.url}{path}"}}

    return edit


def remove_oncall(files: Files, _: ReloadHarness) -> None:
    del files[MAIN_FILE]["receivers"]["oncall"]
    files[MAIN_FILE]["routes"] = [{"receivers": ["chat"]}]


def add_receiver_while_steady_fails(files: Files, harness: ReloadHarness) -> None:
    fail(harness, "steady")
    change_receiver("extra", "extra")(files, harness)
    files[MAIN_FILE]["routes"][0]["receivers"] = ["oncall", "extra"]


def change_kind(files: Files, _: ReloadHarness) -> None:
    probe = find_probe(files, "changing")
    del probe["http"], probe["every"]
    probe["heartbeat"] = {"token": "${OTHER_TOKEN}", "every": "1h"}


def begin_maintenance_of_victim(files: Files, _: ReloadHarness) -> None:
    start = (datetime.now(UTC) - timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M")
    window = {"name": "Upgrade", "start": start, "duration": "1h", "match": {"probe": "victim"}}
    files[MAIN_FILE]["maintenance"] = [window]


def add_included_probe(interval: str) -> Edit:
    def edit(files: Files, harness: ReloadHarness) -> None:
        url = f"http://127.0.0.1:{harness.targets.port}/included"
        files[INCLUDED_FILE] = {"probes": [{"name": "Included", "every": interval, "http": url}]}

    return edit


def edit_managed_text(old: str, new: str) -> Edit:
    return lambda files, _: files.update({MANAGED_FILE: files[MANAGED_FILE].replace(old, new)})


def combine(*edits: Edit) -> Edit:
    return lambda files, harness: [edit(files, harness) for edit in edits]


def add_storm_probes(timeout: str) -> Edit:
    def edit(files: Files, harness: ReloadHarness) -> None:
        for number in range(STORM_SIZE):
            add_probe(f"Storm-{number}", every=STORM_INTERVAL, timeout=timeout)(files, harness)

    return edit


# --- effects


def has_fields(id: str, **fields: Any) -> Check:
    """Whether the API shows these fields of the probe; text is a part of the field."""

    def check(harness: ReloadHarness) -> bool:
        probe = harness.get_probe(id)
        return all(
            value in str(probe.get(name, "")) if isinstance(value, str) else probe.get(name) == value
            for name, value in fields.items()
        )

    return check


def is_gone(id: str) -> Check:
    return lambda harness: was_reloaded(harness) and id not in harness.load_running().probe_digests


def was_reloaded(harness: ReloadHarness) -> bool:
    return len(harness.entries("config_reloaded")) > harness.reload_count


def was_refused(harness: ReloadHarness) -> bool:
    return len(harness.entries("config_invalid")) > harness.refusal_count


def accepts_check_ins(accepted: str, refused: str) -> Check:
    return lambda harness: (harness.check_in(accepted), harness.check_in(refused)) == (200, 404)


def needs_restart(field: str) -> Check:
    return lambda h: was_reloaded(h) and h.entries("config_reloaded")[-1].get("restart_required") == [field]


# --- what happens afterwards


def is_requested(path: str) -> Check:
    def check(harness: ReloadHarness) -> None:
        before = harness.requests(path)
        assert harness.wait_until(lambda: harness.requests(path) > before) < float("inf"), f"{path} was not requested"

    return check


def is_not_requested(path: str) -> Check:
    def check(harness: ReloadHarness) -> None:
        time.sleep(1.0)  # a run in progress
        before = harness.requests(path)
        time.sleep(LONGEST_INTERVAL_S)
        assert harness.requests(path) == before, f"{path} was requested"

    return check


def has_no_own_findings(harness: ReloadHarness) -> None:
    assert harness.wait_until(lambda: not harness.own_findings()) < float("inf"), "an incident of Watchdog stays open"


def incident_opens(id: str) -> Check:
    return lambda harness: wait_for_incident(harness, id, is_open=True)


def incident_ends(id: str) -> Check:
    return lambda harness: wait_for_incident(harness, id, is_open=False)


def wait_for_incident(harness: ReloadHarness, id: str, *, is_open: bool) -> None:
    took_s = harness.wait_until(lambda: (id in harness.open_incidents().values()) is is_open)
    assert took_s < float("inf"), f"the incident of {id} did not {'open' if is_open else 'end'}"


def recover_and_fail_again(id: str, *, stays_down: bool = True) -> Check:
    def recover_and_fail(harness: ReloadHarness) -> None:
        recover(harness)
        fail(harness, id)
        if not stays_down:
            recover(harness)

    def recover(harness: ReloadHarness) -> None:
        harness.targets.failing_paths.discard(f"/{id}")
        wait_for_incident(harness, id, is_open=False)

    return recover_and_fail


def fail(harness: ReloadHarness, id: str) -> None:
    harness.targets.failing_paths.add(f"/{id}")
    wait_for_incident(harness, id, is_open=True)


def fail_and_recover(harness: ReloadHarness, *, opens: bool = True) -> None:
    """The probe `victim`."""
    before = harness.requests("/victim")
    harness.targets.failing_paths.add("/victim")
    if opens:
        wait_for_incident(harness, "victim", is_open=True)
    harness.wait_until(lambda: harness.requests("/victim") > before + 1)
    harness.wait_for_runs()
    assert opens is ("victim" in harness.open_incidents().values())
    harness.targets.failing_paths.discard("/victim")
    wait_for_incident(harness, "victim", is_open=False)
    harness.wait_for_runs()


def wait_until_storm_is_requested(harness: ReloadHarness) -> None:
    paths = [f"/storm-{number}" for number in range(STORM_SIZE)]
    harness.wait_until(lambda: all(map(harness.requests, paths)))


def count_open_storm_incidents(harness: ReloadHarness) -> int:
    return sum(id.startswith("storm-") for id in harness.open_incidents().values())


def wait_until_storm_is_open(harness: ReloadHarness) -> None:
    harness.wait_until(lambda: count_open_storm_incidents(harness) == STORM_SIZE, MAX_STORM_WAIT_S)
    harness.wait_until(lambda: not harness.count_waiting_messages(), MAX_STORM_WAIT_S)
    sent = harness.count_opened_messages("storm-")
    assert len(sent) == sent.total() == STORM_SIZE, f"{sent.total()} messages about {len(sent)} incidents"
    named = {name.rpartition(" ")[2] for name in harness.messages_since(0)}
    assert named >= {f"storm-{number}" for number in range(STORM_SIZE)}, "a message names too few"


# --- ways to change a file, and to request a reload


def link_to_itself(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def replace_by_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def write_in_two_parts(pause_s: float, harness: ReloadHarness, files: Files) -> None:
    """The main file is written in place, with a pause in its middle."""
    text = encode_file(files[MAIN_FILE])
    with (harness.folder / MAIN_FILE).open("wb") as file:
        file.write(text[: len(text) // 2])
        file.flush()
        time.sleep(pause_s)
        harness.begin_change()
        file.write(text[len(text) // 2 :])
    harness.files = files


def write_and_wait_and_request(request: Check, harness: ReloadHarness, files: Files) -> None:
    """Changes of files do nothing, with `reload: on_signal`."""
    harness.write(files)
    time.sleep(1.2)
    assert not was_reloaded(harness), "a change of a file was applied"
    harness.begin_change()
    request(harness)


def write_and_request(requests: Iterable[Check], harness: ReloadHarness, files: Files) -> None:
    harness.write(files)
    with ThreadPoolExecutor() as pool:
        for outcome in [pool.submit(request, harness) for request in requests]:
            outcome.result()


def begin_storm_and_write(harness: ReloadHarness, files: Files) -> None:
    harness.targets.failing_paths |= {f"/storm-{number}" for number in range(STORM_SIZE)}
    harness.wait_until(lambda: count_open_storm_incidents(harness) > STORM_SIZE // 4)
    harness.begin_change()
    harness.write(files)


def send_hangup(harness: ReloadHarness) -> None:
    harness.process.process.send_signal(signal.SIGHUP)


def post_reload(harness: ReloadHarness) -> None:
    answer = harness.post("api/v1/reload")
    assert (answer["result"], answer["problems"]) == ("applied", []), answer


def put_managed_probe(harness: ReloadHarness, files: Files) -> None:
    """Through the API, which writes what `files` has."""
    version = harness.process.get("api/v1/config/probes/managed").headers["etag"]
    text = files[MANAGED_FILE].removeprefix("probes:\n  - ").replace("\n    ", "\n")
    answer = harness.post("api/v1/config/probes/managed", {"yaml": text}, "PUT", **{"If-Match": version})
    assert answer.get("is_stored") is True, answer
    assert (harness.folder / MANAGED_FILE).read_text() == files[MANAGED_FILE], "other lines than those of the change"
    harness.files = files


def has_the_revision_of_the_start(harness: ReloadHarness) -> bool:
    return was_reloaded(harness) and harness.entries("config_reloaded")[-1]["revision"] == 1


def require(condition: object, message: str) -> None:
    assert condition, message
