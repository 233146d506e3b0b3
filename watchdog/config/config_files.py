"""Whether the files of a configuration have changed, by their metadata: this also works on network file systems, for
bind mounts, for links that are switched over (Kubernetes), and for editors that replace a file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from watchdog.config.include_files import IncludeFileFinder, TooManyFolderEntriesError
from watchdog.config.problems import WatchedConfigPaths


class ConfigFileSignature(NamedTuple):
    """Differs after a file was written, replaced, or linked to another one."""

    device: int
    inode: int
    mode: int
    size: int
    modified_ns: int
    changed_ns: int


def read_config_file_signatures(files: WatchedConfigPaths) -> Mapping[Path, ConfigFileSignature | None]:
    """Of every file, and of those that match the patterns by now; None: it cannot be read."""
    finder, paths = IncludeFileFinder(), set(files.paths)
    for folder, pattern in files.include_patterns:
        with suppress(TooManyFolderEntriesError):
            paths.update(finder.find_files(folder, pattern))
    return {path: _read_config_file_signature(path) for path in paths}


def _read_config_file_signature(path: Path) -> ConfigFileSignature | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    identity = status.st_dev, status.st_ino, status.st_mode
    return ConfigFileSignature(*identity, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
