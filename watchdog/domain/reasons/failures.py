"""Reasons for which a run fails: the target is not right."""

from __future__ import annotations

from functools import partial

from watchdog.domain.reasons.commands import COMMAND_FAILURE_REASON_ENTRIES
from watchdog.domain.reasons.connection import CONNECTION_REASON_ENTRIES
from watchdog.domain.reasons.databases import DATABASE_REASON_ENTRIES
from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry
from watchdog.domain.reasons.grpc import GRPC_REASON_ENTRIES
from watchdog.domain.reasons.proxies import PROXY_AND_TOKEN_REASON_ENTRIES
from watchdog.domain.reasons.responses import RESPONSE_REASON_ENTRIES
from watchdog.domain.reasons.tls import TLS_REASON_ENTRIES
from watchdog.domain.reasons.websocket import WEBSOCKET_REASON_ENTRIES

_failure_reason_entry = partial(ReasonEntry, ReasonCategory.FAILURE)

_EXPECTATION_AND_MCP_REASON_ENTRIES = (
    _failure_reason_entry(
        "expectation.failed",
        "Expectation failed",
        "An `expect` expression is false. The message shows the observed value.",
        "Find out what has changed in the service, or correct the expression.",
    ),
    _failure_reason_entry(
        "expectation.evaluation_failed",
        "Expectation cannot be evaluated",
        "An `expect` expression cannot be evaluated, because it uses a value that the response does not contain.",
        "Check whether the response has changed, or guard the expression with `has(...)`.",
    ),
    ReasonEntry(
        ReasonCategory.ERROR,
        "expectation.over_budget",
        "Expression too expensive",
        "An expression iterates over more entries of the response than Watchdog allows, so it was not evaluated.",
        "Simplify the expression, or have the server compute the value.",
    ),
    _failure_reason_entry(
        "mcp.not_mcp",
        "Not an MCP server",
        "The service at the URL does not speak MCP.",
        "Check the path: it often ends in `/mcp` or `/sse`.",
    ),
    _failure_reason_entry(
        "mcp.wrong_transport",
        "Wrong MCP transport",
        "The server at the URL does not speak the configured HTTP transport of MCP, but the other one. MCP has two: "
        "streamable HTTP (`url`), and an older one with server-sent events (`sse`).",
        "Configure the option that the message names.",
        sentence="the server speaks {spoken}: use `{option}` instead of `{configured}`",
    ),
    _failure_reason_entry(
        "mcp.session_lost",
        "MCP session lost",
        "The server no longer has the session that it opened in this run.",
        "Check whether the server was restarted. If it has several instances, route all requests of a session to one "
        "of them, or share the sessions.",
        sentence="HTTP {status}: the server no longer has the session",
    ),
    _failure_reason_entry(
        "mcp.unsupported_version",
        "Unsupported MCP version",
        "The server supports no version of MCP that Watchdog supports.",
        "Update the server or Watchdog, whichever is older.",
    ),
    _failure_reason_entry(
        "mcp.rpc_error",
        "MCP error response",
        "The server answers an MCP request with an error. The message shows its code and text.",
        "See the server's log.",
    ),
    _failure_reason_entry(
        "mcp.invalid_arguments",
        "MCP tool arguments rejected",
        "The server rejects the arguments of the tool call. The message shows its text.",
        "Compare the configured arguments with the input schema of the tool: it may have changed.",
    ),
    _failure_reason_entry(
        "mcp.invalid_response",
        "Invalid MCP response",
        "A response violates the MCP specification. The message shows where.",
        "Report it to the author of the server.",
    ),
    _failure_reason_entry(
        "mcp.input_required",
        "MCP input required",
        "The called tool, or the configured `resource`, asks the client for input, such as an answer of a person, "
        "before it returns a result. The message shows what it asks for. Watchdog has no person to ask.",
        "Call a tool that needs no input, such as a `health_check` of its own: see `call`.",
    ),
    _failure_reason_entry(
        "mcp.unexpected_id",
        "Unexpected MCP response id",
        "The server answers a request that Watchdog did not send.",
        "Report it to the author of the server.",
    ),
    _failure_reason_entry(
        "mcp.cursor_loop",
        "MCP pagination loops",
        "The pages of `tools/list` repeat.",
        "Fix the server's pagination.",
    ),
    _failure_reason_entry(
        "mcp.too_many_pages",
        "MCP pagination too long",
        "`tools/list` has more pages than Watchdog reads.",
        "Fix the server's pagination.",
    ),
    _failure_reason_entry(
        "mcp.resource_missing",
        "MCP resource missing",
        "The server does not have the configured `resource`, or serves no resources.",
        "Check the URI in `resource`.",
    ),
    _failure_reason_entry(
        "mcp.resource_empty",
        "MCP resource empty",
        "The configured `resource` has no contents.",
        "Check the URI in `resource`.",
    ),
    _failure_reason_entry(
        "mcp.server_exited",
        "MCP server exited",
        "An MCP server started by `command` exited too early. The excerpt shows its last output.",
        "Run the command manually.",
    ),
    _failure_reason_entry(
        "mcp.output_closed",
        "MCP server closed its output",
        "An MCP server started by `command` closed its standard output, but is still running.",
        "Look for code that closes or redirects standard output. The excerpt shows the server's last output.",
        sentence="the server closed its output but is still running",
    ),
    _failure_reason_entry(
        "mcp.output_not_mcp",
        "Output is not MCP",
        "The program started by `command` writes lines to its standard output that are not MCP messages.",
        "Check whether `command` starts an MCP server with the stdio transport, and have it log to standard error.",
        sentence="the server wrote more than {limit} lines that are not MCP; the first is {first}",
    ),
    _failure_reason_entry(
        "mcp.output_held",
        "MCP server exited, but its output is still open",
        "An MCP server started by `command` exited, and a process that it started keeps its output open.",
        "Find out why the server exited, and make it end the processes that it starts. The excerpt shows its last "
        "output.",
        sentence="the server {ending}, but a process that it started{holder} keeps its output open",
    ),
    _failure_reason_entry(
        "mcp.tool_missing",
        "MCP tool missing",
        "A required tool is not listed.",
        "Deploy it, or remove it from `tools` or from the canary.",
    ),
    _failure_reason_entry(
        "mcp.tool_unusable",
        "MCP tool unusable",
        "The server lists the tool to call, but its input schema names HTTP headers for arguments (`x-mcp-header`) "
        "that MCP does not allow. Clients of MCP 2026-07-28 and newer must not call such a tool.",
        "Fix the annotation where the message shows it.",
    ),
    _failure_reason_entry(
        "mcp.tool_error",
        "MCP tool failed",
        "The called tool reports `isError`. The message shows its text.",
        "Look for this call in the server's log.",
    ),
    _failure_reason_entry(
        "mcp.unhealthy",
        "MCP server unhealthy",
        "The called tool reports `healthy: false`, and none of the listed tasks explains this.",
        "See the message and the server's log. To allow `healthy: false`, refer to `healthy` in an `expect` "
        "expression.",
        sentence="{tool} reports healthy: false",
    ),
    _failure_reason_entry(
        "task.list_missing",
        "Task list missing",
        "Limits are configured under `tasks`, but the response lists no tasks.",
        "Change the tool so that it reports its tasks.",
    ),
    _failure_reason_entry(
        "task.list_invalid",
        "Task list unreadable",
        "The list of tasks has entries that cannot be read.",
        "Correct the entries. The message names the first one.",
    ),
)

