"""Reasons about commands that Watchdog starts: checks of the user's own, and MCP servers over standard input."""

from __future__ import annotations

from functools import partial

from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry

_failure_reason_entry = partial(ReasonEntry, ReasonCategory.FAILURE)
_error_reason_entry = partial(ReasonEntry, ReasonCategory.ERROR)

COMMAND_FAILURE_REASON_ENTRIES = (
    _failure_reason_entry(
        "command.critical",
        "Check is critical",
        "The command exited with code 2, which means critical, as plugins of Nagios do. The message shows the first "
        "line of its output.",
        "See the output of the command in the evidence.",
    ),
    _failure_reason_entry(
        "command.failed",
        "Command failed",
        "The command exited with a code that stands for no state of a check: 0 means ok, 1 warning, 2 critical and 3 "
        "unknown. Shells use 126 and 127 for a command that they cannot execute or find.",
        "See its output in the evidence, and run the command manually as the user that Watchdog runs as.",
    ),
    _failure_reason_entry(
        "command.reported_failure",
        "Check reports a failure",
        "The command wrote JSON with `ok: false`. The message shows its `message`.",
        "See the output of the command in the evidence. To decide in another way, refer to `json.ok` in an `expect` "
        "expression.",
    ),
    _failure_reason_entry(
        "command.killed",
        "Command killed",
        "The command was ended by a signal that Watchdog did not send.",
        "SIGKILL often means that the machine was out of memory: see the kernel's log. SIGSEGV and SIGABRT mean that "
        "the command crashed.",
        sentence="the command was killed by signal {signal}",
    ),
    _failure_reason_entry(
        "command.not_ready",
        "Command not ready in time",
        "The command wrote no line to its standard output within `ready_within`, and was killed.",
        "Find out what the command waits for. If it writes to a pipe, its language may buffer the output: flush it "
        "after the first line (`python -u`, `stdbuf -oL`).",
        sentence="the command wrote no line within {limit}",
    ),
    _failure_reason_entry(
        "command.result_invalid",
        "Result of the check invalid",
        "The command wrote a JSON object as its result, but `ok` in it is neither true nor false.",
        "Correct the command.",
        sentence="`ok` in the JSON of the command is neither true nor false: {value}",
    ),
    _failure_reason_entry(
        "command.output_not_json",
        "Output is not JSON",
        "An expression reads `json`, but the output of the command is not JSON.",
        "See the output in the evidence. Let the command write nothing but JSON to its standard output, and messages "
        "to standard error.",
        sentence="the output is not JSON: {problem}",
    ),
    _failure_reason_entry(
        "command.too_much_output",
        "Endless output",
        "The command wrote more than 64 MiB, and was killed.",
        "Let the command write less.",
        sentence="the command wrote more than {limit}",
    ),
)

COMMAND_ERROR_AND_FINDING_REASON_ENTRIES = (
    _error_reason_entry(
        "command.not_found",
        "Command not found",
        "The command, its interpreter (the first line of a script) or its working directory does not exist on this "
        "machine.",
        "Install it, or fix the path. A relative path is resolved against the working directory. A script with line "
        "ends of Windows names an interpreter that does not exist.",
    ),
    _error_reason_entry(
        "command.not_executable",
        "Command not executable",
        "The user that Watchdog runs as may not execute the command.",
        "Make the file executable (`chmod +x`), and check whether its file system is mounted with `noexec`.",
    ),
    _error_reason_entry(
        "command.start_failed",
        "Command not started",
        "The command cannot be started. The message shows the error of the operating system.",
        "Check the command. A script needs a first line such as `#!/bin/sh`.",
    ),
    _error_reason_entry(
        "command.unknown",
        "Check is unknown",
        "The command exited with code 3, which means that it could not find out, as plugins of Nagios do. The target "
        "is not judged.",
        "See the output of the command in the evidence: often an argument is wrong.",
    ),
    _error_reason_entry(
        "command.output_cut",
        "Output longer than the limit",
        "The command wrote more than `max_output`, and an expression depends on the rest.",
        "Raise `max_output`, or let the command write less.",
        sentence="the output is longer than {limit} (max_output)",
    ),
    ReasonEntry(
        ReasonCategory.RULE_FINDING_OTHER_THAN_OUTCOME,
        "command.warning",
        "Check warns",
        "The command exited with code 1, which means a warning, as plugins of Nagios do. The message shows the first "
        "line of its output.",
        "See the output of the command in the evidence. If code 1 of the command means a failure, set `expect: "
        '["exit_code == 0"]`.',
    ),
)
