"""The cards on the page of a probe: those that its kind names. Each is a module beside this one, with a `CARD`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module

from watchdog.probes import PROBE_KINDS, Probe
from watchdog.web.cards.base import CardContext, CardType, LoadedCard


def _find_card_types(names: Iterable[str]) -> tuple[CardType, ...]:
    return tuple(import_module(f"watchdog.web.cards.{name}").CARD for name in names)


DEFAULT_CARDS = _find_card_types(Probe.cards)
CARDS_BY_KIND: Mapping[str, tuple[CardType, ...]] = {
    kind: _find_card_types(probe.cards) for kind, probe in PROBE_KINDS.items()
}


def cards_of_kind(kind: str) -> tuple[CardType, ...]:
    """A kind of another version has the default cards."""
    return CARDS_BY_KIND.get(kind, DEFAULT_CARDS)


def load_cards(context: CardContext) -> tuple[LoadedCard, ...]:
    """The cards of a probe that have something to show, in the order of the page."""
    loaded = ((card_type, card_type.load(context)) for card_type in cards_of_kind(context.status.probe.kind))
    return tuple(LoadedCard(card_type.template, card) for card_type, card in loaded if card is not None)


def jobs_section_id(kind: str) -> str:
    """The id of the section that lists the jobs of a probe of this kind; empty: its page lists none."""
    return next((card_type.jobs_section_id for card_type in cards_of_kind(kind) if card_type.jobs_section_id), "")
