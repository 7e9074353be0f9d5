"""Everything that goes up and down, read from the stages at scrape.

Invariant: reading changes nothing, and may be done in a thread beside the loop (exposition). Leaves
out: counters (metrics) and text (exposition).
"""

from __future__ import annotations

from collections.abc import Iterator

from dispatcherd.pipeline import Pipeline

_MOST_SHOWN = 5_000

Gauge = tuple[str, str, dict[str, str], float]
"""(name, help, labels, value)"""


def gauges(pipeline: Pipeline) -> Iterator[Gauge]:
    """Of the whole process, then by partition, then by endpoint."""
    if not pipeline.built:
        return
    recorder, retries, metrics = pipeline.recorder, pipeline.retries, pipeline.metrics
    yield "unrecorded_rows", "Outcomes reserved or waiting for Postgres", {}, recorder.buffer.rows
    yield "postgres_up", "1 while flushes succeed", {}, recorder.healthy
    yield "kafka_up", "1 while fetches succeed", {}, pipeline.fetching.healthy
    yield "wheel_timers", "Timers on the wheel", {}, len(pipeline.timers.wheel)
    yield "retries_waiting", "Retries on the wheel", {}, retries.waiting
    yield "loop_lag_seconds", "Lateness of the last tick", {}, metrics.loop_lag
    yield "owed_total", "Rows owed by all processes", {}, pipeline.quota.total
    yield "orphaned", "Owed in partitions that no process works on", {}, metrics.orphaned
    yield "ready", "1 when ready", {}, not pipeline.missing()
    yield from _partitions(pipeline)
    yield from _endpoints(pipeline)


def _partitions(pipeline: Pipeline) -> Iterator[Gauge]:
    for tp, tenure in list(pipeline.ownership.tenures.items()):
        labels = {"topic": tp.topic, "partition": str(tp.partition)}
        window = tenure.window
        yield "watermark", "Every offset below is settled", labels, window.durable_watermark
        yield "position", "Next offset to take in", labels, window.position
        yield "window_deliveries", "Unsettled deliveries", labels, window.deliveries
        yield "window_bytes", "Bytes of unsettled records", labels, window.bytes
        halted = tenure.halted is not None
        yield "halted", "1 while an operator has to decide", labels, halted
        end = pipeline.consumer.highwater(tp) if tp in pipeline.ownership.reading else None
        if end is not None:
            yield "end_offset", "End of the partition at the last fetch", labels, end


def _endpoints(pipeline: Pipeline) -> Iterator[Gauge]:
    """Of those with something to say: there may be a hundred thousand that rest."""
    quota, endpoints = pipeline.quota, pipeline.endpoints
    numbers = dict.fromkeys([*endpoints.lanes, *quota.owed, *sorted(endpoints.held)])
    for number in list(numbers)[:_MOST_SHOWN]:
        endpoint, lane = endpoints.registered.get(number), endpoints.lanes.get(number)
        if endpoint is None:
            continue
        labels = {"endpoint": endpoint.name}
        yield "lane_deliveries", "Queued deliveries", labels, 0 if lane is None else len(lane)
        yield "in_air", "Exchanges under way", labels, 0 if lane is None else lane.in_air
        in_memory = 0 if lane is None else len(lane.owed)
        yield "owed_in_memory", "Owed deliveries in memory", labels, in_memory
        yield "owed", "Rows owed by all processes", labels, quota.owed.get(number, 0)
        yield "at_owed_cap", "1 while owed as much as allowed", labels, number in quota.full
        yield "held", "1 while not in this process's file", labels, endpoint.held
