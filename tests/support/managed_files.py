"""A managed file in a folder of its own, with an editor of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from watchdog.config.load import LoadedConfig, load_config
from watchdog.config.problems import ConfigError
from watchdog.net import NetworkAccess
from watchdog.service.clock import read_wall_clock_ms
from watchdog.service.config_reload import ConfigReloadOutcome, ConfigReloadResultKind
from watchdog.service.managed_probes import ManagedProbeEditor

MAIN_TEXT = """\
managed: {file: managed.yaml, variables: [API_TOKEN]}
storage: {url: "sqlite:///watchdog.db"}
receivers: {journal: {log: {}}}
probes:
  - {name: Main, http: "http://127.0.0.1:9/"}
"""
MANAGED_TEXT = """\
# Ours; see the wiki
probes:
  # The first
  - name: Shop   # keep this name
    http: {url: "http://127.0.0.1:9/shop", headers: {Authorization: "Bearer sh0p-s3cret-1"}}

  # Second
  - name: Blog
    http: http://127.0.0.1:9/blog
# The end
"""
ENV = {"API_TOKEN": "T0ken-0123456789", "PRIVATE": "Pr1vate-0123456789"}


class ManagedFileHarness:
    """Reloads as a process does, but into `loaded_config` only."""

    def __init__(self, folder: Path, env: Mapping[str, str] = ENV):
        self.main, self.file, self.env = folder / "watchdog.yaml", folder / "managed.yaml", env
        self.main.write_text(MAIN_TEXT)
        self.file.write_text(MANAGED_TEXT)
        self.loaded_config: LoadedConfig = load_config(self.main, env=env)
        self.reload_count = 0

    async def reload(self) -> ConfigReloadOutcome:
        self.reload_count += 1
        try:
            self.loaded_config = load_config(self.main, env=self.env)
        except ConfigError as e:
            return ConfigReloadOutcome(ConfigReloadResultKind.INVALID, tuple(map(str, e.problems)))
        return ConfigReloadOutcome(ConfigReloadResultKind.APPLIED)

    def create_editor(self, network: NetworkAccess | None = None) -> ManagedProbeEditor:
        return ManagedProbeEditor(
            *(self.main, lambda: self.loaded_config, self.reload, network or NetworkAccess()),
            clock=read_wall_clock_ms,
            env=self.env,
        )
