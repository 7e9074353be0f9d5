"""Who may use this database: one consumer group on one Kafka cluster, and each process start.

Invariant: two groups or two clusters on one database are refused, because each would settle the
other's offsets. Leaves out: partitions (claims).
"""

from __future__ import annotations

import os
import socket

from dispatcherd import __version__
from dispatcherd.errors import StoreError
from dispatcherd.record.connection import Connection


async def register(connection: Connection, group_id: str, cluster_id: str) -> int:
    """Register this process start; returns its incarnation.

    Raises StoreError when the database serves another group or cluster.
    """
    await connection.execute(
        "INSERT INTO deployment (group_id, cluster_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        group_id,
        cluster_id,
    )
    row = await connection.fetchrow("SELECT group_id, cluster_id FROM deployment")
    for name, have, want in (
        ("kafka.group_id", row["group_id"], group_id),
        ("the Kafka cluster id", row["cluster_id"], cluster_id),
    ):
        if have != want:
            raise StoreError(
                f"this database serves {name} {have!r}, but this configuration has {want!r}: two "
                "groups or clusters on one database would settle each other's offsets. Use "
                "another database (or postgres.schema_name), or correct the configuration"
            )
    return int(
        await connection.fetchval(
            "INSERT INTO instances (host, pid, version) VALUES ($1, $2, $3) RETURNING incarnation",
            socket.gethostname(),
            os.getpid(),
            __version__,
        )
    )


async def heartbeat(connection: Connection, incarnation: int) -> None:
    """Note that this process lives, also while it has nothing to record."""
    await connection.execute(
        "UPDATE instances SET heartbeat_at = now() WHERE incarnation = $1", incarnation
    )


async def farewell(connection: Connection, incarnation: int) -> None:
    """Note that this process stopped in order."""
    await connection.execute(
        "UPDATE instances SET stopped_at = now() WHERE incarnation = $1", incarnation
    )
