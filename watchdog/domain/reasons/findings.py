"""Reasons of runs that were not judged or did not happen, and of findings beside a run's outcome."""

from __future__ import annotations

from functools import partial

from watchdog.domain.reasons.commands import COMMAND_ERROR_AND_FINDING_REASON_ENTRIES
from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry

_error_reason_entry = partial(ReasonEntry, ReasonCategory.ERROR)
_missed_reason_entry = partial(ReasonEntry, ReasonCategory.MISSED)
_finding_reason_entry = partial(ReasonEntry, ReasonCategory.RULE_FINDING_OTHER_THAN_OUTCOME)

ERROR_MISSED_AND_FINDING_REASON_ENTRIES = (
    *COMMAND_ERROR_AND_FINDING_REASON_ENTRIES,
    _error_reason_entry(
        "tls.invalid_file",
        "TLS file unusable",
        "A file named in `tls` cannot be read, or has the wrong content.",
        "Fix the path or the file.",
    ),
    _error_reason_entry(
        "queue.metric_unavailable",
        "Metric not available",
        "A rule needs a metric that the queue does not report, such as the share of failures if completed jobs are not "
        "kept.",
        "Keep completed jobs for a while, grant the role read access, or remove the rule.",
        sentence="the queue does not report {metrics}",
    ),
    _error_reason_entry(
        "watchdog.out_of_resources",
        "Out of resources",
        "The machine that Watchdog runs on is out of file descriptors or memory.",
        "Raise the limits, and check what else is running there.",
    ),
    _error_reason_entry(
        "watchdog.network",
        "Own network failed",
        "The network of the machine that Watchdog runs on is at fault. The machine has no address or no default route "
        "for the target, or it could not reach anything else either when the run failed. The run does not change the "
        "incidents of its probe. The probe is `unknown` until a run reaches a verdict. The incident about the network "
        "ends when each affected probe has reached a verdict, or has not run for 10 minutes.",
        "Check the network, the routes and the name servers of the machine. If they work, check the targets of "
        "`connectivity`.",
        sentence="the network of {member} has failed since {since}",
    ),
    _error_reason_entry(
        "watchdog.overloaded",
        "Overloaded",
        "Runs could not start before their deadline, because too many other runs were in progress, in total or "
        "against one host and port. At most half of the concurrent runs can be runs of probes whose last run timed "
        "out. A run that could not start does not change the state of its probe. The process is reported as "
        "overloaded until a minute has passed without such a run.",
        "Find the target that many runs are waiting for: the message names it if there is one. Otherwise raise the "
        "limit on open files (`ulimit -n`), or run the probes less often.",
        sentence="too many concurrent runs on {member} since {since}",
    ),
    _error_reason_entry(
        "watchdog.lookups_busy",
        "Too many pending name lookups",
        "The run could not look up its host name before its deadline, because too many lookups of other names were "
        "hanging.",
        "Find the names whose name servers do not respond, and fix or remove their probes.",
    ),
    _error_reason_entry(
        "watchdog.broker_calls_busy",
        "Too many pending Celery calls",
        "The run could not call its Celery broker before its deadline, because too many calls by other runs were "
        "waiting for a response.",
        "Find the brokers that do not respond, and fix or remove their probes.",
        sentence="{limit} earlier calls are still waiting for a response from their Celery brokers",
    ),
    _error_reason_entry(
        "watchdog.too_many_jobs",
        "Too many jobs",
        "The source lists more jobs than Watchdog evaluates. None of them is evaluated, because those beyond the "
        "limit would seem to be gone.",
        "Remove jobs that are not needed any more, or divide them among several queues or tables.",
        sentence="the source lists more than {limit} jobs, which is Watchdog's limit",
    ),
    _error_reason_entry(
        "watchdog.response_not_judged",
        "Response not evaluated",
        "A large response could not be decoded and evaluated before the deadline of the run. Responses over 64 KiB, "
        "and those with more than 500 elements over which an expression loops, are evaluated in a separate process, "
        "one after another.",
        "Raise the probe's `timeout`, request a smaller response, or simplify the expressions that loop over it.",
        sentence="a large response could not be evaluated: {problem}",
    ),
    _error_reason_entry(
        "watchdog.loop_late",
        "Watchdog was blocked",
        "Watchdog itself was blocked while the run waited for the target.",
        "Check whether the machine that Watchdog runs on is overloaded.",
    ),
    _error_reason_entry(
        "watchdog.internal_error",
        "Internal error",
        "Watchdog has a bug.",
        "Report it, with the log.",
    ),
    _missed_reason_entry(
        "missed.skipped",
        "Skipped",
        "The scheduled time had passed before Watchdog could start the run.",
        "No action is needed if Watchdog had just been started; otherwise see `watchdog.overloaded`.",
    ),
    _missed_reason_entry(
        "missed.store_away",
        "Database unavailable",
        "Watchdog could not use its database when the run was due. While the database is unavailable, only probes "
        "without side effects run. Their results are kept in memory; if there are too many, the oldest passing results "
        "are dropped.",
        "See the incident of Watchdog itself about the database.",
    ),
    _missed_reason_entry(
        "missed.clock_step",
        "Skipped by a clock change",
        "The clock was set forward past the scheduled time, so the run was never due.",
        "Start it manually if something depends on it, and see `watchdog.clock_step`.",
    ),
    _missed_reason_entry(
        "missed.already_started",
        "Already started",
        "The clock was set back after a run of a cron schedule had been started, so its time came again.",
        "No action is needed: no run is started twice.",
    ),
    _missed_reason_entry(
        "missed.result_lost",
        "Result lost",
        "The run started, but its result was not stored, because the process was killed.",
        "No action is needed unless it happens again.",
    ),
    _missed_reason_entry(
        "missed.not_run",
        "Not run",
        "Runs of a cron schedule took place neither on time nor later, because no process that has the probe was "
        "running, or because the process was stopping or overloaded.",
        "Start them manually if something depends on them. `catch_up` sets how late a run can still be started.",
    ),
    _missed_reason_entry(
        "missed.may_have_run",
        "May have run",
        "A run of a cron schedule was started, but has no result, because the process was killed or stopped.",
        "Check whether the run took place: Watchdog never starts it again.",
    ),
    _missed_reason_entry(
        "missed.shutdown_before_run",
        "Shut down before the run",
        "Watchdog was stopped before the run was due.",
    ),
    _missed_reason_entry(
        "missed.shutdown_during_run",
        "Shut down during the run",
        "Watchdog was stopped during the run.",
    ),
    _finding_reason_entry(
        "task.failed",
        "Failed",
        "The last run of an MCP server task failed.",
        "Look for the task in the server's log.",
        sentence="task {name} failed",
        sentence_for_several="{count} tasks failed",
    ),
    _finding_reason_entry(
        "task.stale",
        "Stale",
        "The last run of a task is older than its limit; or the task has no limit and the server reports `ok: false` "
        "although the last run did not fail.",
        "Check whether the scheduler of the task is running. If the limit is too short for this task, set a longer one "
        "in the probe's `tasks` field.",
        sentence="task {name} is stale: last run {last_run}, {verdict}",
        sentence_for_several="{count} tasks are stale",
    ),
    _finding_reason_entry(
        "task.never_ran",
        "Never ran",
        "A task has never run, and its limit has passed; or it has no limit and the server reports `ok: false` for it.",
        "Check whether the scheduler of the task is running. If the task is not due yet, set a longer limit in the "
        "probe's `tasks` field.",
        sentence="task {name} has never run: first listed {first_listed}, {verdict}",
        sentence_for_several="{count} tasks have never run",
    ),
    _finding_reason_entry(
        "task.missing",
        "Missing",
        "A task named under `tasks` is not listed.",
        "Check whether the task is still scheduled.",
        sentence="task {name} is not in the server's list",
        sentence_for_several="{count} tasks are not in the server's list",
    ),
    _finding_reason_entry(
        "job.overdue",
        "Overdue",
        "A run was due, and did not start before the end of its grace period.",
        "Check whether the scheduler and the workers of the job are running. If the job did run and reports by "
        "check-ins, find out why they did not reach Watchdog.",
        sentence="{name} is overdue",
        sentence_for_several="{count} jobs are overdue",
    ),
    _finding_reason_entry(
        "job.never_ran",
        "Never ran",
        "A run has become due since Watchdog started to monitor the job, but no run was observed.",
        "Check whether the job is deployed, and whether its scheduler and its workers are running. If the job did run "
        "and reports by check-ins, find out why they did not reach Watchdog.",
        sentence="{name} has never run",
        sentence_for_several="{count} jobs have never run",
    ),
    _finding_reason_entry(
        "job.stuck",
        "Stuck",
        "A run has been in progress for longer than `max_runtime`.",
        "Check what the run is waiting for.",
        sentence="{name} is stuck",
        sentence_for_several="{count} jobs are stuck",
    ),
    _finding_reason_entry(
        "job.lost",
        "Lost",
        "A run started and never reported its end, and a later one has started or ended.",
        "Find out what stopped the run before it could report, for example a restart, a kill signal, or a lack of "
        "memory. If it did end, find out why its check-in did not reach Watchdog.",
        sentence="{name}: the {started} run never reported its end{evidence}{repeats}",
        sentence_for_several="runs of {count} jobs never reported their end",
    ),
    _finding_reason_entry(
        "job.stalled",
        "Stalled",
        "A run is in progress, but its worker is gone.",
        "The queue may hand it to another worker. Check why workers die.",
        sentence="{name} is stalled",
        sentence_for_several="{count} jobs are stalled",
    ),
    _finding_reason_entry(
        "job.max_runtime",
        "Ran too long",
        "The newest run took longer than `max_runtime`.",
        "Check what slows the run down.",
        sentence="{name} ran for {duration}, limit {limit}",
        sentence_for_several="{count} jobs ran for too long",
    ),
    _finding_reason_entry(
        "job.min_runtime",
        "Ran too briefly",
        "The newest run took less time than `min_runtime`.",
        "It may have done nothing: check its output.",
        sentence="{name} ran for {duration}, minimum {limit}",
        sentence_for_several="{count} jobs ran for too short a time",
    ),
    _finding_reason_entry(
        "job.gone",
        "Gone",
        "The source no longer lists a job that was enabled, or does not list a job that `watch` names.",
        "Find out what removed the job. If it was removed on purpose, `watchdog jobs forget PROBE JOB` ends the "
        "incident; otherwise it ends after 24 hours, unless `watch` names the job.",
        sentence="{name} is gone: its source {absence}",
        sentence_for_several="{count} jobs are gone",
    ),
    _finding_reason_entry(
        "watchdog.delivery_failing",
        "Receiver not reached",
        "Deliveries to a destination have failed for at least a minute, or a notification to it is undelivered or "
        "unconfirmed.",
        "Fix the receiver: the message shows its error. Test it with `watchdog test-alert` or on the receivers page.",
        sentence="{subject} has not confirmed any notification since {since}",
    ),
    _finding_reason_entry(
        "watchdog.store_away",
        "Database unavailable",
        "A process could not use Watchdog's own database: it was locked, full, damaged, stopped or out of reach. Until "
        "the database is available again, alerts about targets are delayed. Receivers get a notice that states this "
        "and names the failing targets.",
        "Depending on the error in the message, free space on the disk, start the database server, or find the program "
        "that locks the file. If the file was deleted, replaced or damaged, stop Watchdog, restore a backup, and start "
        "it.",
        sentence="{member} could not use the database from {since} on",
    ),
    _finding_reason_entry(
        "watchdog.configurations_differ",
        "Configurations differ",
        "Processes on one database have had different configurations for more than 5 minutes, for example because a "
        "rolling deploy was not completed.",
        "Stop the processes with the older configuration, or give all of them the same one. `watchdog status` shows"
        " which probes and destinations of a process are handled by processes with a newer configuration.",
        sentence="processes on one database have had different configurations since {since}",
    ),
    _finding_reason_entry(
        "watchdog.config_invalid",
        "Configuration is invalid",
        "The configuration file was changed, and the new configuration cannot be loaded. The process goes on with the "
        "configuration that it has. The message names the first problem: its file, line, column and field, without "
        "values, because they may be secrets.",
        "Run `watchdog validate -c FILE` on that machine: it shows every problem in full. Once the file is valid, it "
        "is loaded, and the incident resolves.",
        sentence="the changed configuration of {member} has been invalid since {since}; the former "
        "configuration stays in use",
    ),
    _finding_reason_entry(
        "watchdog.restart_required",
        "Restart required",
        "The configuration was changed and is applied, except for some fields that take effect only when the process "
        "starts: the address to listen on, and the database.",
        "Restart the process, or take back the change of these fields.",
        sentence="changed fields of the configuration of {member} take effect after a restart, since {since}",
    ),
    _finding_reason_entry(
        "watchdog.slack_disconnected",
        "No connection to Slack",
        "A process has no connection to Slack for the `app_token` of a receiver, so clicks on buttons do not reach it. "
        "Slack has refused the token, allows no further connection for now, or several attempts in a row have failed. "
        "Messages are still sent.",
        "Depending on the error in the message, generate another app-level token with the scope `connections:write`, "
        "turn Socket Mode on in the settings of the app, end other programs that connect to the app, or let the "
        "machine reach Slack.",
        sentence="{member} has had no connection to Slack for clicks since {since}",
    ),
    _finding_reason_entry(
        "watchdog.clock_step",
        "Clock was set or is wrong",
        "The clock of a machine that Watchdog runs on was set by more than 2 s, or differs by more than 2 s from the "
        "clock of its database. Watchdog measures elapsed time without this clock, so no result counts as late and no "
        "incident about a target opens because of the difference. Watchdog adopts a new time that lasts for a "
        "minute: probes continue to run, and their deadlines start again. If the clock was set forward, the runs in "
        "between are skipped. If it was set back, the same times occur a second time, but runs of a cron schedule that "
        "have already taken place are not repeated.",
        "Synchronize the clocks of the machine and of the database server with NTP. Make sure that Watchdog "
        "starts only after the clock of its machine is synchronized.",
        sentence="clock problem on {member} since {since}",
    ),
    _finding_reason_entry(
        "mcp.invalid_schema",
        "Invalid tool schema",
        "The input or output schema of a tool is not a valid JSON Schema, so clients may reject the tool.",
        "Fix the schema where the message shows it.",
        sentence="tool {name} has an invalid schema: {problem}",
        sentence_for_several="{count} tools have invalid schemas",
    ),
    _finding_reason_entry(
        "mcp.duplicate_tool",
        "Duplicate tool name",
        "A server lists several tools with the same name, so clients can call only one of them.",
        "Rename the tools, or find out what registers them twice.",
        sentence="tool {name} is listed {count} times",
        sentence_for_several="{count} tools are listed several times",
    ),
    _finding_reason_entry(
        "job.schedule_unreadable",
        "Schedule unreadable",
        "Watchdog cannot read the schedule that the source has for the job: it has an unknown time zone, an invalid "
        "cron expression, or a kind of schedule that Watchdog does not support. Watchdog cannot check whether the job "
        "runs on time.",
        "Correct the schedule in the source, or set the expected schedule of the job under `watch`.",
        sentence="{name} is not evaluated, because its schedule cannot be read",
        sentence_for_several="the schedules of {count} jobs cannot be read",
    ),
    _finding_reason_entry(
        "job.status_unknown",
        "Status unknown",
        "The newest run of the job has a status that the configuration does not list. Watchdog cannot check whether "
        "the job succeeds until a run ends with a status that is listed.",
        "Add the status, in the same spelling, to `statuses` in the configuration of the job table.",
        sentence="{name} is not evaluated: its newest run has the status '{status}', which `statuses` does not list",
        sentence_for_several="the newest runs of {count} jobs have an unknown status",
    ),
    _finding_reason_entry(
        "preference.failed",
        "Preference not met",
        "A `prefer` expression is false or cannot be evaluated.",
        "Find out what has changed: for example, the service may be slower, or a certificate may have to be renewed. "
        "If nothing is wrong, correct the expression.",
    ),
    ReasonEntry(
        ReasonCategory.NO_DATA,
        "no_data",
        "No data",
        "No result has been stored for longer than expected.",
        "See Watchdog's own log.",
        sentence="no result for {period}",
    ),
)
