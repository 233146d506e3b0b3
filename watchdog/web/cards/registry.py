"""Which cards the page of a probe has, by the probe's kind. A kind that is not listed has the default cards."""

from __future__ import annotations

from collections.abc import Mapping

from watchdog.web.cards.base import CardContext, CardType, LoadedCard
from watchdog.web.cards.canary import CANARY_CARD
from watchdog.web.cards.check_ins import CHECK_INS_CARD
from watchdog.web.cards.jobs import JOBS_CARD
from watchdog.web.cards.latency import LATENCY_CARD
from watchdog.web.cards.phases import PHASES_CARD
from watchdog.web.cards.queue import QUEUE_CARD
from watchdog.web.cards.tasks import TASKS_CARD

DEFAULT_CARDS = (LATENCY_CARD, PHASES_CARD)
CARDS_BY_KIND: Mapping[str, tuple[CardType, ...]] = {
    "canary": (CANARY_CARD, PHASES_CARD),
    "heartbeat": (CHECK_INS_CARD, PHASES_CARD),
    "jobs": (LATENCY_CARD, PHASES_CARD, JOBS_CARD),
    "mcp": (LATENCY_CARD, PHASES_CARD, TASKS_CARD),
    "queue": (QUEUE_CARD, LATENCY_CARD, PHASES_CARD),
}


def cards_of_kind(kind: str) -> tuple[CardType, ...]:
    return CARDS_BY_KIND.get(kind, DEFAULT_CARDS)


def load_cards(context: CardContext) -> tuple[LoadedCard, ...]:
    """The cards of a probe that have something to show, in the order of the page."""
    loaded = ((card_type, card_type.load(context)) for card_type in cards_of_kind(context.status.probe.kind))
    return tuple(LoadedCard(card_type.template, card) for card_type, card in loaded if card is not None)


def jobs_section_id(kind: str) -> str:
    """The id of the section that lists the jobs of a probe of this kind; empty: its page lists none."""
    return next((card_type.jobs_section_id for card_type in cards_of_kind(kind) if card_type.jobs_section_id), "")
