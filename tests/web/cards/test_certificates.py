"""The card of the certificates that a server sends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, NBSP, format_iso8601
from watchdog.domain.model import Evidence, Outcome

SESSION = {"tls_version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384"}


def certificate(subject: str, issuer: str, days: float, *names: str) -> dict[str, Any]:
    dates = {"valid_from": format_iso8601(NOW - DAY_MS), "expires_at": format_iso8601(NOW + round(days * DAY_MS))}
    return {"subject": subject, "issuer": issuer, **({"names": list(names)} if names else {}), **dates}


CHAIN = [
    certificate("CN=acme.example", "CN=R11", 9.5, "acme.example", "*.acme.example"),
    certificate("CN=R11", "CN=ISRG Root X1", 500.5),
]


def page_of(tmp_path: Path, rows: FixtureRows) -> str:
    with filled_database(f"sqlite:///{tmp_path}/c.db", rows) as database:
        response: Any = request_page(create_test_app(database), "/probes/certificate")
    assert find_html_problems(response.text) == []
    return str(response.text)


def rows_with(
    *runs: tuple[int, Outcome, dict[str, Any] | None], preferences: dict[str, str] | None = None
) -> FixtureRows:
    """A probe of a certificate, and its runs: how long ago, the outcome, and the facts if they are stored."""
    rows = FixtureRows()
    rows.add_watermark(NOW)
    id = rows.add_probe("Certificate", "tls", target="tls://acme.example:443")
    for ago, outcome, facts in runs:
        is_good = outcome is Outcome.PASS
        rows.add_result(
            id,
            NOW - ago,
            outcome,
            *(() if is_good else ("TLS: certificate expired", "tls.expired")),
            evidence=None if facts is None else Evidence(facts),
            preferences=preferences if is_good else None,
        )
    return rows


@pytest.mark.parametrize(
    ("preferences", "footer", "has_limit"),
    [
        (None, "", False),
        ({"cert_days >= 14": "certificate expires in 9 days"}, "less than 14 days", True),
        ({"cert_days >= 7": "", "cert_days >= 10": "x", "elapsed_ms < 1": ""}, "less than 10 days", True),
        ({"cert_days >= 1": ""}, "less than 1 day.", False),
    ],
)
def test_each_certificate_is_shown_with_the_days_that_are_left(
    tmp_path: Path, preferences: dict[str, str] | None, footer: str, has_limit: bool
) -> None:
    facts = {**SESSION, "certificates": CHAIN}
    page = page_of(tmp_path, rows_with((MINUTE_MS, Outcome.PASS, facts), preferences=preferences))
    text = visible_text(page).replace(NBSP, " ")
    assert "TLSv1.3, TLS_AES_256_GCM_SHA384 · read 1 min ago" in text
    assert "CN=acme.example acme.example, *.acme.example CN=R11 1 Dec 14:29 9" in text
    assert "CN=R11 \N{EN DASH} CN=ISRG Root X1" in text
    assert footer in text
    assert ("Degraded if a certificate" in text) is bool(footer)
    assert ('class="open is-degraded"' in page) is has_limit


def test_a_run_that_failed_shows_the_certificate_that_it_refused(tmp_path: Path) -> None:
    expired = {"certificates": [certificate("CN=acme.example", "CN=R11", -2.5)]}
    good = {**SESSION, "certificates": CHAIN}
    page = page_of(tmp_path, rows_with((2 * HOUR_MS, Outcome.PASS, good), (MINUTE_MS, Outcome.FAIL, expired)))
    text = visible_text(page).replace(NBSP, " ")
    assert "Certificates read 1 min ago" in text
    assert "CN=R11 19 Nov 14:29 -3" in text
    assert 'class="open is-down"' in page


def test_a_run_without_certificate_shows_the_last_one_that_was_read(tmp_path: Path) -> None:
    runs = ((3 * HOUR_MS, Outcome.PASS, {**SESSION, "certificates": CHAIN}), (HOUR_MS, Outcome.PASS, None))
    refused = (MINUTE_MS, Outcome.FAIL, {"address": "192.0.2.1:443"})
    text = visible_text(page_of(tmp_path, rows_with(*runs, refused)))
    assert "TLS_AES_256_GCM_SHA384 · read 3 h ago" in text.replace(NBSP, " ")


@pytest.mark.parametrize(
    ("cert_days", "note"),
    [(89, "The newest run received other certificates: the first of them expires in 89 days."), (9, ""), (None, "")],
)
def test_certificates_that_were_replaced_meanwhile_are_no_longer_the_newest(
    tmp_path: Path, cert_days: int | None, note: str
) -> None:
    """Only some of the runs that pass store their certificates."""
    rows = rows_with((40 * MINUTE_MS, Outcome.PASS, {**SESSION, "certificates": CHAIN}))
    measurements = {} if cert_days is None else {"cert_days": cert_days}
    rows.add_result(rows.rows["probes"][-1]["id"], NOW - MINUTE_MS, measurements=measurements)
    text = visible_text(page_of(tmp_path, rows)).replace(NBSP, " ")
    assert "read 40 min ago" in text
    assert ("The newest run received" in text, note in text) == (bool(note), True)


def test_a_run_during_which_a_day_ends_has_received_the_same_certificates(tmp_path: Path) -> None:
    ends_during_run = certificate("CN=acme.example", "CN=R11", 7 - MINUTE_MS / DAY_MS + 50 / DAY_MS)
    rows = rows_with((40 * MINUTE_MS, Outcome.PASS, {"certificates": [ends_during_run]}))
    rows.add_result(rows.rows["probes"][-1]["id"], NOW - MINUTE_MS, measurements={"cert_days": 6})
    assert "The newest run received" not in visible_text(page_of(tmp_path, rows))


@pytest.mark.parametrize("certificates", [None, "cut", [], ["cut"], [{"subject": "CN=a"}], [{"expires_at": "soon"}]])
def test_without_a_certificate_there_is_no_card(tmp_path: Path, certificates: Any) -> None:
    facts = {} if certificates is None else {"certificates": certificates}
    page = page_of(tmp_path, rows_with((MINUTE_MS, Outcome.PASS, facts)))
    assert 'id="certificates"' not in page
