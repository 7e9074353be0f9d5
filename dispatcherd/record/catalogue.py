"""The dictionary of event types: a number for each name, so that rows stay small.

Invariant: a type has its number before an event of it is taken in; past the cap no new one gets
any. Leaves out: schemas and documentation of types.
"""

from __future__ import annotations

from collections.abc import Iterable

from dispatcherd.record.connection import Connection, Database


class Catalogue:
    """Names and numbers of the event types ever seen."""

    def __init__(self, database: Database, max_types: int) -> None:
        self._database = database
        self._max_types = max_types
        self.ids: dict[str, int] = {}

    async def load(self, connection: Connection) -> None:
        """Read what is known."""
        for row in await connection.fetch("SELECT id, name FROM event_types"):
            self.ids[row["name"]] = row["id"]

    async def learn(self, names: Iterable[str]) -> None:
        """Give each name a number, as far as the cap allows; raises StoreUnavailable.

        A name that is still not in `ids` afterwards is over the cap.
        """
        new = sorted(set(names) - self.ids.keys())[: max(0, self._max_types - len(self.ids))]
        if not new:
            return
        async with self._database.session() as connection:
            await connection.execute(
                "INSERT INTO event_types (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING",
                new,
            )
            rows = await connection.fetch(
                "SELECT id, name FROM event_types WHERE name = ANY($1::text[])", new
            )
        for row in rows:
            self.ids[row["name"]] = row["id"]
