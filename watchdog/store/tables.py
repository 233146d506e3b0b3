"""The one schema, on SQLite and PostgreSQL. Times are epoch milliseconds in BIGINT; JSON is kept as text."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, Table, Text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_AUTO_ID_TYPE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

probes = Table(
    "probes", metadata,
    Column("id", _AUTO_ID_TYPE, primary_key=True, autoincrement=True),
    Column("probe_id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("info", Text, nullable=False),  # ProbeInfo without id, as JSON: what pages and messages show
    Column("config_yaml", Text, nullable=False),  # the configuration as written, uninterpolated, YAML
    Column("created_at", BigInteger, nullable=False),  # the fold begins after this instant
    Column("removed_at", BigInteger),
)  # fmt: skip

schedule = Table(
    "schedule", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("location", Text, primary_key=True),
    Column("definition", Text, nullable=False),  # the schedule in words: when it changes, next_due is computed anew
    Column("next_due", BigInteger, nullable=False, index=True),
    Column("last_slot", BigInteger),
    Column("in_flight", Text, nullable=False),  # JSON list of slots claimed and not known to be recorded
)  # fmt: skip

results = Table(
    "results", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("location", Text, primary_key=True),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("duration", Integer),
    Column("phases", Text),  # JSON {name: ms}
    Column("measurements", Text),  # JSON {name: scalar}
    Column("tasks", Text),  # JSON {subject: [ok, age, seen, status, error]}
    Column("preferences", Text),  # JSON {expression: what is wrong, empty when it held}
    Column("jobs", Text),  # JSON {job that is not right: [reason, message, run under way]}
    Column("previous_slot", BigInteger),
    Column("slot_count", Integer, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)  # fmt: skip

evidence = Table(
    "evidence", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("location", Text, primary_key=True),
    Column("facts", Text, nullable=False),  # JSON
    Column("excerpt", Text, nullable=False),
)  # fmt: skip

alert_states = Table(  # a row only while not clear
    "alert_states", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("rule", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("bad_count", Integer, nullable=False),
    Column("good_count", Integer, nullable=False),
    Column("first_bad_slot", BigInteger, nullable=False),
    Column("incident", Text),
    Column("reason", Text, nullable=False),
    sqlite_with_rowid=False,
)  # fmt: skip

evaluation_cursors = Table(  # one row a probe; a result that changes nothing never touches it
    "evaluation_cursors", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("evaluated_until", BigInteger, nullable=False),
    Column("awaiting_slot", Boolean, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("wake_at", BigInteger),
    sqlite_with_rowid=False,
)  # fmt: skip
Index(
    "ix_evaluation_cursors_wake_at",
    evaluation_cursors.c.wake_at,
    postgresql_where=evaluation_cursors.c.wake_at.is_not(None),
    sqlite_where=evaluation_cursors.c.wake_at.is_not(None),
)

staleness_events = Table(  # a stored event: a wake found nothing after this slot
    "staleness_events", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("last_result_slot", BigInteger, primary_key=True),
    Column("threshold_ms", BigInteger, nullable=False),
    Column("detected_at", BigInteger, nullable=False),
)  # fmt: skip

downtime = Table(  # when we ourselves stood still
    "downtime", metadata,
    Column("location", Text, primary_key=True),
    Column("started_at", BigInteger, primary_key=True),
    Column("ended_at", BigInteger, nullable=False),
)  # fmt: skip

watermarks = Table(  # the watermark: every slot due by then is claimed, every lost one recorded
    "watermarks", metadata,
    Column("location", Text, primary_key=True),
    Column("claimed_until", BigInteger, nullable=False),
)  # fmt: skip

probe_state = Table(
    "probe_state", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),  # JSON
)  # fmt: skip

check_ins = Table(  # told by a job, folded into what its probe remembers
    "check_ins", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("occurred_at", BigInteger, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # start | ok | fail | log
    Column("run_id", Text, nullable=False),
    Column("exit_code", Integer),
    Column("duration", BigInteger),  # of the run that it ended
    Column("output", Text, nullable=False),
)  # fmt: skip

incidents = Table(
    "incidents", metadata,
    Column("id", Text, primary_key=True),
    Column("probe", BigInteger, nullable=False),
    Column("rule", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("opened_slot", BigInteger, nullable=False),  # the slot that opened it
    Column("opened_at", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("threshold", Integer, nullable=False),  # bad slots in a row that were needed
    Column("routing_log", Text, nullable=False),  # why these destinations were told, in words (JSON list)
    Column("resolved_slot", BigInteger),
    Column("resolved_at", BigInteger),
    Column("resolution", Text, nullable=False),
)  # fmt: skip
Index(
    "uq_incidents_open", incidents.c.probe, incidents.c.rule, incidents.c.subject, unique=True,
    postgresql_where=incidents.c.resolved_at.is_(None), sqlite_where=incidents.c.resolved_at.is_(None),
)  # fmt: skip
Index("ix_incidents_opened_at", incidents.c.opened_at)
Index("ix_incidents_probe_opened_at", incidents.c.probe, incidents.c.opened_at)

outbox = Table(
    "outbox", metadata,
    Column("incident", Text, primary_key=True),
    Column("destination", Text, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("event", Text, nullable=False),
    Column("state", Text, nullable=False),  # waiting | sent | merged | dead
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("lease_token", Text),  # who holds it; a lease that has run out is anyone's
    Column("leased_until", BigInteger),
    Column("attempts", Integer, nullable=False),
    Column("detail", Text, nullable=False),  # the last error, or what the receiver answered
    Column("receipt", Text),  # JSON kept for the next delivery of this incident to this destination
    Column("finished_at", BigInteger),
)  # fmt: skip
outbox_is_waiting = outbox.c.state == "waiting"
outbox_is_dead = outbox.c.state == "dead"
Index("ix_outbox_due", outbox.c.due_at, postgresql_where=outbox_is_waiting, sqlite_where=outbox_is_waiting)
Index("ix_outbox_dead", outbox.c.created_at, postgresql_where=outbox_is_dead, sqlite_where=outbox_is_dead)

remediations = Table(  # what was done about an incident, by itself
    "remediations", metadata,
    Column("incident", Text, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),  # of the job; empty: the source names none
    Column("probe", BigInteger, nullable=False),
    Column("subject", Text, nullable=False),
    Column("action", Text, nullable=False),  # in words
    Column("state", Text, nullable=False),  # rate_limited | started | succeeded | dry_run | failed
    Column("started_at", BigInteger, nullable=False),  # when it was held back, or begun
    Column("ended_at", BigInteger),
    Column("detail", Text, nullable=False),  # what came of it
    sqlite_with_rowid=False,
)  # fmt: skip
Index("ix_remediations_probe_started_at", remediations.c.probe, remediations.c.started_at)

destination_backoff = Table(  # a receiver that asked us to wait
    "destination_backoff", metadata,
    Column("destination", Text, primary_key=True),
    Column("retry_at", BigInteger, nullable=False),
)  # fmt: skip

rollups = Table(  # one hour of one probe
    "rollups", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("hour", BigInteger, primary_key=True),
    Column("location", Text, primary_key=True),
    Column("passed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("errors", Integer, nullable=False),
    Column("missed", Integer, nullable=False),
    Column("duration_sum", BigInteger, nullable=False),
    Column("duration_max", Integer),
    sqlite_with_rowid=False,
)  # fmt: skip
