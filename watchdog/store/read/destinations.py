"""How deliveries to destinations have gone lately."""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.domain.model import DestinationFacts
from watchdog.store.tables import failing_destinations


def load_failing_destinations(connection: sa.Connection) -> dict[str, DestinationFacts]:
    """The destinations that have confirmed nothing since a delivery failed, by name."""
    columns = [failing_destinations.c[name] for name in ("destination", *DestinationFacts._fields)]
    rows = connection.execute(sa.select(*columns).order_by(failing_destinations.c.destination))
    return {
        destination: DestinationFacts(failing_since, bool(given_up), error)
        for destination, failing_since, given_up, error in rows
    }