_BROKER_AND_JOB_REASON_ENTRIES = (
    _failure_reason_entry(
        "broker.unreachable",
        "Broker unreachable",
        "The broker or database that stores the jobs cannot be reached, or rejects the login.",
        "Check whether the broker or database is running, and check its host, port and password.",
    ),
    _failure_reason_entry(
        "broker.refused",
        "Broker refused the request",
        "The broker or database can be reached, but refuses an operation.",
        "The message shows the error and, if a permission is missing, what to grant.",
    ),
    _failure_reason_entry(
        "queue.missing",
        "Queue missing",
        "The queue does not exist. Watchdog never creates one.",
        "Check the name, prefix and schema of the queue. The application creates the queue when it starts.",
    ),
    _failure_reason_entry(
        "queue.no_consumers",
        "Too few workers",
        "The queue has fewer workers than `rules` require.",
        "Check whether the workers are running, and which queues they take jobs from.",
        sentence="{observed}, expected at least {limit}",
    ),
    _failure_reason_entry(
        "queue.stalled",
        "Queue stalled",
        "Jobs are waiting, but no worker has taken one for longer than the limit. If the system shows only how many "
        "jobs are waiting, their number has not fallen for that long.",
        "If there are no workers, find out why they stopped, and start them. Otherwise check whether the queue is "
        "paused, and what the workers are doing.",
        sentence="{symptom} since {since}: {waiting} waiting",
    ),
    _failure_reason_entry(
        "queue.failure_ratio",
        "Too many failed jobs",
        "The share of failed jobs, among those that ended recently, is above the limit.",
        "Look at the errors of the newest failed jobs.",
        sentence="{share} of {completed} failed within {window}, limit {limit}",
    ),
    _failure_reason_entry(
        "queue.failed_jobs",
        "Too many failed jobs kept",
        "The number of failed jobs that the queue keeps, `failed`, exceeds its limit.",
        "Look at the errors of the newest failed jobs. Remove or retry the jobs once the cause is fixed.",
        sentence="{observed}, limit {limit}",
    ),
    _failure_reason_entry(
        "queue.threshold",
        "Queue limit exceeded",
        "A metric exceeds its limit: `waiting`, `active`, `delayed` or `oldest`. The message shows each exceeded "
        "limit.",
        "If there are no workers, find out why they stopped, and start them. If the workers do not keep up, add "
        "workers, or enqueue fewer jobs.",
        sentence="{observed}, limit {limit}",
    ),
    _failure_reason_entry(
        "canary.enqueue_failed",
        "Canary job not accepted",
        "The request or MCP tool call that starts the canary job was refused.",
        "Check the request or tool that the message names, its credentials and arguments, and the log of the service.",
        sentence="canary job not enqueued",
    ),
    _failure_reason_entry(
        "canary.job_id_missing",
        "No job id",
        "The response to the request that starts the canary job contains no job id, so Watchdog cannot poll the job.",
        "Set `job_id` to an expression that finds the id in the response, or change the tool to return a `job_id`.",
    ),
    _failure_reason_entry(
        "canary.poll_failed",
        "Canary job not observable",
        "The state of the canary job could not be read before its deadline. The job itself may have succeeded.",
        "Check the request or resource that reports the job, and its credentials.",
    ),
    _failure_reason_entry(
        "canary.not_picked_up",
        "Not picked up",
        "No worker took the canary job within `start_within`.",
        "If there are no workers, find out why they stopped, and start them. Otherwise check which queues they take "
        "jobs from, and whether they are busy.",
        sentence="canary job not picked up {period}",
    ),
    _failure_reason_entry(
        "canary.not_finished",
        "Not finished in time",
        "The canary job was not finished within `finish_within`. If the system does not show when a job is picked up, "
        "it is possible that no worker took it.",
        "If there are no workers, find out why they stopped, and start them. Otherwise check what they are doing. The "
        "message mentions a dead worker if the queue shows one.",
        sentence="canary job {progress}not finished {period}",
    ),
    _failure_reason_entry(
        "canary.progress_stalled",
        "Progress stalled",
        "The progress that the job reports has not changed for `progress_within`.",
        "Check what the job is waiting for at that point.",
    ),
    _failure_reason_entry(
        "canary.lost",
        "Canary job lost",
        "The system accepted the canary job, but no longer lists it, or reports it as not found, missing, expired or "
        "gone. The next run sends another one.",
        "Find out whether a worker or the broker was killed, what removes jobs, and how long finished jobs are kept.",
        sentence="canary job {progress}lost{when}",
    ),
    _failure_reason_entry(
        "job.failed",
        "Failed",
        "The canary job failed, or a scheduled job failed at least `failures` times in a row.",
        "Look for the error in the job's log.",
        sentence="{name} failed{repeats}",
        sentence_for_several="{count} jobs failed",
    ),
    _failure_reason_entry(
        "job.scheduler_dead",
        "Scheduler dead",
        "The scheduler has shown no activity for longer than its limit, or a job is overdue and no job has been sent "
        "since it was due. Its jobs are not reported individually.",
        "Check whether the process of the scheduler is running.",
        sentence="no {scheduler} is running",
    ),
    _failure_reason_entry(
        "job.most_gone",
        "Most jobs gone",
        "At least two jobs, and more than half of those that the source has listed in the last day, are no longer "
        "listed. As long as this lasts, no incident about a missing job resolves.",
        "Check whether the table, queue or scheduler was emptied, and whether the probe reads the right one. If the "
        "jobs were removed on purpose, `watchdog jobs forget PROBE` ends the incident.",
        sentence="{problem}: {names}",
    ),
    _failure_reason_entry(
        "job.none_listed",
        "No jobs",
        "The source lists no scheduled jobs at all, so nothing is monitored.",
        "Check whether the settings of the source, such as its URL, table, queue or prefix, are right, and whether the "
        "application has created its schedules or, in a table of jobs, has recorded runs.",
        sentence="no scheduled jobs are listed",
    ),
)

FAILURE_REASON_ENTRIES = (
    *CONNECTION_REASON_ENTRIES,
    *PROXY_AND_TOKEN_REASON_ENTRIES,
    *TLS_REASON_ENTRIES,
    *RESPONSE_REASON_ENTRIES,
    *GRPC_REASON_ENTRIES,
    *WEBSOCKET_REASON_ENTRIES,
    *_EXPECTATION_AND_MCP_REASON_ENTRIES,
    *COMMAND_FAILURE_REASON_ENTRIES,
    *DATABASE_REASON_ENTRIES,
    *_BROKER_AND_JOB_REASON_ENTRIES,
)
