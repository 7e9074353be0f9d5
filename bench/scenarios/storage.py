"""What a delivery costs in Postgres: bytes with indexes, WAL, CPU; and an operator's look-ups.

Bytes are counted after a drain by the daemon itself; the look-ups are timed over 10,000,000
attempts that the server makes (bench/attempts.py), with a warm cache.
"""

from __future__ import annotations

from functools import partial

from bench import attempts, trial
from bench.load import Plan
from bench.results import Drawing, Line, Result, medians
from bench.scenarios.drain import filled
from bench.session import Measures, Session
from bench.subjects import DaemonSubject, Setup
from tests.rig.postgres import Database

_SIZES = """
SELECT coalesce(sum(pg_relation_size(c.oid)) FILTER (WHERE c.relkind = 'r'), 0)::float8 AS heap,
       coalesce(sum(pg_relation_size(c.oid)) FILTER (WHERE c.relkind = 'i'), 0)::float8 AS indexes
FROM pg_class c WHERE c.relnamespace = 'dispatcherd'::regnamespace AND (
    c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'attempts'::regclass)
    OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid IN (
        SELECT inhrelid FROM pg_inherits WHERE inhparent = 'attempts'::regclass)))
"""
_BY_INDEX = """
SELECT CASE c.relkind WHEN 'r' THEN 'rows' ELSE regexp_replace(
           pg_get_indexdef(c.oid), '^.* USING ', '') END AS part,
       sum(pg_relation_size(c.oid))::float8 AS bytes
FROM pg_class c JOIN pg_inherits h ON h.inhrelid = c.oid
WHERE h.inhparent = 'attempts'::regclass OR h.inhparent IN (
    SELECT indexrelid FROM pg_index WHERE indrelid = 'attempts'::regclass)
GROUP BY 1 ORDER BY 2 DESC
"""
_LSN = "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8"


def run(session: Session, result: Result) -> None:
    """See the module."""
    plan = Plan(session.size(300_000, 12_000), 1_000 if not session.quick else 100)
    topic = filled(session, plan)
    runs = session.interleave(
        result, {"a first-time delivery": partial(_written, session, topic, plan)}, session.runs(3)
    )
    session.parts.kafka.delete_topic(topic)
    result.figures_of(
        runs,
        (
            ("row_bytes", "rows", "bytes"),
            ("index_bytes", "indexes", "bytes"),
            ("disk_bytes", "on disk", "bytes"),
            ("wal_bytes", "WAL", "bytes"),
            ("postgres_us", "server", "µs"),
        ),
    )
    written = medians(runs["a first-time delivery"], "disk_bytes")
    result.check("bytes a delivery as the daemon writes it", 200, written, "bytes")
    _lookups(session, result)


def _written(session: Session, topic: str, plan: Plan) -> Measures:
    """Drain, and look at the tables before the database goes."""
    parts = session.parts
    subject = DaemonSubject(parts, topic, plan, Setup(hosts=100))
    before = subject.database.value(_LSN)
    sizes: Measures = {}

    def look() -> None:
        wal = subject.database.value(_LSN) - before
        found = subject.database.fetch(_SIZES)[0]
        sizes.update(
            row_bytes=found["heap"] / plan.deliveries,
            index_bytes=found["indexes"] / plan.deliveries,
            wal_bytes=wal / plan.deliveries,
        )
        sizes["disk_bytes"] = sizes["row_bytes"] + sizes["index_bytes"]

    return trial.drain(parts, plan, subject, session.tell, look=look) | sizes


def _lookups(session: Session, result: Result) -> None:
    rows = session.size(10_000_000, 200_000)
    database = session.parts.database()
    try:
        session.tell(f"making {rows:,} attempts")
        attempts.make(database, rows, session.tell)
        parts = {row["part"]: row["bytes"] / rows for row in database.fetch(_BY_INDEX)}
        for part, size in parts.items():
            result.figure(f"of {rows:,}: {part}", "on disk", "bytes", [size])
        total = sum(parts.values())
        result.figure(f"of {rows:,}: all", "on disk", "bytes", [total])
        result.check(f"bytes a delivery of {rows:,}, with indexes", 200, total, "bytes")
        slowest = _time_lookups(session, result, database)
    finally:
        session.parts.drop(database)
    result.check(f"slowest look-up over {rows:,} attempts", 100, slowest, "ms")


def _time_lookups(session: Session, result: Result, database: Database) -> float:
    points: list[tuple[float | str, float]] = []
    for name, sql in attempts.questions(database).items():
        taken = attempts.timed(database, sql)
        middle = result.figure(f"look-up {name}", "time", "ms", taken)
        session.say(f"  look-up {name}: {middle:.1f} ms")
        result.runs += [{"variant": name, "run": n + 1, "ms": ms} for n, ms in enumerate(taken)]
        points.append((name, middle))
    result.drawings.append(
        Drawing(
            "storage-lookups", "An operator's look-ups over recorded attempts, warm", "", "ms",
            [Line("median", points)], kind="across", log_y=True, target=100,
            target_name="target: 100 ms",
        )
    )  # fmt: skip
    return max(float(ms) for _, ms in points)
