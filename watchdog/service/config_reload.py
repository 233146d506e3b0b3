"""Reloads the configuration while the service runs: when its files change, on a signal, or when it is called."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

from watchdog.config.config_files import ConfigFileSignature, read_config_file_signatures
from watchdog.config.load import LoadedConfig, load_config
from watchdog.config.problems import ConfigError, ConfigProblem, WatchedConfigPaths
from watchdog.config.safe_problems import describe_config_problems_without_values
from watchdog.domain.config_changes import ConfigChanges
from watchdog.domain.formatting import HOUR_MS
from watchdog.net import SecretMask
from watchdog.net.threads import run_in_daemon_thread
from watchdog.service.clock import Clock
from watchdog.service.member_faults import WatchdogProcessFaultReporter
from watchdog.store.errors import StoreUnavailableError, WatchdogDatabaseSchemaError

log = structlog.get_logger()

CONFIG_FILE_CHECK_INTERVAL_S = 0.5
CONFIG_WRITE_SETTLING_TIME_S = 0.2
"""How long the files must not have changed before they are read: a program may still be writing them."""
MAX_CONFIG_WRITE_SETTLING_CHECKS = 50
"""Then they are read although they still change."""
CONFIG_LOAD_TIMEOUT_S = 30.0
"""A network file system may hang."""
RELOAD_RETRY_INTERVAL_S = 1.0
MAX_REPORTED_CONFIG_PROBLEMS = 100
FORMER_SECRET_RETENTION_MS = HOUR_MS
"""How long the secrets of a replaced configuration are still masked: runs in progress, and servers, may repeat them."""

FileSignatures = Mapping[Path, ConfigFileSignature | None]


def log_config_warnings(loaded_config: LoadedConfig) -> None:
    for warning in loaded_config.warnings:
        location = str(warning.source_location)
        log.warning("config_warning", location=location, field=warning.path, detail=warning.message)


class ConfigReloadResultKind(StrEnum):
    APPLIED = "applied"
    INVALID = "invalid"
    """The configuration cannot be loaded, and the former one stays."""
    POSTPONED = "postponed"
    """The database is unavailable: it is applied when it is back."""


class ConfigReloadOutcome(NamedTuple):
    result: ConfigReloadResultKind
    problems: tuple[str, ...] = ()
    """Why the configuration is invalid, one line each, without any content of its files."""
    change_counts: tuple[tuple[str, int], ...] = ()
    """The number of changes by kind: ConfigChanges.count_config_changes_by_kind()."""
    former_applied_at: int | None = None
    """When the configuration that was in use before was applied, in epoch ms. None: it is still in use."""
    former_change_counts: tuple[tuple[str, int], ...] = ()
    """The number of changes that it made then. Empty: it is that of the start."""
    warnings: tuple[str, ...] = ()
    """The warnings of the applied configuration, one line each."""


class FinishedConfigReload(NamedTuple):
    at: int
    """Epoch ms."""
    outcome: ConfigReloadOutcome


@dataclass(slots=True)
class ConfigReloadCounts:
    """How often the configuration was loaded, and how the last reload ended. The start counts as the first time."""

    success: int = 1
    failure: int = 0
    last_reload: FinishedConfigReload | None = None
    """None: the configuration was loaded at the start alone."""

    def count(self, reload: FinishedConfigReload) -> None:
        """A postponed reload is counted when it is applied."""
        self.success += reload.outcome.result is ConfigReloadResultKind.APPLIED
        self.failure += reload.outcome.result is ConfigReloadResultKind.INVALID
        self.last_reload = reload


class ConfigReloader:
    """Owns which configuration is in use, and when the files are read again. `run_forever` must run as a task.

    `apply`: makes the service work with a configuration, and returns what changes; raises StoreUnavailableError, and
    then nothing has changed. The mask of `loaded_config` is the one that everything in this process masks with: it is
    extended before a new configuration is used. `on_result`: called after each reload. `signatures`: of the files when
    `loaded_config` was read. `requested`: set from outside to request a reload; several requests before it begins are
    one.
    """

    def __init__(
        self,
        loaded_config: LoadedConfig,
        path: Path,
        apply: Callable[[LoadedConfig], Awaitable[ConfigChanges]],
        fault_reporter: WatchdogProcessFaultReporter,
        *,
        clock: Clock,
        signatures: FileSignatures,
        requested: asyncio.Event | None = None,
        env: Mapping[str, str] = os.environ,
        on_result: Callable[[FinishedConfigReload], None] = lambda _: None,
    ):
        self.loaded_config, self.path, self._apply = loaded_config, path, apply
        self._fault_reporter, self._clock, self._env = fault_reporter, clock, env
        self._mask = loaded_config.mask
        self._on_result, self._signatures, self._files = on_result, signatures, loaded_config.files
        self._former_masks: list[tuple[int, SecretMask]] = []
        """With when each was replaced."""
        self._current_secrets = SecretMask(self._mask.secrets, self._mask.target_secrets)
        self._postponed: LoadedConfig | None = None
        self._last_attempted: LoadedConfig | None = None
        self._requested = requested or asyncio.Event()
        self._reload_lock = asyncio.Lock()
        self._applied_at = clock()
        self._applied_change_counts: tuple[tuple[str, int], ...] = ()

    async def run_forever(self) -> None:
        """Reload whenever it is requested, the files have changed, or the database is back for a postponed one."""
        while True:
            await self._sleep_until_reload_request_or_tick()
            try:
                if self._requested.is_set() or await self._have_config_files_changed_and_settled():
                    self._requested.clear()
                    await self.reload()
                    await asyncio.sleep(CONFIG_FILE_CHECK_INTERVAL_S)  # a storm of requests leads to few reloads
                elif self._postponed is not None:
                    await self._apply_postponed_config()
            except Exception:  # a bug: the next change may load all the same
                log.exception("reload_failed")
                await asyncio.sleep(RELOAD_RETRY_INTERVAL_S)

    async def _sleep_until_reload_request_or_tick(self) -> None:
        try:
            async with asyncio.timeout(CONFIG_FILE_CHECK_INTERVAL_S):
                await self._requested.wait()
        except TimeoutError:
            pass

    async def _have_config_files_changed_and_settled(self) -> bool:
        """Whether they differ from what was read last. Waits until they have not changed for a moment."""
        if self.loaded_config.config.reload != "on_change":
            return False
        signatures = await self._read_config_file_signatures(self._files)
        if signatures == self._signatures:
            return False
        for _ in range(MAX_CONFIG_WRITE_SETTLING_CHECKS):
            await asyncio.sleep(CONFIG_WRITE_SETTLING_TIME_S)
            previous, signatures = signatures, await self._read_config_file_signatures(self._files)
            if signatures == previous:
                break
        return signatures != self._signatures

    async def _read_config_file_signatures(self, files: WatchedConfigPaths) -> FileSignatures:
        return await run_in_daemon_thread(partial(read_config_file_signatures, files), "config-files")

    async def reload(self) -> ConfigReloadOutcome:
        """Read the files and apply them. Not interrupted if the caller is cancelled."""
        return await asyncio.shield(asyncio.ensure_future(self._load_and_apply_configuration()))

    async def _load_and_apply_configuration(self) -> ConfigReloadOutcome:
        async with self._reload_lock:
            try:
                loaded = await self._load_config_and_note_its_files()
            except ConfigError as e:
                self._postponed = None
                summary, problems = await asyncio.to_thread(self._describe_invalid_config, e)
                log.error("config_invalid", detail=summary, advice="`watchdog validate` shows every problem")
                self._fault_reporter.set_config_problem(summary)
                return self._report(ConfigReloadOutcome(ConfigReloadResultKind.INVALID, problems))
            self._postponed = loaded
            return await self._try_to_apply_config(loaded)

    def _report(self, outcome: ConfigReloadOutcome) -> ConfigReloadOutcome:
        self._on_result(FinishedConfigReload(self._clock(), outcome))
        return outcome

    async def _load_config_and_note_its_files(self) -> LoadedConfig:
        """Raises ConfigError. If it names other files than before, they are read once more: a change of a file between
        its reading and the first look at its signature would not be noticed."""
        for attempt in (1, 2):
            files = self._files
            self._signatures = await self._read_config_file_signatures(files)
            outcome = await self._load_config_in_thread()
            if isinstance(outcome, LoadedConfig):
                self._files = outcome.files
            else:  # a file that only the former configuration names may be what has to be corrected
                paths, patterns = outcome.files
                self._files = WatchedConfigPaths(paths | files.paths, patterns | files.include_patterns)
            if self._files == files or attempt == 2:
                break
        signatures = await self._read_config_file_signatures(self._files)
        self._signatures = {path: self._signatures.get(path, signature) for path, signature in signatures.items()}
        if isinstance(outcome, ConfigError):
            raise outcome
        return outcome

    async def _load_config_in_thread(self) -> LoadedConfig | ConfigError:
        load = partial(load_config, self.path, env=self._env, regular_files_only=True)
        try:
            async with asyncio.timeout(CONFIG_LOAD_TIMEOUT_S):
                return await run_in_daemon_thread(load, "config-load")
        except ConfigError as e:
            return e
        except TimeoutError:
            message = f"the files could not be read within {CONFIG_LOAD_TIMEOUT_S:g} s"
            return ConfigError([ConfigProblem(str(self.path), 0, 0, "", message)])

    def _describe_invalid_config(self, error: ConfigError) -> tuple[str, tuple[str, ...]]:
        """In one text, and problem by problem. The first time, this reads the sources, which takes half a second."""
        summary = describe_config_problems_without_values(error.problems, self._mask)
        reported = error.problems[:MAX_REPORTED_CONFIG_PROBLEMS]
        return summary, tuple(describe_config_problems_without_values([problem], self._mask) for problem in reported)

    async def _apply_postponed_config(self) -> None:
        async with self._reload_lock:
            if self._postponed is not None:
                await self._try_to_apply_config(self._postponed)

    async def _try_to_apply_config(self, loaded: LoadedConfig) -> ConfigReloadOutcome:
        new_secrets = loaded.mask
        self._mask_new_and_former_secrets(new_secrets)
        is_first_attempt = loaded is not self._last_attempted
        self._last_attempted = loaded
        try:
            changes = await self._apply(replace(loaded, mask=self._mask))
        except (StoreUnavailableError, WatchdogDatabaseSchemaError) as e:
            if is_first_attempt:
                log.warning("reload_postponed", error=str(e))
                self._report(ConfigReloadOutcome(ConfigReloadResultKind.POSTPONED))
            return ConfigReloadOutcome(ConfigReloadResultKind.POSTPONED)
        self._postponed = None
        if new_secrets.including(self._current_secrets) is not new_secrets:
            self._former_masks.append((self._clock(), self._current_secrets))
        self._current_secrets = new_secrets
        self.loaded_config = replace(loaded, mask=self._mask)
        self._fault_reporter.set_config_problem("")
        return self._report(self._build_outcome_of_applied_config(loaded, changes))

    def _build_outcome_of_applied_config(self, loaded: LoadedConfig, changes: ConfigChanges) -> ConfigReloadOutcome:
        log_config_warnings(loaded)
        former_applied_at, former_change_counts = self._applied_at, self._applied_change_counts
        change_counts = tuple(changes.count_config_changes_by_kind().items())
        if change_counts:
            self._applied_at, self._applied_change_counts = self._clock(), change_counts
        return ConfigReloadOutcome(
            ConfigReloadResultKind.APPLIED,
            change_counts=change_counts,
            former_applied_at=former_applied_at,
            former_change_counts=former_change_counts,
            warnings=tuple(self._mask(str(warning)) for warning in loaded.warnings),
        )

    def _mask_new_and_former_secrets(self, new_secrets: SecretMask) -> None:
        """Mask the new secrets from now on, and those of former configurations for a while."""
        now = self._clock()
        self._former_masks = [
            (replaced_at, mask)
            for replaced_at, mask in self._former_masks
            if 0 <= now - replaced_at < FORMER_SECRET_RETENTION_MS
        ]
        combined = new_secrets.including(self._current_secrets)
        for _, mask in self._former_masks:
            combined = combined.including(mask)
        self._mask.use_secrets_of(combined)
