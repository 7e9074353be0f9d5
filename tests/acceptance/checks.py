"""What holds at the end of every acceptance test, asked of Kafka, Postgres, the receivers."""

from __future__ import annotations

from collections.abc import Iterable

from tests.rig.kafka import KafkaBroker
from tests.rig.postgres import Database
from tests.rig.receivers import Receivers
from tests.rig.waiting import wait_for


def watermarks(database: Database, topic: str) -> dict[int, int]:
    """Partition → watermark, as Postgres has it."""
    rows = database.fetch(
        "SELECT p.partition, p.watermark FROM progress p JOIN topics t ON t.id = p.topic_id "
        "WHERE t.name = $1 AND p.watermark IS NOT NULL",
        topic,
    )
    return {row["partition"]: row["watermark"] for row in rows}


def wait_settled(
    kafka: KafkaBroker, database: Database, topic: str, timeout_seconds: float = 90
) -> None:
    """Until every partition's watermark is at its end."""
    ends = kafka.end_offsets(topic)
    seen: dict[int, int] = {}

    def settled() -> bool:
        seen.clear()
        seen.update(watermarks(database, topic))
        return seen == ends

    try:
        wait_for(settled, timeout_seconds, f"watermarks at the ends of {topic}")
    except AssertionError as error:
        raise AssertionError(f"watermarks {seen}, ends {ends}") from error


def wait_committed(kafka: KafkaBroker, database: Database, topic: str, group: str) -> None:
    """Until Kafka's group offsets are those of `progress`."""
    seen: list[object] = [None]

    def equal() -> bool:
        seen[0] = (kafka.committed(group, topic), watermarks(database, topic))
        return bool(seen[0][0] == seen[0][1])  # type: ignore[index]

    wait_for(equal, 30, f"group offsets equal to progress ({seen[0]})")


def assert_exchanges_match(database: Database, receivers: Receivers) -> None:
    """Distinct exchanges that were sent are as many as the requests that the receivers saw."""
    rows = database.fetch(
        "SELECT e.name, count(DISTINCT a.exchange_id) AS n FROM attempts a "
        "JOIN endpoints e ON e.id = a.endpoint_id WHERE a.sent GROUP BY 1"
    )
    recorded = {row["name"]: row["n"] for row in rows}
    seen = {name: counts[0] for name, counts in receivers.summary().items() if counts[0]}
    assert recorded == seen


def assert_recorded_once(database: Database) -> None:
    """No exchange stands twice for one delivery."""
    twice = database.fetch(
        'SELECT exchange_id, topic_id, partition, "offset", endpoint_id, count(*) FROM attempts '
        "GROUP BY 1, 2, 3, 4, 5 HAVING count(*) > 1 LIMIT 5"
    )
    assert not twice, twice


def assert_backlog_counted(database: Database) -> None:
    """The counts kept beside the rows are those of the rows."""
    kept = database.fetch(
        "SELECT topic_id, partition, endpoint_id, owed, dead FROM backlog "
        "WHERE owed <> 0 OR dead <> 0"
    )
    counted = database.fetch(
        "SELECT topic_id, partition, endpoint_id, count(*) FILTER (WHERE state = 1), "
        "count(*) FILTER (WHERE state = 2) FROM deliveries GROUP BY 1, 2, 3"
    )
    assert {tuple(row) for row in kept} == {tuple(row) for row in counted}


def missing_ids(receivers: Receivers, name: str, numbers: Iterable[int]) -> set[str]:
    """Ids that an endpoint should have accepted and has not."""
    return {f"e{n}" for n in numbers} - set(receivers.ledger(name).accepted)


def wait_all_accepted(
    receivers: Receivers, name: str, numbers: Iterable[int], timeout_seconds: float = 90
) -> None:
    """Until an endpoint has accepted every one of these events."""
    numbers = list(numbers)
    try:
        wait_for(
            lambda: receivers.accepted(name) >= len(numbers), timeout_seconds, f"all at {name}"
        )
    except AssertionError as error:
        lost = missing_ids(receivers, name, numbers)
        raise AssertionError(f"{name} lacks {len(lost)} ids: {sorted(lost)[:10]}") from error
    assert not missing_ids(receivers, name, numbers)
