"""The work in one line, for `systemctl status`: partitions, rate, what waits, what is wrong.

Invariant: read from memory, changes nothing, holds no secret. Leaves out: details (`/metrics`,
`dispatcherd deliveries`).
"""

from __future__ import annotations

from dispatcherd.delivery import OutcomeKind
from dispatcherd.pipeline import Pipeline


class StatusLine:
    """`8 partitions; 1,234 delivered/s; 12 retries on the wheel; Postgres ok; Kafka ok`"""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._delivered = 0
        self._at: float | None = None

    def text(self, now: float) -> str:
        """As of a monotonic time; the rate is that since the line before."""
        pipeline = self._pipeline
        if not pipeline.built:
            return "nothing taken in yet"
        tenures = list(pipeline.ownership.reading.values())
        halted = sum(tenure.halted is not None for tenure in tenures)
        parts = [
            _count(len(tenures), "partition"),
            f"{halted} of them halted (see the log)" if halted else "",
            f"{self._rate(now):,.0f} delivered/s",
            f"{pipeline.quota.total:,} owed",
            _count(pipeline.retries.waiting, "retry", "retries") + " on the wheel",
            f"{pipeline.recorder.buffer.rows:,} in the air or unrecorded",
            "Postgres "
            + ("ok" if pipeline.recorder.healthy else f"UNAVAILABLE ({pipeline.recorder.trouble})"),
            "Kafka " + ("ok" if pipeline.fetching.healthy else "UNAVAILABLE"),
        ]
        return "; ".join(part for part in parts if part)

    def _rate(self, now: float) -> float:
        endpoints = self._pipeline.metrics.endpoints.values()
        delivered = sum(e.outcomes[OutcomeKind.DELIVERED] for e in endpoints)
        new, self._delivered = delivered - self._delivered, delivered
        before, self._at = self._at, now
        return new / (now - before) if before is not None and now > before else 0.0


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
