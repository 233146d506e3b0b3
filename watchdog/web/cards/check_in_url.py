"""Where the job of a heartbeat checks in, with commands to copy; for readers without its token."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.service.check_in_addresses import CheckInAddress
from watchdog.store.read.history import list_newest_check_ins_of_probe
from watchdog.web.cards.base import ProbeCardLoadContext, ProbePageCardType
from watchdog.web.check_in_snippets import CheckInSnippet, list_check_in_snippets


@dataclass(frozen=True, slots=True)
class CheckInUrlCard:
    address: CheckInAddress
    snippets: tuple[CheckInSnippet, ...]
    has_check_ins: bool
    """The job has checked in before: the snippets are folded."""


def load_check_in_url_card(context: ProbeCardLoadContext) -> CheckInUrlCard | None:
    """None: only another process knows the token."""
    address = context.check_in_address
    if address is None:
        return None
    return CheckInUrlCard(
        address,
        tuple(list_check_in_snippets(address, context.status.probe.id)),
        bool(list_newest_check_ins_of_probe(context.connection, context.probe_database_id, limit=1)),
    )


PROBE_PAGE_CARD = ProbePageCardType("cards/check_in_url.j2", load_check_in_url_card)
