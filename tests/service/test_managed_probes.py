"""Changes of the managed file: checked as a whole configuration, stored, reloaded, and never over another change."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.fakes import FakeHttpReceiver
from tests.support.managed_files import ENV, MANAGED_TEXT, ManagedFileHarness
from watchdog.config.load import load_config
from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.net import NetworkAccess
from watchdog.service import managed_probes
from watchdog.service.managed_edits import (
    CheckedProbeEdit,
    ManagedProbeRefusalReason,
    ManagedProbeRefusedError,
    ProbeEdit,
    SavedProbeEdit,
)

ACTOR = Actor("ana", OperatorInterfaceKind.PAGE)


@pytest.fixture
def harness(tmp_path: Path) -> ManagedFileHarness:
    return ManagedFileHarness(tmp_path)


def save(harness: ManagedFileHarness, edit: ProbeEdit) -> SavedProbeEdit:
    return asyncio.run(harness.create_editor().save(edit))


def check(harness: ManagedFileHarness, edit: ProbeEdit) -> CheckedProbeEdit:
    return asyncio.run(harness.create_editor().check(edit))


def refuse(harness: ManagedFileHarness, edit: ProbeEdit) -> ManagedProbeRefusedError:
    """Nothing of it is stored."""
    before = harness.file.read_bytes()
    with pytest.raises(ManagedProbeRefusedError) as caught:
        save(harness, edit)
    assert harness.file.read_bytes() == before
    assert harness.reload_count == 0
    return caught.value


def read_version(harness: ManagedFileHarness) -> str:
    return asyncio.run(harness.create_editor().read()).version


def test_a_probe_is_added_and_reloaded(harness: ManagedFileHarness) -> None:
    saved = save(harness, ProbeEdit("name: Warm\r\nhttp: http://127.0.0.1:9/warm\r\nschedule: '*/5 * * * *'\r\n"))
    entry = "  - name: Warm\n    http: http://127.0.0.1:9/warm\n    schedule: '*/5 * * * *'\n"
    assert harness.file.read_text() == MANAGED_TEXT + entry
    assert saved.checked.probe_id == "warm"
    assert saved.checked.diff.splitlines()[-3:] == [f"+{line[4:]}" for line in entry.splitlines()]
    assert saved.reload is not None
    assert saved.version == read_version(harness)
    assert [probe.id for probe in harness.loaded_config.config.probes] == ["main", "shop", "blog", "warm"]


def test_a_probe_is_changed_and_keeps_its_masked_secret(harness: ManagedFileHarness) -> None:
    texts = {probe.id: probe.yaml for probe in asyncio.run(harness.create_editor().read()).probes}
    assert "s3cret" not in str(texts)
    edit = ProbeEdit(f"{texts['shop']}\nevery: 30s", "shop", version=read_version(harness))
    assert check(harness, edit).diff.splitlines()[-1] == "+every: 30s"
    assert harness.file.read_text() == MANAGED_TEXT
    save(harness, edit)
    text = harness.file.read_text()
    assert text.replace("\n    every: 30s", "") == MANAGED_TEXT
    (probe,) = [probe for probe in harness.loaded_config.config.probes if probe.id == "shop"]
    assert probe.every == 30_000
    assert "Bearer sh0p-s3cret-1" in text


def test_a_probe_is_deleted(harness: ManagedFileHarness) -> None:
    saved = save(harness, ProbeEdit(id="blog", is_deletion=True))
    assert harness.file.read_text() == MANAGED_TEXT.replace("  - name: Blog\n    http: http://127.0.0.1:9/blog\n", "")
    assert (saved.checked.probe, saved.checked.probe_id) == (None, "blog")
    assert saved.checked.diff.splitlines()[-2:] == ["-name: Blog", "-http: http://127.0.0.1:9/blog"]
    save(harness, ProbeEdit(id="shop", is_deletion=True))
    assert harness.file.read_text() == "# Ours; see the wiki\nprobes: []\n  # The first\n\n  # Second\n# The end\n"
    save(harness, ProbeEdit("name: Again\nhttp: http://127.0.0.1:9/"))
    assert harness.loaded_config.managed_probe_ids == {"again"}


def test_the_same_text_is_no_change(harness: ManagedFileHarness) -> None:
    inode = harness.file.stat().st_ino
    saved = save(harness, ProbeEdit("name: Blog\nhttp: http://127.0.0.1:9/blog", "blog"))
    assert (saved.checked.diff, harness.file.stat().st_ino) == ("", inode)


def test_a_copy_gets_the_secrets_of_its_source(harness: ManagedFileHarness) -> None:
    shop = asyncio.run(harness.create_editor().read()).probes[0]
    text = shop.yaml.replace("name: Shop", "name: Shop 2")
    save(harness, ProbeEdit(text, copy_of="shop"))
    assert harness.file.read_text().count("Bearer sh0p-s3cret-1") == 2
    harness.reload_count = 0
    error = refuse(harness, ProbeEdit(text.replace("Shop 2", "Shop 3")))
    assert error.problems[0].path == "http.headers.Authorization"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("name: A\nhttp: ftp://x", ["http: expected a URL that starts with http:// or https://"]),
        ("name: A\nhttp: http://a.test\nevry: 5s", ["evry: unknown field 'evry'; did you mean 'every'?"]),
        ("name: A\nhttp: http://a.test\nevery: soon", ["every: expected a duration such as 30s, 5m, 1h30m or 2d"]),
        ("name: A\nhttp: http://a.test\nschedule: 5 * *", ["schedule: "]),
        ("name: A", ["no probe kind: add one of http, steps, mcp"]),
        ("http: http://a.test", ["name: required field is missing"]),
        ("name: Shop\nhttp: http://a.test", ["name: duplicate name: another probe uses it on line 4 of the managed"]),
        ("name: Main\nhttp: http://a.test", ["name: duplicate name: another probe uses it at "]),
        ("name: A\nid: main\nhttp: http://a.test", ["id: duplicate id 'main'"]),
        ("name: A\nhttp: http://a.test\ninclude: [x]", ["include: unknown field 'include'"]),
        ("name: !!python/object:os.system A\nhttp: x", ["name: unsupported tag !!python/object:os.system"]),
        ("name: A\nhttp: http://${PRIVATE}/", ["http: the variable PRIVATE may not be used here"]),
        ("name: A\nhttp: http://${NOT_SET}/", ["http: the variable NOT_SET may not be used here"]),
        ("name: A\nevery: ${API_TOKEN}\nhttp: http://a.test", ["every: expected a duration such as"]),
        ("name: A\nname: B\nhttp: http://a.test", ["name: duplicate key"]),
        ("x" * 70_000, ["expected at most 65,536 characters"]),
        ("name: •••\nhttp: http://a.test", ["name: ••• stands for a secret that is not stored here"]),
    ],
)
def test_a_text_that_is_not_valid(harness: ManagedFileHarness, text: str, problems: list[str]) -> None:
    error = refuse(harness, ProbeEdit(text))
    assert error.reason is ManagedProbeRefusalReason.INVALID
    assert len(error.problems) >= len(problems)
    for problem, expected in zip(error.problems, problems, strict=False):
        assert str(problem).startswith(expected)
    for value in ENV.values():
        assert value not in f"{error}{error.problems}"


def test_a_probe_keeps_its_id(harness: ManagedFileHarness) -> None:
    error = refuse(harness, ProbeEdit("name: Weblog\nhttp: http://127.0.0.1:9/blog", "blog"))
    assert str(error.problems[0]) == "id: the probe would lose its history: set `id: blog`, or add another probe"
    save(harness, ProbeEdit("name: Weblog\nid: blog\nhttp: http://127.0.0.1:9/blog", "blog"))
    assert "blog" in harness.loaded_config.managed_probe_ids


def test_an_unknown_probe_and_one_of_another_file(harness: ManagedFileHarness) -> None:
    for id in ("main", "nothing"):
        error = refuse(harness, ProbeEdit("name: Main\nhttp: http://a.test", id))
        assert error.reason is ManagedProbeRefusalReason.NOT_FOUND
        assert "other probes are edited in their own files" in str(error)


def test_a_change_by_hand_is_not_overwritten(harness: ManagedFileHarness) -> None:
    version = read_version(harness)
    harness.file.write_text(MANAGED_TEXT + "# by hand\n")
    for edit in (
        ProbeEdit("name: Blog\nhttp: http://b.test", "blog", version=version),
        ProbeEdit(id="blog", is_deletion=True, version=version),
    ):
        error = refuse(harness, edit)
        assert error.reason is ManagedProbeRefusalReason.FILE_CHANGED


def test_a_change_during_the_check_is_not_overwritten(
    harness: ManagedFileHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = load_config

    def change_and_load(*arguments: Any, **options: Any) -> Any:
        harness.file.write_text("probes: []  # another editor was faster\n")
        return original(*arguments, **options)

    monkeypatch.setattr(managed_probes, "load_config", change_and_load)
    with pytest.raises(ManagedProbeRefusedError) as caught:
        save(harness, ProbeEdit("name: New\nhttp: http://a.test"))
    assert caught.value.reason is ManagedProbeRefusalReason.FILE_CHANGED
    assert harness.file.read_text() == "probes: []  # another editor was faster\n"


async def test_people_who_save_at_once_lose_nothing(harness: ManagedFileHarness) -> None:
    first, second = harness.create_editor(), harness.create_editor()
    version = (await first.read()).version
    edits = [ProbeEdit(f"name: Blog\nhttp: http://b{n}.test", "blog", version=version) for n in range(6)]
    results = await asyncio.gather(
        *((first, second)[n % 2].save(edit) for n, edit in enumerate(edits)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, ManagedProbeRefusedError)]
    assert len(refused) == 5
    assert {error.reason for error in refused} == {ManagedProbeRefusalReason.FILE_CHANGED}
    added = await asyncio.gather(*(first.save(ProbeEdit(f"name: N{n}\nhttp: http://n.test")) for n in range(5)))
    assert len({saved.version for saved in added}) == 5
    assert load_config(harness.main, env=ENV).managed_probe_ids >= {f"n{n}" for n in range(5)}


def test_a_file_with_an_error_is_left_to_its_author(harness: ManagedFileHarness) -> None:
    for text in ("probes: [\n", "probes:\n  - {name: S3cretname, evry: 5s, http: x}\n"):
        harness.file.write_text(text)
        error = refuse(harness, ProbeEdit("name: A\nhttp: http://a.test"))
        assert error.reason is ManagedProbeRefusalReason.UNAVAILABLE
        assert "managed.yaml:" in str(error)
        assert "S3cretname" not in str(error)


def test_an_error_of_another_file_is_named_without_its_values(harness: ManagedFileHarness) -> None:
    harness.main.write_text(harness.main.read_text() + "routes: [{receivers: [hush-hush]}]\n")
    error = refuse(harness, ProbeEdit("name: A\nhttp: http://a.test"))
    assert str(error).startswith("another part of the configuration is not valid: watchdog.yaml:6:")
    assert "hush" not in str(error)


def test_a_file_that_is_no_longer_the_managed_one(harness: ManagedFileHarness) -> None:
    harness.main.write_text(harness.main.read_text().replace("managed.yaml", "other.yaml"))
    assert "names another file by now" in str(refuse(harness, ProbeEdit("name: A\nhttp: http://a.test")))


def test_without_a_managed_file(harness: ManagedFileHarness) -> None:
    harness.main.write_text("probes: []")
    asyncio.run(harness.reload())
    harness.reload_count = 0
    assert asyncio.run(harness.create_editor().read()).file == ""
    assert "set `managed` in the configuration" in str(refuse(harness, ProbeEdit("name: A\nhttp: http://a.test")))


def test_private_addresses_stay_forbidden(harness: ManagedFileHarness) -> None:
    harness.main.write_text(f"defaults: {{allow_private_addresses: false}}\n{harness.main.read_text()}")
    asyncio.run(harness.reload())
    harness.reload_count = 0
    text = "name: A\nhttp: http://a.test\nallow_private_addresses: "
    for value in ("true", "'${API_TOKEN}'"):
        assert refuse(harness, ProbeEdit(text + value)).problems[0].path == "allow_private_addresses"
    check(harness, ProbeEdit(text + "false"))


def test_a_reload_on_a_signal_stays_so(harness: ManagedFileHarness) -> None:
    harness.main.write_text(f"reload: on_signal\n{harness.main.read_text()}")
    asyncio.run(harness.reload())
    assert save(harness, ProbeEdit("name: A\nhttp: http://a.test")).reload is None
    assert harness.reload_count == 1


def test_warnings_about_the_probe_alone(harness: ManagedFileHarness) -> None:
    text = "name: A\nhttp: http://a.test\ntimeout: 90s"
    (warning,) = check(harness, ProbeEdit(text)).warnings
    assert warning.startswith("timeout: a run may take 1m30s")


# --- try once


async def test_a_probe_is_tried_and_nothing_is_stored(harness: ManagedFileHarness) -> None:
    with FakeHttpReceiver() as server, capture_logs() as entries:
        async with NetworkAccess() as network:
            text = f"name: A\nhttp: {{url: '{server.url}', method: POST, headers: {{X: '${{API_TOKEN}}'}}}}"
            run = await harness.create_editor(network).try_once(ProbeEdit(text), ACTOR)
    assert (run.outcome, run.probe.name) == ("pass", "A")
    assert server.received[0].headers["x"] == ENV["API_TOKEN"]
    assert harness.file.read_text() == MANAGED_TEXT
    (entry,) = [entry for entry in entries if entry["event"] == "probe_tried"]
    assert (entry["probe"], entry["by"], entry["interface"]) == ("a", "ana", "page")


async def test_a_try_respects_the_network_filter(harness: ManagedFileHarness) -> None:
    async with NetworkAccess() as network:
        run = await harness.create_editor(network).try_once(ProbeEdit("name: A\nhttp: http://169.254.169.254/"), ACTOR)
    assert run.outcome != "pass"
    assert "blocked" in run.reason or "blocked" in run.message


async def test_what_cannot_be_tried(harness: ManagedFileHarness) -> None:
    editor = harness.create_editor()
    heartbeat = "name: A\nheartbeat: {token: 0123456789abcdef-x, every: 1h}"
    for edit, message in (
        (ProbeEdit(heartbeat), "its job checks in at the running service"),
        (ProbeEdit(id="blog", is_deletion=True), "it would be deleted"),
        (ProbeEdit("name: A\nhttp: x"), "expected a URL"),
    ):
        with pytest.raises(ManagedProbeRefusedError, match=message):
            await editor.try_once(edit, ACTOR)


async def test_tries_are_limited(harness: ManagedFileHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    release, running = asyncio.Event(), asyncio.Semaphore(0)

    async def run(*_: Any) -> Any:
        running.release()
        await release.wait()

    monkeypatch.setattr(managed_probes, "run_probe_on_demand_without_recording", run)
    editor, edit = harness.create_editor(), ProbeEdit("name: A\nhttp: http://a.test")
    tries = [asyncio.create_task(editor.try_once(edit, ACTOR)) for _ in range(managed_probes.MAX_CONCURRENT_TRIES)]
    for _ in tries:
        await running.acquire()
    with pytest.raises(ManagedProbeRefusedError, match="other probes are being tried"):
        await editor.try_once(edit, ACTOR)
    release.set()
    await asyncio.gather(*tries)
    monkeypatch.setattr(managed_probes, "TRY_TIMEOUT_S", 0)
    release.clear()
    with pytest.raises(ManagedProbeRefusedError, match="did not end within 0 s"):
        await editor.try_once(edit, ACTOR)
