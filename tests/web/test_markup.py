"""What rows show: text is never taken for HTML."""

from __future__ import annotations

from markupsafe import Markup

from tests.support.fixture_rows import NOW
from watchdog.web.markup import render_next_run, render_state_badge

HOSTILE = "<script>&\"'"
ESCAPED = "&lt;script&gt;&amp;&#34;&#39;"


def test_a_badge_has_the_name_of_the_state_or_a_label() -> None:
    assert render_state_badge("unknown").endswith("</svg>No data</span>")
    assert '<span class="state is-down"><svg class="g"' in render_state_badge("down", "Late", "late")
    assert render_state_badge("down", "Late", "late").endswith('<use href="#g-late"/></svg>Late</span>')


def test_a_label_is_escaped_even_if_the_same_text_was_rendered_as_html() -> None:
    assert HOSTILE in render_state_badge("up", Markup(HOSTILE))
    assert HOSTILE not in render_state_badge("up", HOSTILE)
    assert ESCAPED in render_state_badge("up", HOSTILE)


def test_the_texts_of_a_next_run_are_escaped() -> None:
    assert render_next_run(NOW, HOSTILE, HOSTILE) == (
        f'<time datetime="2026-11-22T02:29:14Z" data-age="next" data-run="{ESCAPED}">{ESCAPED}</time>'
    )
    assert render_next_run(NOW, "now") == '<time datetime="2026-11-22T02:29:14Z" data-age="next">now</time>'
