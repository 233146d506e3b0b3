"""Problems of a page's HTML that a tag parser can detect."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

VOID_ELEMENTS = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)
PHRASING_CONTENT_ELEMENTS = frozenset({"p", "h1", "h2", "h3", "span", "b", "small", "code"})
BLOCK_ELEMENTS = frozenset({"div", "section", "ul", "ol", "dl", "table", "pre", "form", "p", "h1", "h2", "h3"})
SCRIPT_URL_PATTERN = re.compile(r"/static/(live|times|chart|copy)\.")
ID_REFERENCE_ATTRIBUTES = ("aria-labelledby", "aria-describedby", "for")


class HtmlChecker(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.problems: list[str] = []
        self.open_tags: list[str] = []
        self.ids: list[str] = []
        self.referenced_ids: list[str] = []
        self.svg_depth = 0
        """Nesting depth in SVG, whose elements may be self-closing."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._check_attributes(tag, attrs)
        if self.open_tags and self.open_tags[-1] in PHRASING_CONTENT_ELEMENTS and tag in BLOCK_ELEMENTS:
            self.problems.append(f"<{tag}> inside <{self.open_tags[-1]}> at {self.getpos()}")
        if tag not in VOID_ELEMENTS:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._check_attributes(tag, attrs)
        if "svg" not in self.open_tags and tag != "svg":
            self.problems.append(f"<{tag}/> outside of SVG at {self.getpos()}")

    def handle_endtag(self, tag: str) -> None:
        if not self.open_tags or self.open_tags.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self.open_tags and self.open_tags[-1] == "script":
            self.problems.append(f"an inline script at {self.getpos()}")

    def _check_attributes(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if tag == "script" and not SCRIPT_URL_PATTERN.match(dict(attrs).get("src") or ""):
            self.problems.append(f"<script> at {self.getpos()}")
        for name, value in attrs:
            if name == "style" or name.startswith("on"):
                self.problems.append(f"{name} on <{tag}> at {self.getpos()}")
            if name == "id":
                self.ids.append(value or "")
            if name in ID_REFERENCE_ATTRIBUTES:
                self.referenced_ids += (value or "").split()
            if name == "href" and not re.match(r"/|\?|#|https?://", value or ""):
                self.problems.append(f"href={value!r} at {self.getpos()}")
        if len(names) != len(set(names)):
            self.problems.append(f"an attribute twice on <{tag}> at {self.getpos()}")


def find_html_problems(html: str) -> list[str]:
    """Unbalanced tags, duplicate ids, references to missing ids, and violations of the CSP."""
    checker = HtmlChecker()
    checker.feed(html)
    checker.close()
    problems = [*checker.problems, *(f"<{tag}> is never closed" for tag in checker.open_tags)]
    problems += [f"id {name!r} twice" for name in set(checker.ids) if checker.ids.count(name) > 1]
    return problems + [f"nothing has id {name!r}" for name in checker.referenced_ids if name not in checker.ids]


def visible_text(html: str) -> str:
    """The text of a page on one line."""
    html = re.sub(r"</?time\b[^>]*>", "", html)  # a time is a part of a sentence
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).replace("\u00a0", " ").split())
