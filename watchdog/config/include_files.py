"""The files that a pattern of `include` matches. Bounded, so that a pattern does not walk through a whole disk."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR

MAX_TOTAL_INCLUDE_FOLDER_ENTRIES = 20_000
"""Of all folders that the patterns of one configuration read."""


class TooManyFolderEntriesError(Exception):
    """The patterns read more than MAX_TOTAL_INCLUDE_FOLDER_ENTRIES."""


class IncludeFileFinder:
    """Expands patterns as a shell does: `*`, `?` and `[...]` within a name, `**` for any number of folders. A name that
    starts with a dot is matched only by a pattern that does. `**` visits a folder once, even if links lead to it."""

    def __init__(self) -> None:
        self._entries_read = 0

    def find_files(self, base_folder: Path, pattern: str) -> list[Path]:
        """What the pattern matches, sorted, without folders. Raises TooManyFolderEntriesError."""
        path = Path(pattern)
        matches = [Path(path.anchor) if path.anchor else base_folder]
        for part in path.parts[1 if path.anchor else 0 :]:
            matches = list(
                dict.fromkeys(match for folder in matches for match in self._match_pattern_part(folder, part))
            )
        if path.name == "**":
            matches = [match for folder in matches for match in self._match_pattern_part(folder, "*")]
        return sorted(match for match in matches if _get_folder_device_and_inode(match) is None)

    def _match_pattern_part(self, folder: Path, part: str) -> Iterator[Path]:
        if part == "**":
            yield from self._list_folder_and_subfolders(folder)
        elif glob.has_magic(part):
            for entry in self._iter_folder_entries_up_to_limit(folder):
                if fnmatch.fnmatchcase(entry.name, part) and (part.startswith(".") or not entry.name.startswith(".")):
                    yield folder / entry.name
        elif os.path.lexists(folder / part):
            yield folder / part

    def _list_folder_and_subfolders(self, folder: Path) -> Iterator[Path]:
        """The folder itself and all below it."""
        pending, visited = [folder], set()
        while pending:
            folder = pending.pop()
            if (identity := _get_folder_device_and_inode(folder)) is not None and identity not in visited:
                visited.add(identity)
                yield folder
                pending += [
                    folder / entry.name
                    for entry in self._iter_folder_entries_up_to_limit(folder)
                    if entry.name[0] != "."
                ]

    def _iter_folder_entries_up_to_limit(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        """Nothing if the folder cannot be read."""
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                self._entries_read += 1
                if self._entries_read > MAX_TOTAL_INCLUDE_FOLDER_ENTRIES:
                    raise TooManyFolderEntriesError
                yield entry


def _get_folder_device_and_inode(path: Path) -> tuple[int, int] | None:
    """Device and inode; None if the path is not that of a folder."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if S_ISDIR(status.st_mode) else None
