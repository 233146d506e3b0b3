"""Starts commands of the configuration: their environment, and why they cannot be started."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from watchdog.net.errors import ProbeError
from watchdog.net.supervised_process import SupervisedCommandStartError, SupervisedProcess

COMMAND_INHERITED_ENV_VARS = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER")
"""The variables that a command inherits; the others may hold secrets of other probes."""
COMMAND_OUTPUT_READ_CHUNK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class CommandToRun:
    """A command with its environment and working directory."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the variables that it inherits."""
    cwd: str = ""


def create_supervised_process(command: CommandToRun) -> SupervisedProcess:
    """The command, which is not started yet."""
    inherited = {name: os.environ[name] for name in COMMAND_INHERITED_ENV_VARS if name in os.environ}
    return SupervisedProcess(command.argv, inherited | dict(command.env), command.cwd)


async def start_command(process: SupervisedProcess, command: CommandToRun, descriptors: Sequence[int]) -> None:
    """`descriptors`: for its standard input, output and error. Raises ProbeError."""
    stdin, stdout, stderr = descriptors
    try:
        await process.start(stdin, stdout, stderr)
    except (SupervisedCommandStartError, OSError) as error:
        raise _build_command_start_error(command, error) from None


def _build_command_start_error(command: CommandToRun, error: SupervisedCommandStartError | OSError) -> ProbeError:
    program = command.argv[0]
    number = error.error_number if isinstance(error, SupervisedCommandStartError) else error.errno
    is_about_folder = isinstance(error, SupervisedCommandStartError) and error.step == "cwd"
    if isinstance(error, SupervisedCommandStartError) and number == errno.ENOENT:
        if is_about_folder:
            return ProbeError("command.not_found", f"working directory not found: {command.cwd}", is_internal=True)
        if "/" in program and (Path(command.cwd) / program).exists():
            message = f"the interpreter that {program} names in its first line does not exist"
            return ProbeError("command.not_found", message, is_internal=True)
        return ProbeError("command.not_found", f"command not found: {program}", is_internal=True)
    what = (
        f"cannot use working directory {command.cwd}"
        if is_about_folder
        else f"cannot start {program or 'an empty name'}"
    )
    reason = "command.start_failed" if is_about_folder or number != errno.EACCES else "command.not_executable"
    return ProbeError(reason, f"{what}: {os.strerror(number or 0)}", is_internal=True)


def describe_command_exit(returncode: int) -> str:
    """ "exited with code 1", "was killed by signal 9 (Killed)"."""
    if returncode >= 0:
        return f"exited with code {returncode}"
    return f"was killed by signal {-returncode} ({signal.strsignal(-returncode)})"
