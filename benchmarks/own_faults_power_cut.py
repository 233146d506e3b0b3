"""Runs `watchdog` on a disk that keeps only what was synced. SIGUSR2 cuts the power: the process ends at once.

What is left of the files in its folder is then in the subfolder REMAINS_FOLDER.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.power_cut import ObservedDisk, observed_disk
from watchdog.service import check_in_log

REMAINS_FOLDER = "remains"


def cut_power(disk: ObservedDisk) -> None:
    disk.write_remains(disk.folder / REMAINS_FOLDER)
    os.kill(os.getpid(), signal.SIGKILL)


def restore_remains(folder: Path) -> None:
    """Replace the files in `folder` by what the power cut left of them."""
    remains = folder / REMAINS_FOLDER
    for file in folder.iterdir():
        if file.is_file() and file.suffix != ".yaml":
            file.unlink()
    for file in remains.iterdir():
        file.replace(folder / file.name)
    remains.rmdir()


def main() -> None:
    from watchdog.cli import main as run_command_line

    folder = Path.cwd()
    with pytest.MonkeyPatch.context() as patch, observed_disk(folder, patch) as disk:
        for file in folder.iterdir():
            disk.record(file, file.read_bytes())
        patch.setattr(check_in_log, "_sync_to_disk", os.fdatasync)
        signal.signal(signal.SIGUSR2, lambda *_: cut_power(disk))
        run_command_line()


if __name__ == "__main__":
    main()
