"""The tables, the same on SQLite and PostgreSQL. Instants are epoch milliseconds in BIGINT; JSON is stored as text.

A change here needs a migration in migrations/versions/, on top of the newest one.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table, Text

from watchdog.domain.model import DeliveryState, IncidentEvent
from watchdog.domain.watermark import MAX_WATERMARK_DISTANCE_MS
from watchdog.store import act_tables as act_tables  # a part of the schema
from watchdog.store import follow_up_tables as follow_up_tables
from watchdog.store import group_tables as group_tables
from watchdog.store import maintenance_tables as maintenance_tables
from watchdog.store import muting_tables as muting_tables
from watchdog.store.metadata import AUTOINCREMENT_ID_TYPE
from watchdog.store.metadata import metadata as metadata

# ------------------------------------------------------------------------------------------------- probes and slots
probes = Table(
    "probes", metadata,
    Column("id", AUTOINCREMENT_ID_TYPE, primary_key=True, autoincrement=True),  # other tables reference it as `probe`
    Column("probe_id", Text, nullable=False, unique=True),  # the id in the configuration
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("info", Text, nullable=False),  # JSON: ProbeInfo without its database id
    Column("config_yaml", Text, nullable=False),  # the configuration as written, without the values of variables
    Column("created_at", BigInteger, nullable=False),  # evaluation starts after this instant
    Column("removed_at", BigInteger),
    Column("revision", BigInteger),  # of the configuration that this row is from
    Column("policy", Text),  # JSON: its schedule and how it is evaluated, for members that do not have it
)  # fmt: skip

schedule = Table(
    "schedule", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("location", Text, primary_key=True),
    Column("definition", Text, nullable=False),  # the schedule as text; when it changes, next_due is computed again
    Column("next_due", BigInteger, nullable=False, index=True),
    Column("last_slot", BigInteger),
    Column("in_flight", Text, nullable=False),  # JSON: claimed slots without a result; [slot, claimed at] of a late one
    Column("probe_definition", Text, nullable=False, server_default=""),  # only members with this one claim slots
    Column("paused", Boolean, nullable=False, server_default=sa.false()),  # none is claimed (act_tables.pauses)
)  # fmt: skip

watermarks = Table(
    "watermarks", metadata,
    Column("location", Text, primary_key=True),
    Column("claimed_until", BigInteger, nullable=False),  # every slot due by then is claimed or recorded as missed
    Column("generation", Integer, nullable=False, server_default="0"),  # of the clock (domain/clock_steps.py)
)  # fmt: skip

clock_steps = Table(
    "clock_steps", metadata,
    Column("ended_timeline", Text, primary_key=True),  # the location of the rows from before the step
    Column("location", Text, nullable=False),
    Column("generation", Integer, nullable=False),  # that began
    Column("stepped_from", BigInteger, nullable=False),
    Column("stepped_to", BigInteger, nullable=False),
    Column("valid_until", BigInteger, nullable=False),  # later slots of the ended timeline came again, or were skipped
)  # fmt: skip

downtime = Table(  # gaps during which no process of Watchdog claimed slots
    "downtime", metadata,
    Column("location", Text, primary_key=True),  # a timeline
    Column("started_at", BigInteger, primary_key=True),
    Column("ended_at", BigInteger, nullable=False),
)  # fmt: skip

# ---------------------------------------------------------------------------------------------------------- members
revisions = Table(  # a number for the content of each configuration that was ever loaded; never deleted
    "revisions", metadata,
    Column("number", AUTOINCREMENT_ID_TYPE, primary_key=True, autoincrement=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("routing", Text),  # JSON: receivers and routes, for members that do not have them
    Column("sections", Text),  # JSON: the other sections, masked, to compare configurations
)  # fmt: skip

members = Table(  # the processes that share the database, and those of the last day
    "members", metadata,
    Column("id", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    Column("left_in_order", Boolean, nullable=False),
    Column("sections", Text),  # JSON: the sections that concern its process alone, masked
)  # fmt: skip

revision_probes = Table(  # the probes that a member's configuration has
    "revision_probes", metadata,
    Column("revision", BigInteger, primary_key=True),
    Column("probe_id", Text, primary_key=True),
    Column("definition", Text, nullable=False),  # a digest
    Column("content_digest", Text),  # of its own configuration, without the routes that apply
    sqlite_with_rowid=False,
)  # fmt: skip

revision_destinations = Table(  # the destinations that a member's configuration has
    "revision_destinations", metadata,
    Column("revision", BigInteger, primary_key=True),
    Column("destination", Text, primary_key=True),
    Column("definition", Text, nullable=False),  # a digest
    sqlite_with_rowid=False,
)  # fmt: skip

check_in_tokens = Table(  # so that every member accepts the check-ins of every heartbeat
    "check_in_tokens", metadata,
    Column("member", Text, primary_key=True),  # that has it
    Column("digest", Text, primary_key=True, index=True),  # of the token, which is not stored
    Column("probe_id", Text, nullable=False),
)  # fmt: skip

# ---------------------------------------------------------------------------------------------------------- results
results = Table(
    "results", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("location", Text, primary_key=True),  # a timeline
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("duration", Integer),
    Column("phases", Text),  # JSON {phase: ms}
    Column("measurements", Text),  # JSON {name: scalar}
    Column("facts", Text),  # JSON of the listings, as differences from the previous slot's (store/listings.py)
    Column("facts_base", BigInteger),  # the slot of the result from which these differences start
    Column("previous_slot", BigInteger),  # the slot that the same location claimed before this one
    Column("slot_count", Integer, nullable=False),  # slots that a row of outcome `missed` stands for
    Column("late", Boolean, nullable=False),  # stored too late to be evaluated
    Column("held_until", BigInteger),  # until then, its evaluation waits for the decision whose fault it is
    Column("recorded_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)  # fmt: skip
RESULT_COLUMNS = [column for column in results.c if column.name != "recorded_at"]
"""The columns that make a `ProbeResult`, in the order of its fields."""
END_OF_TIME_MS = 2**62
_ended_timeline = sa.select(clock_steps.c.valid_until).where(clock_steps.c.ended_timeline == results.c.location)
is_effective_result = sa.or_(
    results.c.slot
    <= sa.select(sa.func.coalesce(sa.func.min(clock_steps.c.valid_until), END_OF_TIME_MS)).scalar_subquery(),
    results.c.slot <= sa.func.coalesce(_ended_timeline.correlate(results).scalar_subquery(), END_OF_TIME_MS),
)
"""Whether the instant of a row of `results` has not come again after a step of the clock. The first half, which is
computed once for a query, spares the second where the clock was never set."""
effective_results = sa.select(results).where(is_effective_result).subquery("effective_results")
"""The results that count, on one timeline: their order by slot is that of (clock generation, slot)."""
EFFECTIVE_RESULTS_SUBQUERY_COLUMNS = [effective_results.c[column.name] for column in RESULT_COLUMNS]
_newest_slot = sa.select(sa.func.max(watermarks.c.claimed_until) + MAX_WATERMARK_DISTANCE_MS).where(
    watermarks.c.claimed_until < sa.select(sa.func.max(clock_steps.c.stepped_from)).scalar_subquery()
)
newest_results = (
    sa.select(results)
    .where(is_effective_result, results.c.slot <= sa.func.coalesce(_newest_slot.scalar_subquery(), END_OF_TIME_MS))
    .subquery("newest_results")
)
"""The same rows, for a search from the newest one: it need not pass all rows from before a step back. A search for a
known slot uses `effective_results`: SQLite prefers this bound to the slot."""

evidence = Table(
    "evidence", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("location", Text, primary_key=True),
    Column("facts", Text, nullable=False),  # JSON
    Column("excerpt", Text, nullable=False),
)  # fmt: skip

rollups = Table(  # the results of one probe in one hour, summed up
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

probe_state = Table(  # what probes carry from run to run
    "probe_state", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),  # JSON
)  # fmt: skip

check_ins = Table(  # sent by jobs; folded into the state of their heartbeat probe
    "check_ins", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("occurred_at", BigInteger, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # a CheckInKind
    Column("run_id", Text, nullable=False),
    Column("exit_code", Integer),
    Column("duration", BigInteger),  # ms; of the run that this check-in ended
    Column("output", Text, nullable=False),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------------- evaluation
alert_states = Table(  # a row only while something is wrong
    "alert_states", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("rule", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("bad_count", Integer, nullable=False),
    Column("good_count", Integer, nullable=False),
    Column("first_bad_slot", BigInteger, nullable=False),
    Column("incident", Text),
    Column("reason", Text, nullable=False),
    Column("other_reason", Text, nullable=False, server_default=""),
    *(Column("other_count", Integer, nullable=False, server_default="0"), Column("other_since", BigInteger)),
    Column("generation", Integer, nullable=False, server_default="0"),  # the clock generation of first_bad_slot
    sqlite_with_rowid=False,
)  # fmt: skip

evaluation_cursors = Table(  # one row a probe; a result that changes nothing does not touch it
    "evaluation_cursors", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("evaluated_until", BigInteger, nullable=False),
    Column("awaiting_slot", Boolean, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("wake_at", BigInteger),
    sqlite_with_rowid=False,
)  # fmt: skip
_has_deadline = evaluation_cursors.c.wake_at.is_not(None)
Index(
    "ix_evaluation_cursors_wake_at", evaluation_cursors.c.wake_at,
    postgresql_where=_has_deadline, sqlite_where=_has_deadline,
)  # fmt: skip

staleness_events = Table(  # decisions that a probe is stale, stored so that a replay decides the same
    "staleness_events", metadata,
    Column("probe", BigInteger, primary_key=True),
    Column("last_result_slot", BigInteger, primary_key=True),
    Column("timeline", Text, primary_key=True, server_default="local"),
    Column("threshold_ms", BigInteger, nullable=False),
    Column("detected_at", BigInteger, nullable=False),
)  # fmt: skip

# ---------------------------------------------------------------------------------------- incidents and what follows
incidents = Table(
    "incidents", metadata,
    Column("id", Text, primary_key=True),
    Column("probe", BigInteger, nullable=False),
    Column("rule", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("since", BigInteger, nullable=False),  # the first bad slot
    Column("opened_slot", BigInteger, nullable=False),  # the slot that opened it
    Column("opened_at", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),  # the current cause
    Column("message", Text, nullable=False),
    Column("threshold", Integer, nullable=False),  # consecutive bad slots that were needed
    Column("routing_log", Text, nullable=False),  # JSON: each step of the routing decision, in words
    Column("resolved_slot", BigInteger),
    Column("resolved_at", BigInteger),
    Column("resolution", Text, nullable=False),
    Column("first_reason", Text, nullable=False, server_default=""),  # the first cause, once there is another
    Column("first_message", Text, nullable=False, server_default=""),
    Column("generation", Integer, nullable=False, server_default="0"),  # the clock generation of since
    Column("clock_shift", BigInteger, nullable=False, server_default="0"),  # how far steps have moved the time of since
    Column("resolved_generation", Integer),  # the clock generation of resolved_slot and resolved_at
    Column("acknowledged_at", BigInteger),
    *(
        Column(name, Text, nullable=False, server_default="")
        for name in act_tables.ACKNOWLEDGEMENT_AND_CLOSURE_COLUMN_NAMES
    ),
    *(Column("closed_after_slot", BigInteger), Column("closed_until_slot", BigInteger)),  # as in ClosedFinding
)  # fmt: skip
Index(
    "uq_incidents_open", incidents.c.probe, incidents.c.rule, incidents.c.subject, unique=True,
    postgresql_where=incidents.c.resolved_at.is_(None), sqlite_where=incidents.c.resolved_at.is_(None),
)  # fmt: skip
Index("ix_incidents_closed", incidents.c.probe, incidents.c.closed_until_slot)
Index("ix_incidents_opened_at", incidents.c.opened_at)
Index("ix_incidents_probe_opened_at", incidents.c.probe, incidents.c.opened_at)
Index("ix_incidents_probe_since", incidents.c.probe, incidents.c.since)

cause_changes = Table(  # changes of an open incident's cause
    "cause_changes", metadata,
    Column("incident", Text, primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("changed_at", BigInteger, nullable=False),
    Column("since", BigInteger, nullable=False, server_default="0"),  # the first slot with the new cause
    Column("reason", Text, nullable=False),  # the new cause
    Column("message", Text, nullable=False),
    Column("generation", Integer, primary_key=True, server_default="0"),  # the clock generation of slot
)  # fmt: skip

outbox = Table(  # notifications, delivered or not
    "outbox", metadata,
    Column("incident", Text, primary_key=True),
    Column("destination", Text, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("event", Text, nullable=False),
    Column("state", Text, nullable=False),  # a DeliveryState
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    *(Column("lease_token", Text), Column("leased_until", BigInteger)),  # the sender that holds the row until then
    Column("attempts", Integer, nullable=False),
    Column("detail", Text, nullable=False),  # the last error
    Column("receipt", Text),  # JSON: what a delivery that was made in part returned
    Column("finished_at", BigInteger),
    Column("refused_since", BigInteger),  # the first refusal that is retried for a limited time
    Column("unconfirmed_copies", Integer, nullable=False, server_default="0"),  # sent, with unknown result
    Column("lead_incident", Text, nullable=False, server_default=""),  # whose message at the destination names this one
    Column("escalated_after_ms", BigInteger),  # the time after which a route escalates to this destination
)  # fmt: skip
outbox_is_waiting = outbox.c.state == DeliveryState.WAITING
outbox_is_undelivered = outbox.c.state == DeliveryState.UNDELIVERED
outbox_is_unconfirmed = outbox.c.state == DeliveryState.UNCONFIRMED
Index("ix_outbox_due", outbox.c.due_at, postgresql_where=outbox_is_waiting, sqlite_where=outbox_is_waiting)
Index(
    "ix_outbox_unconfirmed",
    outbox.c.due_at,
    postgresql_where=outbox_is_unconfirmed,
    sqlite_where=outbox_is_unconfirmed,
)
Index(
    "ix_outbox_undelivered",
    outbox.c.created_at,
    postgresql_where=outbox_is_undelivered,
    sqlite_where=outbox_is_undelivered,
)

Index("ix_outbox_lead_incident", outbox.c.lead_incident, outbox.c.destination)
outbox_is_leased = outbox.c.lease_token.is_not(None)
Index("ix_outbox_lease_token", outbox.c.lease_token, postgresql_where=outbox_is_leased, sqlite_where=outbox_is_leased)

outbox_is_cause_change = outbox.c.event == IncidentEvent.CHANGED
Index(
    "ix_outbox_changed",
    outbox.c.destination,
    outbox.c.finished_at,
    postgresql_where=outbox_is_cause_change,
    sqlite_where=outbox_is_cause_change,
)

messages = Table(  # a message at a destination, as it was last sent or edited
    "messages", metadata,
    Column("incident", Text, primary_key=True),  # of a group: its first incident
    Column("destination", Text, primary_key=True),
    Column("headline", Text, nullable=False),  # its first line
    Column("cause", Text, nullable=False),  # the sentence that it states as the cause
    Column("receipt", Text, nullable=False),  # JSON that the next delivery to this destination needs
    Column("sent_at", BigInteger, nullable=False),
)  # fmt: skip

failing_destinations = Table(  # destinations that have confirmed nothing since a delivery failed
    "failing_destinations", metadata,
    Column("destination", Text, primary_key=True),
    Column("failing_since", BigInteger, nullable=False),
    Column("given_up", Boolean, nullable=False),  # a notification was given up
    Column("error", Text, nullable=False),  # of the newest attempt
)  # fmt: skip

member_faults = Table(  # what is wrong with a process at present
    "member_faults", metadata,
    *(Column("member", Text, primary_key=True), Column("fault", Text, primary_key=True)),
    Column("since", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),  # in words
)  # fmt: skip

destination_backoff = Table(  # how fast destinations may be sent messages: a DestinationPace
    "destination_backoff", metadata,
    Column("destination", Text, primary_key=True),
    Column("retry_at", BigInteger, nullable=False),  # it asked for a pause until then
    Column("interval_ms", BigInteger, nullable=False, server_default="0"),
    Column("full_at", BigInteger, nullable=False, server_default="0"),
    Column("merged_at", BigInteger),
)  # fmt: skip

remediations = Table(  # at most one attempt an incident, reason and run
    "remediations", metadata,
    Column("incident", Text, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),  # of the job; empty where the source names none
    Column("probe", BigInteger, nullable=False),
    Column("subject", Text, nullable=False),
    Column("action", Text, nullable=False),  # in words
    Column("state", Text, nullable=False),  # a RemediationAttemptState
    Column("started_at", BigInteger, nullable=False),  # when it started or was held back
    Column("ended_at", BigInteger),
    Column("detail", Text, nullable=False),  # the result, in words
    Column("clock_shift", BigInteger, nullable=False, server_default="0"),  # how far steps have moved its start since
    sqlite_with_rowid=False,
)  # fmt: skip
Index("ix_remediations_probe_started_at", remediations.c.probe, remediations.c.started_at)
