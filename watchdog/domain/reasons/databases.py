"""Reasons about databases of other applications: job tables, and queries of the user's."""

from __future__ import annotations

from functools import partial

from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry

_failure_reason_entry = partial(ReasonEntry, ReasonCategory.FAILURE)

_CONNECTION_REASON_ENTRIES = (
    _failure_reason_entry(
        "database.connect_failed",
        "Database refused the connection",
        "The database server can be reached, but no session was opened. The message shows the text of the server or "
        "the driver.",
        "Try to connect with the same URL from the machine that Watchdog runs on.",
        sentence="the database refused the connection: {problem}",
    ),
    _failure_reason_entry(
        "database.wrong_protocol",
        "Not a database",
        "The service on this port does not speak the protocol of the database system that the URL names.",
        "Check the port, and which service listens there.",
        sentence="the service on this port does not speak the protocol of the database: {problem}",
    ),
    _failure_reason_entry(
        "database.login_refused",
        "Database refused the login",
        "The database server rejects the user, the password, or the address that Watchdog connects from.",
        "Check user and password in the URL, and which addresses the server accepts the user from (pg_hba.conf, or the "
        "host of the MySQL user).",
        sentence="the database refused the login: {problem}",
    ),
    _failure_reason_entry(
        "database.not_found",
        "Database missing",
        "The server has no database with this name, or the SQLite file does not exist.",
        "Check the name of the database at the end of the URL.",
        sentence="the database does not exist: {problem}",
    ),
    _failure_reason_entry(
        "database.file_unreadable",
        "Database file unreadable",
        "The user that Watchdog runs as may not read the SQLite file.",
        "Grant read access to the file and its folder. With write-ahead logging, the files beside it (`-wal`, `-shm`) "
        "must be readable as well.",
        sentence="the database cannot be opened: {problem}",
    ),
    _failure_reason_entry(
        "database.file_invalid",
        "Database file damaged",
        "The file is no SQLite database, or it is damaged.",
        "Check the path. If it is right, run `PRAGMA integrity_check` and restore a backup.",
        sentence="the database file is not usable: {problem}",
    ),
    _failure_reason_entry(
        "database.too_many_connections",
        "Too many connections to the database",
        "The database server, or the user, has reached its limit of connections. Applications that open a connection "
        "now fail as well.",
        "Find out which application holds the connections (`pg_stat_activity`, `SHOW PROCESSLIST`). Limit its pool, or "
        "raise the limit.",
        sentence="the database has no free connection: {problem}",
    ),
    _failure_reason_entry(
        "database.out_of_resources",
        "Database out of resources",
        "The database server lacks memory, disk space or another resource.",
        "Check memory and disk of the database server, and its log.",
        sentence="the database is out of resources: {problem}",
    ),
    _failure_reason_entry(
        "database.not_ready",
        "Database not ready",
        "The database server is starting, shutting down or recovering.",
        "If it was not restarted on purpose, look for a crash in the log of the database server.",
        sentence="the database is not ready: {problem}",
    ),
)

_QUERY_REASON_ENTRIES = (
    _failure_reason_entry(
        "database.query_timeout",
        "Database query timed out",
        "A query took too long and was cancelled, or another session holds a lock on a job table.",
        "Add an index on the columns of the condition. For a job table, these are the time and type columns; or read "
        "less history with `since`. For a query of your own, see its plan with EXPLAIN; raise the probe's `timeout` "
        "only if the query is normally that slow.",
        sentence="the query was cancelled {problem}",
    ),
    _failure_reason_entry(
        "database.lock_timeout",
        "Query waited for a lock",
        "Another session holds a lock that the query needs, for example because a migration is in progress.",
        "Find the session that holds the lock (`pg_locks`, `SHOW PROCESSLIST`), and why it takes so long.",
        sentence="the query waited too long for a lock: {problem}",
    ),
    _failure_reason_entry(
        "database.permission_denied",
        "Permission denied by the database",
        "The role may not read what the query reads.",
        "Grant the role SELECT on the table, and USAGE on its schema.",
        sentence="the database denies access: {problem}",
    ),
    _failure_reason_entry(
        "database.table_missing",
        "Table missing",
        "The table does not exist.",
        "Check the name and schema of the table. The message may suggest a table with a similar name. If the name is "
        "right, find out which migration has removed the table.",
        sentence="a table of the query does not exist: {problem}",
    ),
    _failure_reason_entry(
        "database.column_missing",
        "Column missing",
        "The table has no such column.",
        "Check `columns` of the job table, or the query. Names are case-sensitive. If the name is right, find out "
        "which migration has removed the column.",
        sentence="a column of the query does not exist: {problem}",
    ),
    _failure_reason_entry(
        "database.column_invalid",
        "Column has the wrong content",
        "A column under `columns` does not contain times, or contains too many different jobs.",
        "Check `columns`. The message shows one of the values.",
    ),
    _failure_reason_entry(
        "database.query_invalid",
        "Query not understood",
        "The database does not understand the query: a syntax error, or a function that does not exist.",
        "Correct the query. Try it in a client of the database.",
        sentence="the query is not valid: {problem}",
    ),
    _failure_reason_entry(
        "database.query_failed",
        "Query failed",
        "The database began to execute the query and failed, for example because of a division by zero.",
        "Try the query in a client of the database, and see the log of the server.",
        sentence="the query failed: {problem}",
    ),
    _failure_reason_entry(
        "database.write_refused",
        "Query would write",
        "The query changes or locks something. Watchdog executes queries in a read-only transaction.",
        "Write a query that only reads, and remove clauses such as FOR UPDATE.",
        sentence="the query may only read: {problem}",
    ),
    _failure_reason_entry(
        "database.several_statements",
        "Several statements",
        "The query consists of several statements. Watchdog executes a single one.",
        "Remove all statements but one.",
        sentence="the query has several statements: {problem}",
    ),
    _failure_reason_entry(
        "database.not_a_query",
        "Statement is no query",
        "The statement was executed, but returns no rows by its nature.",
        "Write a query, such as SELECT.",
        sentence="the statement returns no rows: it is no query",
    ),
    _failure_reason_entry(
        "database.no_rows",
        "No rows",
        "The query returned no row, and an expression reads `row`.",
        "Find out why there is no data. If that is normal, write `rows.all(row, row.age < 900)`, which is true without "
        "rows.",
        sentence="the query returned no row",
    ),
    _failure_reason_entry(
        "database.null",
        "Value is NULL",
        "An expression reads a column whose value is NULL. An aggregate such as `max(...)` over no rows is NULL.",
        "Find out why there is no value. If that is normal, replace it in the query with `coalesce(...)`.",
        sentence="{columns} is NULL",
    ),
    ReasonEntry(
        ReasonCategory.ERROR,
        "database.result_too_large",
        "Result too large",
        "The result of the query is larger than Watchdog reads, and an expression depends on the rest, or the server "
        "has sent more than 16 MiB.",
        "Select fewer rows and columns: add LIMIT, or let the database count with `count(*)`.",
        sentence="the result is too large: {problem}",
    ),
)

DATABASE_REASON_ENTRIES = (*_CONNECTION_REASON_ENTRIES, *_QUERY_REASON_ENTRIES)
