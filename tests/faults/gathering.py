"""At the end of a run: all that Postgres, the receivers and the bench know, in one ledger."""

from __future__ import annotations

from pathlib import Path

from tests.faults.ledger import Arrival, Ledger, Owed, Recorded, Step
from tests.faults.stand import Stand

_INCARNATION_BITS = 36
"""An exchange id has its process start in the bits above these."""

_ATTEMPTS = """
SELECT a.exchange_id, e.name AS endpoint, a.partition, a."offset", extract(epoch FROM a.at)::float8
    AS at, extract(epoch FROM a.recorded)::float8 AS recorded, a.number, a.status, r.name AS reason,
    a.kind = 1 AS delivered, a.sent
FROM attempts a JOIN endpoints e ON e.id = a.endpoint_id JOIN reasons r ON r.id = a.reason
"""
_OWED = """
SELECT e.name AS endpoint, d.partition, d."offset", d.state = 2 AS dead, r.name AS reason,
    d.attempts, extract(epoch FROM d.due)::float8 AS due
FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id JOIN reasons r ON r.id = d.reason
"""
_STEPS = """
SELECT extract(epoch FROM at)::float8 AS at, partition, epoch, watermark, incarnation
FROM bench.steps ORDER BY seq
"""
_QUARANTINE = 'SELECT partition, "offset", extract(epoch FROM at)::float8 AS at FROM quarantine'


def gather(stand: Stand) -> Ledger:
    """Fill a ledger from a run whose members have ended."""
    ledger = stand.ledger()
    database, sampler, publisher = stand.database, stand.sampler, stand.publisher
    ledger.lives = [life for member in stand.members.values() for life in member.lives]
    by_pid = {life.pid: life.process for life in ledger.lives}
    processes = {
        row["incarnation"]: by_pid.get(row["pid"], f"pid {row['pid']}")
        for row in database.fetch("SELECT incarnation, pid FROM instances")
    }
    ledger.published, ledger.unsure = list(publisher.published), set(publisher.unsure)
    ledger.arrivals = read_journal(stand.journal)
    for row in database.fetch(_ATTEMPTS):
        values = dict(row)
        exchange = values.pop("exchange_id")
        process = processes.get(exchange >> _INCARNATION_BITS, "unknown")
        ledger.recorded.append(Recorded(exchange=exchange, process=process, **values))
    ledger.owed = [Owed(**dict(row)) for row in database.fetch(_OWED)]
    for row in database.fetch(_STEPS):
        process = processes.get(row["incarnation"], "nobody")
        step = Step(row["at"], row["partition"], row["epoch"], row["watermark"], process)
        ledger.steps.append(step)
    ledger.quarantined = {
        (row["partition"], row["offset"]): row["at"] for row in database.fetch(_QUARANTINE)
    }
    ledger.memory, ledger.group = list(sampler.memory), list(sampler.group)
    ledger.unsettled, ledger.snapshots = list(sampler.unsettled), sampler.snapshots
    ledger.faults, ledger.complete = list(stand.faults), not stand.broken
    ledger.ends = stand.parts.kafka.end_offsets(stand.topic)
    return ledger


def read_journal(path: Path) -> list[Arrival]:
    """The receivers' journal, as `tests.rig.receivers` describes it."""
    begun: dict[str, Arrival] = {}
    with path.open() as file:
        for line in file:
            if not line.endswith("\n"):
                break  # cut off in the middle of being written
            kind, number, at, *fields = line[:-1].split("\t")
            if kind == "A":
                endpoint, agent, attempt, ids = fields
                process = agent.rpartition(" ")[2]
                begun[number] = Arrival(
                    float(at), endpoint, process, int(attempt or 0), tuple(ids.split(","))
                )
            elif number in begun:
                one = begun[number]
                begun[number] = Arrival(
                    one.at, one.endpoint, one.process, one.attempt, one.ids, float(at),
                    int(fields[0]),
                )  # fmt: skip
    return list(begun.values())
