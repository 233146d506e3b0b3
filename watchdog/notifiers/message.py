"""What every channel tells of an incident, in the same order. A channel adds its layout and its escaping, no words."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from watchdog.model import Event, Incident, Outcome, Sample, State, Story
from watchdog.rules import STATE_OF
from watchdog.wire import harmless
from watchdog.words import NBSP, STATE_GLYPH, STATE_WORD, about, ago, count, moment, remedied, span, sparkline

NAME, CAUSE, EXCERPT = 80, 240, 300
"""How many characters of a name, of a cause and of evidence are told; the incident's page has the rest."""

_AGAIN = {
    "missing": "is back",
    "preference": "holds again",
    "stale": "reports again",
    "unjudged": "can be judged again",
}
_CLOSED = {"subject.no_longer_listed": "is gone", "probe.removed": "was removed"}
"""How an incident ends that nothing healed, by its resolution."""


@dataclass(frozen=True, slots=True)
class Line:
    """A labelled line: `code` is to be set in code, `text` follows it."""

    label: str
    text: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """All single lines but `evidence`, none with control characters. Untrusted: every part is to be escaped."""

    open: bool
    test: bool
    state: State
    """What to colour it as: UP when all is well again."""
    word: str
    """ "Down", "No data", "Up", "Closed"."""
    title: str
    """Name and cause: "API: got 503"; at the end "API recovered"."""
    lasted: str
    """ "2 min", "just now"; at the end "down 12 min"."""
    thread: str
    """An email's subject, the same one for the incident's whole life."""
    note: str
    """What is special about this message, in a sentence; mostly empty."""
    lines: tuple[Line, ...]
    """The rule with observed against threshold, since when, the last results."""
    facts: tuple[Line, ...]
    """Severity, group, location."""
    evidence: str
    """Several lines of the target's own text."""
    link: str
    runbook: str
    incident: str

    @property
    def glyph(self) -> str:
        return STATE_GLYPH[self.state]

    @property
    def lead(self) -> str:
        """The line for a lock screen: state, name, cause, duration."""
        parts = ["Test"] * self.test + [self.word] * self.open + [self.title, self.lasted]
        return " · ".join(parts)

    @property
    def text(self) -> str:
        """Complete by itself, in one line, without any markup."""
        return plain(f"{self.lead} · {self.facts[0].text}")


def compose(story: Story) -> Message:
    incident, opened = story.incident, story.event is Event.OPENED
    state = STATE_OF.get(incident.rule, State.DOWN)
    word = "No data" if incident.rule == "stale" else STATE_WORD[state]
    name, cause = one_line(story.probe.name, NAME), one_line(incident.message or incident.reason, CAUSE)
    itself = incident.rule == "job" and incident.subject == story.probe.name
    title = cause if itself else f"{name}: {cause}"
    thread = plain(f"{'[TEST] ' if story.test else ''}[{word.upper()} {incident.severity}] {title}")
    lasted = _lasting(incident, story.now)
    lines = _opened(story, cause)
    if not opened:
        healed = incident.resolution not in _CLOSED
        lasted = _lasted(word, (incident.resolved_at or story.now) - incident.since, healed=healed)
        state, word = (State.UP, "Up") if healed else (State.UNKNOWN, "Closed")
        title, lines = _end(name, incident), _resolved(story, cause)
    facts = (
        Line("Severity", incident.severity if opened else f"was {incident.severity}"),
        Line("Group", one_line(story.probe.group, NAME)),
        Line("Location", one_line(story.location, NAME)),
    )
    return Message(
        open=opened,
        test=story.test,
        state=state,
        word=word,
        title=title,
        lasted=lasted,
        thread=thread,
        note=_note(story),
        lines=lines,
        facts=tuple(fact for fact in facts if fact.text),
        evidence=_evidence(story),
        link=story.link,
        runbook=one_line(story.probe.runbook, 2_000),
        incident=incident.id,
    )


def one_line(text: str, limit: int) -> str:
    """Untrusted text for the middle of a sentence: no line breaks, no control characters, at most `limit` long."""
    text = harmless(re.sub(r"[\s\x00\x85\u2028\u2029]+", _blank, text)).strip()
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _blank(found: re.Match[str]) -> str:
    return NBSP if found[0] == NBSP else " "


def plain(text: str) -> str:
    """For places where a no-break space is more than it is worth: subjects, JSON, logs, text to search in."""
    return text.replace(NBSP, " ")


def _lasting(incident: Incident, now: int) -> str:
    if incident.rule == "stale":  # its cause tells a duration already, counted from the last result
        return f"since {moment(incident.since, now)} UTC"
    return about(now - incident.since) if now - incident.since >= 1_000 else "just now"


def _lasted(word: str, ms: int, *, healed: bool) -> str:
    between = " for " if word in ("No data", "Unknown") else " "
    return f"{'' if healed else 'was '}{word.lower()}{between}{about(ms)}"


def _end(name: str, incident: Incident) -> str:
    """Who recovered: the subject by its full name."""
    if incident.resolution == "probe.removed":
        return f"{name} {_CLOSED[incident.resolution]}"
    kind = {"preference": "", "job": "job "}.get(incident.rule, "task ")
    subject = one_line(incident.subject, NAME)
    subject = f": {kind}{subject}" if subject not in ("", name) else ""
    return f"{name}{subject} {_CLOSED.get(incident.resolution) or _AGAIN.get(incident.rule, 'recovered')}"


