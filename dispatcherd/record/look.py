"""What an operator asks of the database: what is owed, to whom, why; and requests to change it.

Invariant: reading changes nothing, and a request is written to columns of its own, for the
partition's owner to take up. Leaves out: carrying requests out (owed), printing (cli).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dispatcherd.delivery import Reason, Request
from dispatcherd.record.connection import Connection
from dispatcherd.record.registry import CHANNEL

STATES = {"owed": 1, "dead": 2}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which deliveries: every condition that is given must hold."""

    endpoint: str | None = None
    state: str = "all"
    event_type: str | None = None
    webhook_id: str | None = None

    def where(self) -> tuple[str, list[Any]]:
        """SQL over d (deliveries), b (bodies), e (endpoints), t (event_types)."""
        parts, values = ["true"], []
        for column, value in (
            ("e.name", self.endpoint),
            ("d.state", STATES.get(self.state)),
            ("t.name", self.event_type),
            ("b.webhook_id", self.webhook_id),
        ):
            if value is not None:
                values.append(value)
                parts.append(f"{column} = ${len(values)}")
                if column == "b.webhook_id":  # the index is over the hash
                    parts.append(
                        f"hashtextextended({column}, 0) = hashtextextended(${len(values)}, 0)"
                    )
        return " AND ".join(parts), values


_FROM = (
    'FROM deliveries d JOIN bodies b USING (topic_id, partition, "offset") '
    "JOIN endpoints e ON e.id = d.endpoint_id JOIN event_types t ON t.id = b.type_id "
    "JOIN topics p ON p.id = d.topic_id"
)


async def deliveries(connection: Connection, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
    """The deliveries that match, soonest due first."""
    where, values = wanted.where()
    rows = await connection.fetch(
        "SELECT b.webhook_id AS id, e.name AS endpoint, t.name AS type, "
        "CASE d.state WHEN 1 THEN 'owed' ELSE 'dead' END AS state, d.reason, d.status, "
        "d.attempts, d.due, d.since, d.changed_at, p.name AS topic, d.partition, "
        f'd."offset", d.request {_FROM} WHERE {where} '
        f"ORDER BY d.state, d.due LIMIT {int(limit)}",
        *values,
    )
    found = []
    for row in rows:
        entry = dict(row)
        entry["reason"] = Reason(row["reason"]).word
        entry["request"] = Request(row["request"]).name.lower() if row["request"] else None
        found.append(entry)
    return found


async def totals(connection: Connection, wanted: Wanted) -> dict[str, int]:
    """How many match, by state."""
    where, values = wanted.where()
    rows = await connection.fetch(
        f"SELECT d.state, count(*) AS n {_FROM} WHERE {where} GROUP BY 1", *values
    )
    by_number = {row["state"]: row["n"] for row in rows}
    return {name: by_number.get(number, 0) for name, number in STATES.items()}


@dataclass(frozen=True, slots=True)
class Asked:
    """How many deliveries something was asked for, and how many were left alone because their
    endpoint is removed: there is nowhere to send them."""

    count: int
    removed: int


async def ask(connection: Connection, wanted: Wanted, request: Request) -> Asked:
    """Ask the owners to retry (now) or discard what matches."""
    where, values = wanted.where()
    removed = 0
    if request is Request.RETRY:
        removed = await connection.fetchval(
            f"SELECT count(*) {_FROM} WHERE {where} AND e.removed_at IS NOT NULL", *values
        )
        where += " AND e.removed_at IS NULL"
    # Locked in the order of keys, as the flush does: neither can wait for the other in a ring.
    tag = await connection.execute(
        'WITH k AS (SELECT d.topic_id, d.partition, d."offset", d.endpoint_id '
        f"{_FROM} WHERE {where} ORDER BY 1, 2, 3, 4 FOR UPDATE OF d) "
        f"UPDATE deliveries d SET request = {int(request)}, "
        "request_no = nextval('request_numbers') FROM k "
        'WHERE (d.topic_id, d.partition, d."offset", d.endpoint_id) = '
        '(k.topic_id, k.partition, k."offset", k.endpoint_id)',
        *values,
    )
    await connection.execute("SELECT pg_notify($1, 'requests')", CHANNEL)
    return Asked(int(tag.split()[-1]), int(removed))


async def known_endpoint(connection: Connection, name: str) -> bool:
    """Whether an endpoint of that name is registered, or was: its dead letters may remain."""
    return bool(
        await connection.fetchval("SELECT EXISTS (SELECT FROM endpoints WHERE name = $1)", name)
    )


async def endpoints(connection: Connection) -> list[dict[str, Any]]:
    """Live endpoints with what is owed to and dead at each."""
    rows = await connection.fetch(
        "SELECT e.name AS endpoint, e.spec->>'url' AS url, e.revision, e.changed_at, "
        "coalesce(o.owed, 0) AS owed, coalesce(o.dead, 0) AS dead, o.oldest FROM endpoints e "
        "LEFT JOIN (SELECT endpoint_id, count(*) FILTER (WHERE state = 1) AS owed, "
        "count(*) FILTER (WHERE state = 2) AS dead, min(since) FILTER (WHERE state = 1) AS oldest "
        "FROM deliveries GROUP BY 1) o ON o.endpoint_id = e.id "
        "WHERE e.removed_at IS NULL ORDER BY e.name"
    )
    return [dict(row) for row in rows]


async def running(connection: Connection) -> int:
    """How many processes have shown a sign of life lately."""
    return int(
        await connection.fetchval(
            "SELECT count(*) FROM instances WHERE stopped_at IS NULL "
            "AND heartbeat_at > now() - interval '1 minute'"
        )
    )
