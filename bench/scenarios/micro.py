"""Wheel, decode, sign and record alone: the lines of the budget.

CPU of this process; for the pure parts the best of several rounds, for record the whole of it,
against a real server.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
import timeit
from collections.abc import Callable

from bench import wheel
from bench.load import PARTITIONS, Plan, body, event_id
from bench.results import Result, medians
from bench.session import Measures, Session
from bench.subjects import SECRET
from dispatcherd.config.model import DecodeConfig, LimitsConfig, PostgresConfig
from dispatcherd.decode import Decoder
from dispatcherd.delivery import Claim, Delivery, Outcome, OutcomeKind, Reason
from dispatcherd.keys import parse_key
from dispatcherd.metrics import Metrics
from dispatcherd.offsets import Window
from dispatcherd.record import claims, deployment
from dispatcherd.record.buffer import Buffer
from dispatcherd.record.catalogue import Catalogue
from dispatcherd.record.connection import Database
from dispatcherd.record.recorder import Recorder
from dispatcherd.sign import Signer

_FLUSH = 1_500
_ROUNDS = 5
_CALLS = 20_000
_DELIVERED = Outcome(OutcomeKind.DELIVERED, Reason.OK)


def run(session: Session, result: Result) -> None:
    """See the module."""
    variants = {
        "wheel": lambda: _wheel(session.size(20_000, 5_000)),
        "decode": _decode,
        "sign": _sign,
        "record": lambda: _record(session, session.size(100_000, 15_000)),
    }
    runs = session.interleave(result, variants, session.runs(5))
    for name, measured in runs.items():
        for key in measured[0]:
            result.figure(name, key, "µs", [m[key] for m in measured])
    for name, key, target in (
        ("wheel", "insert", 0.6),
        ("decode", "an envelope", 1.5),
        ("sign", "lines", 3.0),
        ("record", "this process", 3.0),
    ):
        result.check(f"{name}: {key}, of the budget", target, medians(runs[name], key), "µs")


def _wheel(timers: int) -> Measures:
    draw = random.Random(1)
    times = [draw.uniform(0.0, 59.5) for _ in range(timers)]
    rounds = [wheel.wheel_round(times, 60.0) for _ in range(_ROUNDS)]
    setting, cancelling, firing = (min(column) for column in zip(*rounds, strict=True))
    half = timers / 2
    return {
        "insert": setting / timers / 1e3,
        "cancel": cancelling / half / 1e3,
        "fire": firing / half / 1e3,
    }


def _microseconds(work: Callable[[], object]) -> float:
    timer = timeit.Timer(work, timer=time.process_time)
    return min(timer.repeat(_ROUNDS, _CALLS)) / _CALLS * 1e6


def _claim() -> Claim:
    return Claim("orders", 1, 0, 1, b"k" * 16)


def _decode() -> Measures:
    claim = _claim()
    decoder = Decoder(DecodeConfig())
    value = body(Plan(1), 0, time.time_ns())
    took = _microseconds(lambda: decoder.decode(claim, 7, value, [], 0))
    return {"an envelope": took}


def _sign() -> Measures:
    signer = Signer([parse_key(SECRET)])
    value, webhook_id = body(Plan(1), 0, time.time_ns()), event_id(0)
    took = _microseconds(lambda: signer.lines(webhook_id, 1_767_323_045, value))
    return {"lines": took}


def _record(session: Session, count: int) -> Measures:
    database = session.parts.database()
    try:
        return asyncio.run(_recorded(session, database.dsn, count))
    finally:
        session.parts.drop(database)


async def _recorded(session: Session, dsn: str, count: int) -> Measures:
    """Hand first-time outcomes in, in bursts as receivers answer, until all are durable."""
    config = PostgresConfig(dsn=dsn)
    database = Database(config)
    await database.open()
    catalogue = Catalogue(database, 100)
    async with database.session() as connection:
        incarnation = await deployment.register(connection, "micro", "micro")
    await catalogue.learn(["order.created"])
    buffer = Buffer(catalogue, LimitsConfig(), config.flush_max_rows)
    recorder = Recorder(buffer, database, catalogue, incarnation, config, Metrics())
    held = []
    for partition in range(PARTITIONS):
        (found,) = await claims.claim(database, "orders", partition, PARTITIONS, incarnation)
        window = Window(found.claim, 0)
        buffer.windows[found.claim] = window
        held.append(window)
    deliveries = _deliveries(held, count)
    gc.collect()
    gc.freeze()  # as the daemon does with what lives long
    flushing = asyncio.create_task(recorder.run())
    clock = session.parts.clocks()["postgres"]
    server, cpu = clock(), time.process_time()
    now = time.time()
    for number, delivery in enumerate(deliveries):
        if not buffer.try_reserve(1, delivery.event.size):
            await recorder.durable()
            assert buffer.try_reserve(1, delivery.event.size)
        buffer.attempt(delivery, number, now, 0.002, 200, _DELIVERED, True)
        buffer.delivered(delivery)
        if number % _FLUSH == _FLUSH - 1:
            await asyncio.sleep(0)
    assert await recorder.drained(60), "not durable within 60 s"
    cpu, server = time.process_time() - cpu, clock() - server
    gc.unfreeze()
    flushing.cancel()
    rows = await _rows(database)
    assert rows == count, f"{rows} of {count} attempts recorded"
    await recorder.close()
    await database.close()
    return {"this process": cpu / count * 1e6, "the server": server / count * 1e6}


def _deliveries(windows: list[Window], count: int) -> list[Delivery]:
    """Deliveries that are in the air; made before the clock runs."""
    made = []
    decoder, plan = Decoder(DecodeConfig()), Plan(count)
    for number in range(count):
        window = windows[number % PARTITIONS]
        offset = number // PARTITIONS
        decoded = decoder.decode(window.claim, offset, body(plan, number, 0), [], 0)
        assert isinstance(decoded, tuple), decoded
        delivery = Delivery(decoded[0], 1, 0.0)
        window.add(offset, {1: delivery}, 0.0, decoded[0].size)
        delivery.attempts = 1
        made.append(delivery)
    return made


async def _rows(database: Database) -> int:
    async with database.session() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM attempts"))
