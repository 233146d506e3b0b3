"""The heart: stored events, folded in slot order, through one hysteresis machine per finding.

Pure: no I/O, no clock, no randomness. docs/architecture.md has the state machine as a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from watchdog.model import Change, Event, Finding, Machine, Outcome, Result, State
from watchdog.rules import availability, job, missing, preference, stale, task, unjudged
from watchdog.rules.policy import Policy

Machines = dict[tuple[str, str], Machine]
"""(rule, subject) -> machine; a finding that is clear has none."""

RULES = (availability, unjudged, task, missing, preference, job)
"""What judges a result; `stale` judges its absence."""

STATE_OF = {rule.NAME: rule.STATE for rule in (*RULES, stale)}


class Listed(NamedTuple):
    """Where a rule's subjects are listed, and what it says of one that is not: gone; well, where only bad ones are."""

    of: Callable[[Result], object]
    reason: str


LISTED: Mapping[str, Listed] = {
    task.NAME: Listed(lambda r: r.tasks, "subject.no_longer_listed"),
    missing.NAME: Listed(lambda r: r.tasks, "subject.no_longer_listed"),
    preference.NAME: Listed(lambda r: r.preferences, "subject.no_longer_listed"),
    job.NAME: Listed(lambda r: r.jobs, ""),
}

AT_ONCE = (stale.NAME, job.NAME)
"""Rules with patience of their own: `after` and `recover` do not apply to them."""


def incident_id(probe: int, rule: str, subject: str, since: int) -> str:
    """Derived, so that deciding the same twice opens one incident."""
    return blake2b(f"{probe}\0{rule}\0{subject}\0{since}".encode(), digest_size=12).hexdigest()


def judge(policy: Policy, result: Result) -> list[Finding]:
    """Every verdict that a result gives by itself. `missed` is for accounting and is no evidence; `error` says only
    that we could not judge."""
    rules = {Outcome.MISSED: (), Outcome.ERROR: (unjudged,)}.get(result.outcome, RULES)
    return [finding for rule in rules for finding in rule.judge(policy, result)]


def turn(policy: Policy, machines: Machines, slot: int, finding: Finding, out: list[Change]) -> None:
    """One step of the one machine."""
    key = (finding.rule, finding.subject)
    after, recover = (1, 1) if finding.rule in AT_ONCE else (policy.after, policy.recover)
    machine = machines.get(key)

    def change(event: Event, since: int) -> str:
        incident = incident_id(policy.probe.id, *key, since)
        out.append(Change(event, policy.probe.id, *key, incident, since, slot, finding.reason, finding.message))
        return incident

    if finding.bad:
        machine = machine or Machine(0, 0, slot, None)
        if machine.incident is not None:
            machine = machine._replace(good=0)
        else:
            machine = machine._replace(bad=machine.bad + 1, reason=finding.reason)
            if machine.bad >= after:
                machine = machine._replace(incident=change(Event.OPENED, machine.since))
        machines[key] = machine
    elif machine is not None:
        if machine.incident is None:
            del machines[key]
        elif machine.good + 1 >= recover:
            change(Event.RESOLVED, machine.since)
            del machines[key]
        else:
            machines[key] = machine._replace(good=machine.good + 1)


def gone(machines: Machines, result: Result, found: Iterable[Finding]) -> list[Finding]:
    """A good verdict for every subject that the result's listing does not have."""
    if result.outcome not in (Outcome.PASS, Outcome.FAIL):
        return []
    there = {(f.rule, f.subject) for f in found}
    return [
        Finding(rule, subject, False, LISTED[rule].reason)
        for rule, subject in machines
        if rule in LISTED and LISTED[rule].of(result) is not None and (rule, subject) not in there
    ]


def step(policy: Policy, machines: Machines, result: Result, out: list[Change]) -> None:
    """Fold one result."""
    found = judge(policy, result)
    if found and stale.KEY in machines:
        found.append(stale.heard())
    for finding in [*found, *gone(machines, result, found)]:
        turn(policy, machines, result.slot, finding, out)


class Folded(NamedTuple):
    cursor: int
    """Everything at or before it is in the machines."""
    hold: int | None
    """A slot that was claimed before the next stored one and is still awaited."""
    changed: bool
    """Some step changed a machine, even if a later one changed it back: what is folded must not be folded again."""
    changes: list[Change]


def fold(
    policy: Policy,
    machines: Machines,
    cursor: int,
    rows: Iterable[Result],
    passed: Callable[[int], bool],
    lapses: Iterable[tuple[int, int]] = (),
) -> Folded:
    """Fold stored rows into `machines`, as far as no earlier claimed slot is awaited.

    `rows`: ascending by slot, all after `cursor`. `passed`: whether a slot's lateness has passed. `lapses`: stored
    decisions of staleness as (slot after which, silence), for a replay.
    """
    out: list[Change] = []
    todo = sorted(lapses)
    changed = False

    def lapse(before: int | None) -> None:
        while todo and (before is None or todo[0][0] < before):
            slot, silence = todo.pop(0)
            turn(policy, machines, slot, stale.lapsed(silence), out)

    for row in rows:
        if row.late:
            continue
        if row.prev is not None and row.prev > cursor and not passed(row.prev):
            lapse(row.prev)
            return Folded(cursor, row.prev, changed, out)
        lapse(row.slot)
        before = dict(machines)
        step(policy, machines, row, out)
        changed = changed or machines != before
        cursor = row.slot
    lapse(None)
    return Folded(cursor, None, changed, out)


def state_of(open_rules: Iterable[str], *, judged: bool) -> State:
    """A probe's state: the worst of its open findings; unknown when nothing was judged yet."""
    worst = {STATE_OF[rule] for rule in open_rules}
    return next(
        (s for s in (State.DOWN, State.UNKNOWN, State.DEGRADED) if s in worst), State.UP if judged else State.UNKNOWN
    )
