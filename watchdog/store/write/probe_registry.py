"""The probes that this process knows, and which of them it may run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from watchdog.domain.registered_probe import RegisteredProbe


def index_probes_by_id(registered_probes: Iterable[RegisteredProbe]) -> dict[str, RegisteredProbe]:
    return {registered.info.id: registered for registered in registered_probes}


class InMemoryProbeRegistry(dict[int, RegisteredProbe]):
    """Database id -> probe, for every probe that is not retired, as the member that decides about it has it.

    Every member can therefore evaluate the deadlines of every probe. It claims slots of those alone that its own
    configuration defines as the database does.
    """

    def __init__(self, configured_probes: Iterable[RegisteredProbe] = ()):
        self.configured: Mapping[str, RegisteredProbe] = index_probes_by_id(configured_probes)
        """The probes of this process's configuration, by probe id. A reload replaces them."""
        self.not_claimed: set[int] = set()
        """Probes that this process may not run, so that claims can exclude them: otherwise they would fill every
        batch."""
        self.paused: set[int] = set()
        """Probes that were paused at the last claim: they do not run while the store is away, either."""
        self.unknown: set[int] = set()
        """Probes that another member has added since the last update."""

    def replace_probes(self, probes: Mapping[int, RegisteredProbe]) -> None:
        """Replace all probes by those in the database. Those that stay can be read in between by another thread."""
        self.update(probes)
        for id in self.keys() - probes.keys():
            del self[id]
        self.not_claimed.clear()
        self.unknown.clear()

    @property
    def configured_probes_by_database_id(self) -> dict[int, RegisteredProbe]:
        """The probes of this process's configuration, by database id."""
        return {id: self.configured[probe.info.id] for id, probe in self.items() if probe.info.id in self.configured}

    def is_run_by_this_process(self, probe: int) -> bool:
        """Whether this process runs the probe: no member defines it otherwise and decides about it."""
        registered = self.get(probe)
        own = None if registered is None else self.configured.get(registered.info.id)
        return own is not None and registered is not None and own.definition == registered.definition

    def may_claim_probe_else_exclude(self, probe: int, definition: str) -> bool:
        """Whether this process may run the probe, which has this definition at present. If not, this is remembered."""
        registered = self.get(probe)
        own = None if registered is None else self.configured.get(registered.info.id)
        if own is not None and own.definition == definition:
            return True
        self.not_claimed.add(probe)
        return False

    def filter_known_probes_and_note_unknown(self, ids: Iterable[int]) -> set[int]:
        """The ids that are registered. The others are remembered, so that queries can exclude them."""
        unique = set(ids)
        self.unknown |= unique - self.keys()
        return unique & self.keys()
