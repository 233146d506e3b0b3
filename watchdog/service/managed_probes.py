"""Probes that people create, edit and delete on pages and through the API: entries of the managed file.

A change is checked as a whole configuration, as a reload would load it, before the file is replaced; then it is
reloaded. Nothing that a client receives contains values of variables and files, or secrets of the file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from watchdog.config.load import LoadedConfig, load_config
from watchdog.config.managed_entry import (
    MAX_PROBE_YAML_CHARS,
    ProbeTextProblem,
    find_forbidden_content_in_probe_yaml,
    mask_probe_text,
    restore_masked_secrets,
)
from watchdog.config.managed_file import (
    ManagedFileText,
    ManagedProbeEntry,
    ManagedTextError,
    compute_managed_version,
    parse_probe_text_into_yaml_node,
)
from watchdog.config.problems import ConfigError, ConfigProblem
from watchdog.config.references import list_config_variable_names
from watchdog.config.safe_problems import describe_config_problems_without_values
from watchdog.domain.acts import Actor, OperatorActKind
from watchdog.net import NetworkAccess
from watchdog.net.threads import run_in_daemon_thread
from watchdog.service.acts import ActRunner
from watchdog.service.clock import Clock
from watchdog.service.config_acts import record_config_act_if_possible
from watchdog.service.config_reload import CONFIG_LOAD_TIMEOUT_S, ConfigReloadOutcome
from watchdog.service.event_loop_lag import EventLoopLagMonitor
from watchdog.service.managed_edits import (
    CheckedProbeEdit,
    ManagedProbe,
    ManagedProbeRefusalReason,
    ManagedProbeRefusedError,
    ManagedProbes,
    ProbeEdit,
    SavedProbeEdit,
    build_invalid_probe_error,
    build_masked_probe_diff,
    build_probe_text_problem_from_config_problem,
    describe_warnings_of_probe,
    find_identity_problems,
    find_managed_entry_or_refuse,
)
from watchdog.service.managed_store import (
    ManagedFileChangedError,
    ManagedStoreError,
    read_managed_file,
    replace_managed_file,
)
from watchdog.service.run_once import OnDemandRun, run_probe_on_demand_without_recording
from watchdog.service.runner import RetryingProbeRunner

log = structlog.get_logger()
ResultT = TypeVar("ResultT")

TRY_TIMEOUT_S = 30.0
"""A probe that takes longer cannot be tried."""
MAX_CONCURRENT_TRIES = 2
NO_MANAGED_FILE_MESSAGE = (
    "Watchdog has no managed file: set `managed` in the configuration, such as `managed: managed.yaml`"
)
MANAGED_FILE_CHANGED_MESSAGE = (
    "the managed file has changed since it was read: look at the probe again, and repeat the change"
)


class ManagedProbeEditor:
    """Edits the managed file of a running service. All methods raise ManagedProbeRefusedError.

    `get_loaded_config`: the configuration in use. `path`: of its main file.
    """

    def __init__(
        self,
        path: Path,
        get_loaded_config: Callable[[], LoadedConfig],
        reload: Callable[[], Awaitable[ConfigReloadOutcome]],
        network: NetworkAccess,
        *,
        clock: Clock,
        env: Mapping[str, str] = os.environ,
    ):
        self._path, self._get_loaded_config, self._reload = path, get_loaded_config, reload
        self._network, self._clock, self._env = network, clock, env
        self._edit_lock = asyncio.Lock()
        self._tries = asyncio.Semaphore(MAX_CONCURRENT_TRIES)

    @property
    def is_enabled(self) -> bool:
        return self._get_loaded_config().managed_file is not None

    @property
    def probe_ids(self) -> frozenset[str] | None:
        """The probes of the managed file in the configuration in use; None: there is no such file."""
        return self._get_loaded_config().managed_probe_ids if self.is_enabled else None

    @property
    def managed_file_path(self) -> str:
        """The path of the managed file."""
        return str(self._get_loaded_config().managed_file or "")

    async def read(self) -> ManagedProbes:
        """What the file holds now."""
        if not self.is_enabled:
            return ManagedProbes("", "")
        return await self._run_in_thread(self._read)

    def _read(self) -> ManagedProbes:
        file, content, text = self._read_text()
        probes = (ManagedProbe(e.id, e.name, e.line, mask_probe_text(e.yaml) if e.yaml else "") for e in text.entries)
        return ManagedProbes(str(file), compute_managed_version(content), tuple(probes))

    async def check(self, edit: ProbeEdit) -> CheckedProbeEdit:
        """What a change would lead to, without storing it."""
        return await self._run_in_thread(partial(self._check, edit))

    async def save(self, edit: ProbeEdit) -> SavedProbeEdit:
        """Store a change and reload the configuration."""
        async with self._edit_lock:
            checked = await self._run_in_thread(partial(self._check_and_store, edit))
        is_reloaded = checked.loaded_config.config.reload == "on_change"
        outcome = await self._reload() if is_reloaded else None
        return SavedProbeEdit(checked, compute_managed_version(checked.after), outcome)

    def _check_and_store(self, edit: ProbeEdit) -> CheckedProbeEdit:
        checked = self._check(edit)
        if checked.after != checked.before:
            try:
                replace_managed_file(checked.file, checked.before, checked.after)
            except ManagedFileChangedError:
                raise ManagedProbeRefusedError(
                    ManagedProbeRefusalReason.FILE_CHANGED, MANAGED_FILE_CHANGED_MESSAGE
                ) from None
        return checked

    async def try_once(self, edit: ProbeEdit, actor: Actor) -> OnDemandRun:
        """Run a probe as it is entered, without storing anything. The log of the process states who did it: the probe
        may send a stored secret."""
        checked = await self.check(edit)
        probe = checked.probe
        if probe is None or probe.passive_source:
            why = probe.passive_source if probe is not None else "it would be deleted"
            message = f"the probe cannot be tried, because {why}"
            raise ManagedProbeRefusedError(ManagedProbeRefusalReason.INVALID, message)
        if self._tries.locked():
            message = "other probes are being tried: try again in a few seconds"
            raise ManagedProbeRefusedError(ManagedProbeRefusalReason.BUSY, message)
        log.info(
            "probe_tried",
            probe=probe.id,
            target=probe.target,
            **({"copy_of": edit.copy_of} if edit.copy_of else {}),
            by=actor.name,
            interface=actor.interface.value,
        )
        async with self._tries, EventLoopLagMonitor() as lag:
            runner = RetryingProbeRunner(self._network, checked.loaded_config.mask, self._clock, lag)
            try:
                async with asyncio.timeout(TRY_TIMEOUT_S):
                    return await run_probe_on_demand_without_recording(runner, probe)
            except TimeoutError:
                message = f"the run did not end within {TRY_TIMEOUT_S:g} s: you can save the probe anyway"
                raise ManagedProbeRefusedError(ManagedProbeRefusalReason.BUSY, message) from None

    async def _run_in_thread(self, function: Callable[[], ResultT]) -> ResultT:
        """A network file system may hang."""
        try:
            async with asyncio.timeout(CONFIG_LOAD_TIMEOUT_S):
                return await run_in_daemon_thread(function, "managed-probes")
        except (ManagedStoreError, ManagedTextError) as e:
            raise ManagedProbeRefusedError(ManagedProbeRefusalReason.UNAVAILABLE, str(e)) from None
        except TimeoutError:
            message = (
                f"the files could not be used within {CONFIG_LOAD_TIMEOUT_S:g} s: see whether the change was stored"
            )
            raise ManagedProbeRefusedError(ManagedProbeRefusalReason.UNAVAILABLE, message) from None

    def _read_text(self) -> tuple[Path, bytes, ManagedFileText]:
        file = self._get_loaded_config().managed_file
        if file is None:
            raise ManagedProbeRefusedError(ManagedProbeRefusalReason.UNAVAILABLE, NO_MANAGED_FILE_MESSAGE)
        content = read_managed_file(file)
        return file, content, ManagedFileText(content, str(file))

    def _check(self, edit: ProbeEdit) -> CheckedProbeEdit:
        file, content, text = self._read_text()
        entry = find_managed_entry_or_refuse(text, edit.id) if edit.id else None
        if edit.version and edit.version != compute_managed_version(content):
            raise ManagedProbeRefusedError(ManagedProbeRefusalReason.FILE_CHANGED, MANAGED_FILE_CHANGED_MESSAGE)
        if entry is not None and edit.is_deletion:
            loaded = self._load_config_with_managed_file_text(file, text.remove(entry.index), None, "")
            return self._build_checked_probe_edit(edit, loaded, (file, content, text.remove(entry.index)), entry, None)
        if entry is not None and not entry.yaml:
            message = f"the probe {entry.id} shares values with other parts of the managed file: edit it by hand"
            raise ManagedProbeRefusedError(ManagedProbeRefusalReason.UNAVAILABLE, message)
        probe_yaml = self._prepare_probe_yaml(edit, text, entry)
        index = len(text.entries) if entry is None else entry.index
        if entry is None:
            new = text.add(probe_yaml)
        else:
            new = text.text if probe_yaml == entry.yaml else text.replace(index, probe_yaml)
        loaded = self._load_config_with_managed_file_text(file, new, index, probe_yaml)
        return self._build_checked_probe_edit(
            replace(edit, yaml=probe_yaml), loaded, (file, content, new), entry, index
        )

    def _prepare_probe_yaml(self, edit: ProbeEdit, text: ManagedFileText, entry: ManagedProbeEntry | None) -> str:
        """The text to store, with the secrets of the former one."""
        if len(edit.yaml) > MAX_PROBE_YAML_CHARS:
            raise build_invalid_probe_error(
                [ProbeTextProblem("", f"expected at most {MAX_PROBE_YAML_CHARS:,} characters")]
            )
        yaml, running = edit.yaml.replace("\r\n", "\n").strip("\n").rstrip(), self._get_loaded_config().config
        problems = find_forbidden_content_in_probe_yaml(yaml, running.managed.variables if running.managed else ())
        source = entry or next((e for e in text.entries if edit.copy_of and e.id == edit.copy_of), None)
        yaml, missing = restore_masked_secrets(yaml, source.yaml if source is not None else "")
        problems += missing
        node, _ = parse_probe_text_into_yaml_node(yaml)
        if node is not None:
            problems += find_identity_problems(node, edit.id, text, entry)
            allowed = node.mapping_entries.get("allow_private_addresses")
            if allowed is not None and allowed.value is not False and not running.defaults.allow_private_addresses:
                message = "`defaults` forbid private addresses: edit the managed file by hand"
                problems.append(ProbeTextProblem("allow_private_addresses", message))
        if problems:
            raise build_invalid_probe_error(problems)
        return yaml

    def _load_config_with_managed_file_text(
        self, file: Path, text: str, index: int | None, probe_yaml: str
    ) -> LoadedConfig:
        """The configuration with a new text of the managed file. `index`: of the probe in it."""
        try:
            loaded = load_config(self._path, env=self._env, regular_files_only=True, managed_text=text)
        except ConfigError as e:
            raise self._build_refusal_from_config_problems(e.problems, str(file), index, probe_yaml) from None
        if loaded.managed_file != file:
            message = "`managed` names another file by now: reload the configuration"
            raise ManagedProbeRefusedError(ManagedProbeRefusalReason.UNAVAILABLE, message)
        return replace(loaded, mask=loaded.mask.including(self._get_loaded_config().mask))

    def _build_checked_probe_edit(
        self,
        edit: ProbeEdit,
        loaded: LoadedConfig,
        texts: tuple[Path, bytes, str],
        entry: ManagedProbeEntry | None,
        index: int | None,
    ) -> CheckedProbeEdit:
        """`index`: of the probe in the new text; None: it is deleted."""
        file, before, text = texts
        managed = [probe for probe in loaded.config.probes if probe.id in loaded.managed_probe_ids]
        probe = None if index is None else managed[index]
        former, line = (entry.yaml, entry.line) if entry is not None else ("", 0)
        return CheckedProbeEdit(
            *(
                probe,
                edit.id if probe is None else probe.id,
                loaded,
                build_masked_probe_diff(former, edit.yaml, file.name, line),
            ),
            warnings=describe_warnings_of_probe(loaded.warnings, str(file), index),
            file=file,
            before=before,
            after=text.encode(),
        )

    def _build_refusal_from_config_problems(
        self, problems: list[ConfigProblem], file: str, index: int | None, probe_yaml: str
    ) -> ManagedProbeRefusedError:
        """Those of the probe with their field; others without anything that files contain."""
        prefix = f"probes.{index}"
        own: list[ConfigProblem] = []
        others: list[ConfigProblem] = []
        for problem in problems:
            is_own = problem.file == file and f"{problem.path}.".startswith(f"{prefix}.")
            (own if is_own else others).append(problem)
        mask = self._get_loaded_config().mask
        if not own:
            described = describe_config_problems_without_values(others, mask)
            message = f"another part of the configuration is not valid: {described}; correct it first"
            return ManagedProbeRefusedError(ManagedProbeRefusalReason.UNAVAILABLE, message)
        has_variables = bool(list_config_variable_names(probe_yaml))
        return build_invalid_probe_error(
            [build_probe_text_problem_from_config_problem(problem, prefix, mask, has_variables) for problem in own]
        )


async def save_and_record_probe_edit(
    editor: ManagedProbeEditor, edit: ProbeEdit, run_act: ActRunner, actor: Actor
) -> SavedProbeEdit:
    """Store a change, reload the configuration and note in the audit log who did it. If the database is away, only
    the log of the process states it. Raises ManagedProbeRefusedError."""
    saved = await editor.save(edit)
    kind = OperatorActKind.EDIT_PROBE if edit.id else OperatorActKind.CREATE_PROBE
    kind = OperatorActKind.DELETE_PROBE if edit.is_deletion else kind
    probe_id = saved.checked.probe_id
    log.info("managed_file_changed", act=kind.value, probe=probe_id, by=actor.name, interface=actor.interface.value)
    await record_config_act_if_possible(run_act, kind, actor, probe=probe_id)
    return saved
