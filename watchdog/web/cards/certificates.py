"""The certificates that a server sends, with names, issuers and expiry."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from watchdog.domain.formatting import DAY_MS
from watchdog.domain.model import HealthState, Json
from watchdog.domain.rules import preference
from watchdog.domain.timestamps import parse_iso8601
from watchdog.store.read import history
from watchdog.store.read.history import StoredResultWithEvidence
from watchdog.web.cards.base import ProbeCardLoadContext, ProbePageCardType

CERTIFICATE_LIMIT_EXPRESSION_PATTERN = re.compile(r"\s*cert_days\s*>=\s*(\d+)\s*")
_EVIDENCE_KEY = "certificates"


@dataclass(frozen=True, slots=True)
class CertificatesCardRow:
    """One certificate."""

    subject: str
    issuer: str
    names: str
    expires_at: int
    days: int
    """Whole days until it expires, as of now; negative once it has expired."""
    state: HealthState


@dataclass(frozen=True, slots=True)
class CertificatesCard:
    read_at: int
    connection_text: str
    """ "TLSv1.3, TLS_AES_256_GCM_SHA384"; empty if the handshake failed."""
    min_days: int | None
    """The limit of the probe for the days."""
    rows: tuple[CertificatesCardRow, ...]
    """The server's own first."""
    newer_days: int | None = None
    """The days that are left of the certificates that the newest run received, if those are others. Only some of the
    runs that pass store their certificates."""


def load_certificates_card(context: ProbeCardLoadContext) -> CertificatesCard | None:
    """None: no stored run has read a certificate."""
    latest = context.status.last_judged_slot
    details = _load_newest_results(context)
    detail = next((each for each in details if _has_certificates(each)), None)
    if detail is None or detail.evidence is None:
        return None
    facts, min_days = detail.evidence.facts, find_certificate_limit_in_preferences(detail)
    rows = tuple(_build_certificate_rows(facts[_EVIDENCE_KEY], context.now, min_days))
    if not rows:
        return None
    connection = ", ".join(str(facts[name]) for name in ("tls_version", "cipher") if facts.get(name))
    newer_days = _find_days_of_other_certificates(details[0], rows) if details[0].result.slot == latest else None
    return CertificatesCard(detail.result.slot, connection, min_days, rows, newer_days)


def _load_newest_results(context: ProbeCardLoadContext) -> list[StoredResultWithEvidence]:
    """Of the newest run, and of the newest one that passed and whose evidence is stored."""
    latest, probe = context.status.last_judged_slot, context.probe_database_id
    end = context.now if latest is None else latest + 1
    passed = history.load_last_good_slot_that_has_evidence(context.connection, probe, end)
    slots = [slot for slot in dict.fromkeys((latest, passed)) if slot is not None]
    details = history.load_results_with_evidence(context.connection, probe, slots)
    return [details[slot] for slot in slots if slot in details]


def _find_days_of_other_certificates(
    newest: StoredResultWithEvidence, rows: Sequence[CertificatesCardRow]
) -> int | None:
    """None: the newest run received these, as far as its days show, or none."""
    days = newest.result.measurements.get("cert_days")
    expires_at = min(row.expires_at for row in rows)
    latest_days, earliest_days = ((expires_at - at) // DAY_MS for at in (newest.result.slot, newest.recorded_at))
    return days if isinstance(days, int) and not earliest_days <= days <= latest_days else None


def _has_certificates(detail: StoredResultWithEvidence) -> bool:
    return detail.evidence is not None and isinstance(detail.evidence.facts.get(_EVIDENCE_KEY), list)


def find_certificate_limit_in_preferences(detail: StoredResultWithEvidence) -> int | None:
    """The limit that `min_days` or a preference such as `cert_days >= 14` sets."""
    listing = detail.result.listings.get(preference.ALERT_RULE_NAME)
    subjects = listing.subjects if listing else ()
    matches = [CERTIFICATE_LIMIT_EXPRESSION_PATTERN.fullmatch(expression) for expression in subjects]
    return max((int(match[1]) for match in matches if match), default=None)


def _build_certificate_rows(certificates: Json, now: int, min_days: int | None) -> Iterator[CertificatesCardRow]:
    for certificate in certificates:
        expires_at = parse_iso8601(certificate.get("expires_at")) if isinstance(certificate, dict) else None
        if expires_at is None:  # evidence that was cut
            continue
        days = (expires_at - now) // DAY_MS
        is_soon = days < (min_days or 0)
        yield CertificatesCardRow(
            subject=certificate.get("subject", ""),
            issuer=certificate.get("issuer", ""),
            names=", ".join(certificate.get("names", ())),
            expires_at=expires_at,
            days=days,
            state=HealthState.DOWN if days < 0 else HealthState.DEGRADED if is_soon else HealthState.UP,
        )


PROBE_PAGE_CARD = ProbePageCardType("cards/certificates.j2", load_certificates_card)
