"""The parameters that lists share. An unknown parameter is an error: a misspelt filter would show everything."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from watchdog.domain.model import Json
from watchdog.web.routes.api_v1.cursors import MAX_CURSOR_CHARS

MAX_FILTER_CHARS = 200
FilterText = Annotated[str, Field(max_length=MAX_FILTER_CHARS)]


class NoQueryParameters(BaseModel):
    """The query of a single resource."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class PageParameters(NoQueryParameters):
    """The query of a list: which page, and in subclasses which filters."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    """How many entries a page has at most."""
    cursor: Annotated[str, Field(max_length=MAX_CURSOR_CHARS)] = ""
    """Where the page begins: from `next` of the page before. Empty: the first page."""

    @property
    def filters(self) -> dict[str, Json]:
        """The filters that are given, as in the query."""
        return self.model_dump(mode="json", by_alias=True, exclude={"limit", "cursor"}, exclude_defaults=True)
