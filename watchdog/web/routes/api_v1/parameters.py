"""The parameters and fields that operations share. An unknown one is an error: a misspelt filter would show
everything."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictInt,
    WithJsonSchema,
    model_validator,
)

from watchdog.domain.acts import MAX_ACT_COMMENT_CHARS, MAX_ACTOR_NAME_CHARS
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.model import Json, Severity
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.silencing import MAX_SILENCE_DURATION_MS, MAX_SILENCE_SUBJECT_PATTERN_CHARS, MAX_SILENCE_TAGS
from watchdog.domain.timestamps import MAX_EPOCH_MS, parse_iso8601
from watchdog.web.routes.api_v1.cursors import MAX_CURSOR_CHARS

MAX_FILTER_CHARS = 200
FilterText = Annotated[str, Field(max_length=MAX_FILTER_CHARS)]
MatchText = Annotated[str, Field(max_length=MAX_SILENCE_SUBJECT_PATTERN_CHARS)]
ActorName = Annotated[str, Field(max_length=MAX_ACTOR_NAME_CHARS)]
_RFC3339_PATTERN = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_rfc3339(value: object) -> int:
    """Epoch ms, within the years that have results: an offset may lead out of those that a text can state. Raises
    ValueError."""
    is_instant = isinstance(value, str) and _RFC3339_PATTERN.fullmatch(value)
    at = parse_iso8601(str(value).upper()) if is_instant else None
    if at is None:
        raise ValueError("expected an instant such as 2026-11-22T01:48:00Z; write + as %2B in a URL")
    return min(max(at, 0), MAX_EPOCH_MS)


Instant = Annotated[
    int,
    BeforeValidator(parse_rfc3339),
    PlainSerializer(format_iso8601),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-22T01:48:00Z"]}),
]
"""An instant as RFC 3339 text, in epoch ms."""


class NoQueryParameters(BaseModel):
    """The query of a single resource."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ListPageParameters(NoQueryParameters):
    """The query of a list: which page, and in subclasses which filters."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    """How many entries a page has at most."""
    cursor: Annotated[str, Field(max_length=MAX_CURSOR_CHARS)] = ""
    """Where the page begins: from `next` of the page before. Empty: the first page."""

    @property
    def filters(self) -> dict[str, Json]:
        """The filters that are given, as in the query."""
        return self.model_dump(mode="json", by_alias=True, exclude={"limit", "cursor"}, exclude_defaults=True)


class ActOnBehalfOfParameters(NoQueryParameters):
    """The query of an act without a body."""

    on_behalf_of: ActorName = ""
    """The person who acts through a program. The key acts as well: "ops for Ana"."""


class ActBody(NoQueryParameters):
    """What every act may state."""

    comment: Annotated[str, Field(max_length=MAX_ACT_COMMENT_CHARS)] = ""
    """Reason, shown to others on call."""
    on_behalf_of: ActorName = ""
    """The person who acts through a program. The key acts as well: "ops for Ana"."""


NO_COMMENT = ActBody()


class TimedActBody(ActBody):
    """An act that lasts for a time. Give either `until` (when it ends) or `duration_ms` (how long)."""

    until: Instant | None = None
    duration_ms: Annotated[StrictInt, Field(ge=1, le=MAX_SILENCE_DURATION_MS)] | None = None

    @model_validator(mode="after")
    def _require_one_end(self) -> Self:
        if (self.until is None) == (self.duration_ms is None):
            raise ValueError("give either until (when it ends) or duration_ms (how long)")
        return self

    def compute_end(self, now: int) -> int:
        """Epoch ms."""
        return now + (self.duration_ms or 0) if self.until is None else self.until


class ProbeMatchBody(NoQueryParameters):
    """Which probes are selected. A probe must match every field that is given."""

    id: MatchText | None = None
    """The id or name of a probe."""
    group: MatchText | None = None
    tags: Annotated[list[MatchText], Field(max_length=MAX_SILENCE_TAGS, default_factory=list)]
    """A probe must have all of them."""
    kind: MatchText | None = None
    severity: Severity | None = None

    def to_probe_matcher(self) -> ProbeMatcher:
        return ProbeMatcher(self.severity, frozenset(self.tags), self.group or "", self.kind or "", self.id or "")
