"""One incident's page: what changed, what happened since, who was told, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from watchdog.model import Event, Notification, Outcome, State, Story
from watchdog.rules import AT_ONCE, STATE_OF, availability, stale
from watchdog.store import history, views
from watchdog.store.story import story
from watchdog.store.views import Case, Connection, Pulse, Told
from watchdog.web.compare import Side, compare
from watchdog.web.probe import Notice, sentence
from watchdog.web.results import STATE
from watchdog.web.timeline import STATE_WORDS
from watchdog.words import DAY, about, clock, count, moment, remedied, span

ENDED = {"subject.no_longer_listed": "its subject is gone", "probe.removed": "the probe was removed"}
DELIVERY = {"sent": "Delivered", "waiting": "Queued", "merged": "Told at the end", "dead": "Dead"}


exact = partial(moment, seconds=True)


@dataclass(frozen=True, slots=True)
class Happened:
    at: int
    what: str
    said: str
    state: State | None = None
    icon: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    receiver: str
    notifier: str
    address: str
    event: str
    state: State
    shape: str
    word: str
    detail: str


@dataclass(frozen=True, slots=True)
class IncidentPage:
    case: Case
    pulse: Pulse
    title: str
    state: State
    word: str
    notices: tuple[Notice, ...]
    bad: Side | None
    good: Side | None
    latest: str
    latest_slot: int | None
    timeline: tuple[Happened, ...]
    dated: bool
    """Some of it happened on another day."""
    told: tuple[Delivery, ...]
    told_sum: str
    why: tuple[tuple[str, str], ...]


def read(connection: Connection, incident: str, addresses: Mapping[str, str], now: int) -> IncidentPage | None:
    """None: there is no such incident. `addresses`: destination -> whom it reaches."""
    found = views.cases(connection, incident=incident)
    if not found:
        return None
    case = found[0]
    told_of = story(connection, Notification(incident, "", 0, Event.OPENED), now)
    bad, good = _sides(connection, case, now)
    told = views.told(connection, incident)
    happened = timeline(case, told_of, told, now)
    return IncidentPage(
        case=case,
        pulse=views.pulse(connection),
        title=title(case),
        state=state(case),
        word=state_word(case, now),
        notices=notices(case, told, now),
        bad=bad,
        good=good,
        latest=_latest(case, told_of, now),
        latest_slot=told_of.latest.slot if told_of.latest else None,
        timeline=happened,
        dated=any(h.at // DAY != now // DAY for h in happened),
        told=tuple(delivery(t, addresses) for t in told),
        told_sum=_sum(told),
        why=tuple(_why(case)),
    )


def _sides(connection: Connection, case: Case, now: int) -> tuple[Side | None, Side | None]:
    """First bad beside last good. Where absence is what is wrong, only the last result, whatever it was."""
    incident = case.incident
    if incident.rule == stale.NAME:
        last = history.details(connection, incident.probe, [incident.since]).get(incident.since)
        _, side = compare(State.UNKNOWN, "", None, last, last, now)
        return None, replace(side, title="Last result", state=STATE[last.result.outcome]) if side and last else None
    good = history.last_good(connection, incident.probe, incident.since)
    sample = history.last_good_evidence(connection, incident.probe, incident.since)
    slots = [slot for slot in (incident.since, good, sample) if slot is not None]
    kept = history.details(connection, incident.probe, slots)
    bad, fine, shown = (kept.get(-1 if slot is None else slot) for slot in (incident.since, good, sample))
    return compare(STATE_OF[incident.rule], incident.subject, bad, fine, shown, now)


def title(case: Case) -> str:
    """ "API: got 503"."""
    return f"{case.probe.name}: {case.incident.message}"


def state(case: Case) -> State:
    """What the incident makes of its probe; up once it is over."""
    return STATE_OF[case.incident.rule] if case.incident.resolved_at is None else State.UP


def state_word(case: Case, now: int) -> str:
    """ "Down for 41 min", "Resolved after 12 min"."""
    incident = case.incident
    if incident.resolved_at is not None:
        return f"Resolved after {span(incident.resolved_at - incident.since)}"
    return f"{STATE_WORDS[STATE_OF[incident.rule]]} for {about(now - incident.since)}"


def notices(case: Case, told: Sequence[Told], now: int) -> tuple[Notice, ...]:
    """A watchdog never hides its own silence: who was not reached comes first."""
    found = []
    for letter in (t for t in told if t.state == "dead"):
        others = sorted({t.destination for t in told if t.state == "sent"})
        reached = (
            f"{', '.join(others)} {'was' if len(others) == 1 else 'were'} reached." if others else "Nobody was reached."
        )
        missed = f"{letter.destination} was not reached: {letter.detail}, {_tries(letter)}"
        found.append(Notice(State.DEGRADED, missed, reached))
    if not told:
        found.append(
            Notice(State.DEGRADED, "Nobody was told", sentence("; ".join(case.route)) or "No receiver is configured.")
        )
    incident = case.incident
    if incident.resolved_at is not None:
        lasted = span(incident.resolved_at - incident.since)
        when = f"It lasted {lasted}: first bad {exact(incident.since, now)}, opened {exact(incident.opened_at, now)}."
        ended = ENDED.get(incident.resolution, incident.resolution.replace("_", " "))
        over = (
            f"Over: {ended}" if ended else f"Good again since {exact(case.resolved_slot or incident.resolved_at, now)}"
        )
        found.append(Notice(State.UP, over, when))
    return tuple(found)


def _latest(case: Case, told: Story, now: int) -> str:
    """ "02:29:00 · got 503 · 2.9 s. 42 runs failed since it began."; empty once it is over, or where none comes."""
    latest = told.latest
    if latest is None or case.incident.resolved_at is not None or case.incident.rule == stale.NAME:
        return ""
    own = latest.message if not case.incident.subject else ""  # else it is about others, too
    said = [exact(latest.slot, now), own or latest.outcome.value]
    said += [span(latest.duration)] if latest.duration is not None else []
    was = "failed" if case.incident.rule == availability.NAME else "was bad" if told.streak == 1 else "were bad"
    return " · ".join(said) + f". {count(told.streak, 'run')} {was} since it began."


def timeline(case: Case, told: Story, sent: Iterable[Told], now: int) -> tuple[Happened, ...]:
    """What happened, newest first."""
    incident, state = case.incident, STATE_OF[case.incident.rule]
    found = list(_beginning(case, told))
    opening = incident.message if incident.rule in AT_ONCE else f"{case.needed} in a row"
    found.append(Happened(incident.opened_at, f"Opened, {incident.severity}", opening, state))
    for t in sent:
        if t.done_at is not None and t.state == "sent":
            late = f"{span(t.done_at - t.created_at)} later"
            found.append(Happened(t.done_at, f"{t.destination} told: {t.event}", late, icon="send"))
        elif t.done_at is not None and t.state == "dead":
            why = f"{_tries(t)}, {t.detail}: a dead letter"
            found.append(Happened(t.done_at, f"{t.destination} given up", why, icon="send"))
    for one in told.tried:
        word, said = remedied(one, now)
        found.append(Happened(one.at, f"Remedy: {word}", said, icon="act"))
    latest = told.latest
    if incident.resolved_at is not None:
        found.append(Happened(incident.resolved_at, "Resolved", ENDED.get(incident.resolution, "good again"), State.UP))
    elif latest and latest.slot > case.slot and incident.rule == availability.NAME and latest.outcome is Outcome.FAIL:
        took = f" · {span(latest.duration)}" if latest.duration is not None else ""
        found.append(Happened(latest.slot, f"{ordinal(told.streak)} bad result", latest.message + took, state))
    order = sorted(enumerate(found), key=lambda pair: (pair[1].at, pair[0]))
    return tuple(happened for _, happened in reversed(order))


def _beginning(case: Case, told: Story) -> Iterator[Happened]:
    """The last good result and the first bad one; where none came any more, the last that did."""
    good, bad = told.last_good, told.first_bad
    if case.incident.rule == stale.NAME:
        if bad:
            yield Happened(bad.slot, "Last result", bad.message or bad.outcome.value, STATE[bad.outcome])
        return
    if good:
        yield Happened(good.slot, "Last good result", "" if good.duration is None else span(good.duration), State.UP)
    if bad:
        own = bad.message if not case.incident.subject else ""
        said = (own or case.incident.message) + (" · still shown as before" if case.needed > 1 else "")
        yield Happened(bad.slot, "First bad result", said, State.DEGRADED)


def _tries(told: Told) -> str:
    return f"{told.attempts} {'try' if told.attempts == 1 else 'tries'}"


def ordinal(n: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th."""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def delivery(told: Told, addresses: Mapping[str, str]) -> Delivery:
    receiver, _, notifier = told.destination.partition("/")
    shape = {"sent": "up", "waiting": "wait", "merged": "unknown", "dead": "down"}[told.state]
    colour = {"sent": State.UP, "waiting": State.DEGRADED, "merged": State.UNKNOWN, "dead": State.DOWN}[told.state]
    at = clock(told.done_at if told.done_at is not None else told.due_at, seconds=True)
    if told.state == "sent":
        detail = f"{at} · {span((told.done_at or told.created_at) - told.created_at)}"
    elif told.state == "waiting":
        detail = f"try {told.attempts + 1} at {at}" + (f" · {told.detail}" if told.detail else "")
    elif told.state == "dead":
        detail = f"{_tries(told)} until {at} · {told.detail}"
    else:
        detail = f"{at} · one message told both"
    word = DELIVERY[told.state]
    return Delivery(receiver, notifier, addresses.get(told.destination, ""), told.event, colour, shape, word, detail)


def _sum(told: Sequence[Told]) -> str:
    """ "3 delivered · 1 queued · 1 dead"."""
    counts = [(sum(t.state == state for t in told), word.lower()) for state, word in DELIVERY.items()]
    return " · ".join(f"{n} {word}" for n, word in counts if n)


def _why(case: Case) -> Iterable[tuple[str, str]]:
    """Each step of the decision: (in words, what in the configuration says so)."""
    incident = case.incident
    if incident.rule in AT_ONCE:
        yield incident.message if incident.subject else sentence(incident.message), ""
    else:
        yield f"{count(case.needed, 'bad slot')} in a row, {case.needed} needed", f"alert.after: {case.needed}"
    yield f"Severity {incident.severity}, by the probe's own configuration", f"alert.severity: {incident.severity}"
    for step in case.route:
        yield sentence(step), ""
