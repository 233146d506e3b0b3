"""The cards on the page of a probe: those that its kind names. Each module beside this one has a `PROBE_PAGE_CARD`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module

from watchdog.probes import PROBE_KINDS, Probe
from watchdog.web.cards.base import LoadedProbeCard, ProbeCardLoadContext, ProbePageCardType


def _import_modules_and_list_card_types(names: Iterable[str]) -> tuple[ProbePageCardType, ...]:
    return tuple(import_module(f"watchdog.web.cards.{name}").PROBE_PAGE_CARD for name in names)


DEFAULT_PROBE_PAGE_CARD_TYPES = _import_modules_and_list_card_types(Probe.cards)
CARDS_BY_PROBE_KIND: Mapping[str, tuple[ProbePageCardType, ...]] = {
    kind: _import_modules_and_list_card_types(probe.cards) for kind, probe in PROBE_KINDS.items()
}


def find_card_types_of_probe_kind(kind: str) -> tuple[ProbePageCardType, ...]:
    """A kind of another version has the default cards."""
    return CARDS_BY_PROBE_KIND.get(kind, DEFAULT_PROBE_PAGE_CARD_TYPES)


def load_probe_page_cards(context: ProbeCardLoadContext) -> tuple[LoadedProbeCard, ...]:
    """The cards of a probe that have something to show, in the order of the page."""
    loaded = (
        (card_type, card_type.load(context)) for card_type in find_card_types_of_probe_kind(context.status.probe.kind)
    )
    return tuple(LoadedProbeCard(card_type.template, card) for card_type, card in loaded if card is not None)


def find_probe_page_jobs_section_id(kind: str) -> str:
    """The id of the section that lists the jobs of a probe of this kind; empty: its page lists none."""
    return next(
        (card_type.jobs_section_id for card_type in find_card_types_of_probe_kind(kind) if card_type.jobs_section_id),
        "",
    )
