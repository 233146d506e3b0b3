"""What is wrong with a page's HTML, as far as a parser of tags can tell."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"})
INLINE_ONLY = frozenset({"p", "h1", "h2", "h3", "span", "b", "small", "code"})
BLOCKS = frozenset({"div", "section", "ul", "ol", "dl", "table", "pre", "form", "p", "h1", "h2", "h3"})
REFERENCES = ("aria-labelledby", "aria-describedby", "for")


class Checker(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.problems: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.wanted: list[str] = []
        self.foreign = 0
        """How deep in SVG, whose elements may close themselves."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes(tag, attrs)
        if self.open and self.open[-1] in INLINE_ONLY and tag in BLOCKS:
            self.problems.append(f"<{tag}> inside <{self.open[-1]}> at {self.getpos()}")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes(tag, attrs)
        if "svg" not in self.open and tag != "svg":
            self.problems.append(f"<{tag}/> outside of SVG at {self.getpos()}")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing at {self.getpos()}")

    def _attributes(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        for name, value in attrs:
            if name == "style" or name.startswith("on") or tag == "script":
                self.problems.append(f"{name} on <{tag}> at {self.getpos()}")
            if name == "id":
                self.ids.append(value or "")
            if name in REFERENCES:
                self.wanted += (value or "").split()
            if name == "href" and not re.match(r"/|\?|#|https?://", value or ""):
                self.problems.append(f"href={value!r} at {self.getpos()}")
        if len(names) != len(set(names)):
            self.problems.append(f"an attribute twice on <{tag}> at {self.getpos()}")


def problems(html: str) -> list[str]:
    """Empty for a page in order: balanced, unique ids, references that lead somewhere, nothing that CSP forbids."""
    checker = Checker()
    checker.feed(html)
    checker.close()
    found = [*checker.problems, *(f"<{tag}> is never closed" for tag in checker.open)]
    found += [f"id {name!r} twice" for name in set(checker.ids) if checker.ids.count(name) > 1]
    return found + [f"nothing has id {name!r}" for name in checker.wanted if name not in checker.ids]


def text(html: str) -> str:
    """What a person reads, in one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).replace("\u00a0", " ").split())
