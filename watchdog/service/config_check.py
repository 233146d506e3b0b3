"""Checks a configuration that a client has sent, in place of the main file, without applying it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from watchdog.config.definitions import parse_yaml_values_by_field_path
from watchdog.config.load import LoadedConfig, load_config
from watchdog.config.problems import ConfigError, ConfigProblem
from watchdog.config.safe_problems import describe_config_problems_without_values
from watchdog.net import SecretMask
from watchdog.net.threads import run_in_daemon_thread
from watchdog.service.config_reload import CONFIG_LOAD_TIMEOUT_S, MAX_REPORTED_CONFIG_PROBLEMS, ConfigReloadOutcome
from watchdog.service.managed_probes import ManagedProbeEditor


class ConfigCheckOutcome(NamedTuple):
    """A problem or a warning is a line without anything that the configuration, or a file of this machine, contains."""

    loaded_config: LoadedConfig | None
    """None: it is not valid. Its mask also masks the secrets of the running configuration."""
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class RunningConfigActions(NamedTuple):
    """What clients may do with the configuration of a running process."""

    reload: Callable[[], Awaitable[ConfigReloadOutcome]]
    """Reads the files again and applies them."""
    check: Callable[[str], Awaitable[ConfigCheckOutcome]]
    """Checks the text of a main file, and applies nothing."""
    managed_probes: ManagedProbeEditor | None = None
    """Edits the managed file."""


class PostedConfigChecker:
    """Loads configurations as a reload would: with the variables, included files and secret files of this machine.

    `path`: of the main file, which is not read. `mask`: masks the secrets of the running configuration.
    """

    def __init__(self, path: Path, mask: SecretMask, env: Mapping[str, str] = os.environ):
        self._path, self._mask, self._env = path, mask, env
        self._check_lock = asyncio.Lock()

    async def check(self, text: str) -> ConfigCheckOutcome:
        """One at a time, in a thread."""
        load = partial(self._load_and_describe, text)
        async with self._check_lock:
            try:
                async with asyncio.timeout(CONFIG_LOAD_TIMEOUT_S):
                    return await run_in_daemon_thread(load, "config-check")
            except TimeoutError:
                return ConfigCheckOutcome(None, (f"its files could not be read within {CONFIG_LOAD_TIMEOUT_S:g} s",))

    def _load_and_describe(self, text: str) -> ConfigCheckOutcome:
        try:
            loaded = load_config(self._path, text, self._env, regular_files_only=True)
        except ConfigError as e:
            return ConfigCheckOutcome(None, self._describe(e.problems))
        if problems := self._describe(_iter_problems_of_variables_in_probe_ids_and_names(self._path, loaded)):
            return ConfigCheckOutcome(None, problems)
        mask = loaded.mask.including(self._mask)
        return ConfigCheckOutcome(replace(loaded, mask=mask), warnings=self._describe(loaded.warnings))

    def _describe(self, problems: Iterable[ConfigProblem]) -> tuple[str, ...]:
        first = islice(problems, MAX_REPORTED_CONFIG_PROBLEMS)
        return tuple(describe_config_problems_without_values([problem], self._mask) for problem in first)


def _iter_problems_of_variables_in_probe_ids_and_names(path: Path, loaded: LoadedConfig) -> Iterator[ConfigProblem]:
    """Ids are shown, and may be derived from names: such a configuration would reveal the value of any variable."""
    for number, probe in enumerate(loaded.config.probes):
        written = parse_yaml_values_by_field_path(loaded.probe_yaml[probe.id])
        for field in ("id", "name"):
            if "${" in written.get(field, ""):
                message = "a configuration that is sent cannot have variables in ids and names"
                yield ConfigProblem(str(path), 0, 0, f"probes.{number}.{field}", message)