def _opened(story: Story, cause: str) -> tuple[Line, ...]:
    incident = story.incident
    counted = story.streak and incident.rule != "stale"
    streak = f"{story.streak} in a row since" if counted else "since"
    since = f"{streak} {moment(incident.since, story.now)} UTC ({ago(incident.since, story.now)}), {_last_good(story)}"
    return (_rule(story, cause), Line("Streak" if counted else "Silent", since), *_history(story))


def _last_good(story: Story) -> str:
    good = story.last_good
    if good is None:
        return "no good result before"
    took = "" if good.duration is None else f" · {span(good.duration)}"
    return f"last good {moment(good.slot, story.now)}{took}"


def _rule(story: Story, cause: str) -> Line:
    """What should be, what was seen instead, and how much of it alerts."""
    expression = _expression(story)
    expected, seen = ("", cause.removeprefix(f"{expression} is false: ")) if expression else _expected(story, cause)
    alerts = f"alerts after {story.needed} in a row" if story.needed > 1 else ""
    told = " · ".join(part for part in (expected, seen, alerts) if part)
    return Line("Rule", f"· {told}" if expression else told, expression)


def _expression(story: Story) -> str:
    """The expectation or preference that does not hold; empty when something else is wrong."""
    if story.incident.rule == "preference":
        return one_line(story.incident.subject, CAUSE)
    for sample in (story.first_bad, story.latest):
        told = sample.evidence.facts.get("expect") if sample is not None else None
        for text, what in told.items() if isinstance(told, dict) else ():
            if story.incident.message.endswith(f"{text} {what}"):
                return one_line(str(text), CAUSE)
    return ""


def _expected(story: Story, cause: str) -> tuple[str, str]:
    """What should be, and what was seen instead, without what the former says already."""
    incident, limits = story.incident, story.probe.task_limits
    subject = one_line(incident.subject, NAME)
    if incident.rule == "task":
        limit = limits.get(incident.subject, limits.get("*"))
        within = "" if limit is None else f", at most {span(limit)} ago"
        told = "" if limit is None else f", limit {span(limit)}"
        seen = cause.removeprefix(f"task {subject} ").removeprefix("is ").removesuffix(told)
        return f"last run of task {subject} is ok{within}", seen
    if incident.rule == "missing":
        return f"task {subject} is in the server's list", ""
    if incident.rule == "job":
        return f"job {subject} runs on time and well", cause.removeprefix(f"{subject} ")
    if incident.rule == "stale":
        return f"a result {one_line(story.probe.cadence, NAME)}".rstrip(), cause
    if incident.rule == "unjudged":
        return "every run can be judged", cause
    return "a status of 2xx" if incident.reason == "http.status" else "every run passes", cause


def _resolved(story: Story, cause: str) -> tuple[Line, ...]:
    incident, latest = story.incident, story.latest
    end = incident.resolved_at or story.now
    bad = f" · {count(story.streak, 'bad result')}" if story.streak else ""
    lines = [
        Line("Was", f"{cause}{bad}"),
        Line("Time", f"{moment(incident.since, story.now)} to {moment(end, story.now)} UTC"),
    ]
    for one in sorted(story.tried, key=lambda one: (one.state != "held", one.at))[-1:]:
        word, said = remedied(one, story.now)
        lines.append(Line("Remedy", one_line(f"{word} {moment(one.at, story.now)}: {said}", CAUSE)))
    healed = incident.resolution not in _CLOSED
    if healed and latest is not None and latest.outcome is Outcome.PASS and latest.duration is not None:
        lines.append(Line("Now", f"good again · {span(latest.duration)}"))
    return (*lines, *_history(story))


def _history(story: Story) -> tuple[Line, ...]:
    if not story.recent:
        return ()
    return (Line(f"Last {len(story.recent)}", one_line(story.probe.cadence, NAME), sparkline(story.recent)),)


def _note(story: Story) -> str:
    if story.test:
        return "This is a test, sent by hand. Nothing is wrong."
    if story.merged:
        return "It opened and resolved before this could be delivered: one message tells both."
    return ""


def _evidence(story: Story) -> str:
    """Of the newest bad result, else of the first."""
    latest = story.latest if story.event is Event.OPENED else None
    if latest is not None and latest.outcome is Outcome.PASS and story.incident.rule == "availability":
        latest = None
    subject = story.incident.subject
    return next((told for sample in (latest, story.first_bad) if (told := _told(sample, subject))), "")


def _told(sample: Sample | None, subject: str) -> str:
    """Expectations are left out: the rule's line tells them. Of tasks and jobs, the one it is about stands for all."""
    if sample is None:
        return ""
    told = {key: value for key, value in sample.evidence.facts.items() if key != "expect" and value not in (None, "")}
    for one, all_ in (("task", "tasks"), ("job", "jobs")):
        listed = told.get(all_)
        about = listed.get(subject) if isinstance(listed, dict) else None
        if isinstance(about, dict):
            rest = {key: value for key, value in told.items() if key != all_}
            told = {one: subject} | {key: value for key, value in about.items() if key != "name"} | rest
    facts = [f"{key}: {_value(value)}" for key, value in told.items()]
    text = harmless("\n".join([*facts, sample.evidence.excerpt])).strip()
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT - 1]}…"


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
