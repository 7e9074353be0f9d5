"""What happens over time: the sink's counts and the daemon's memory, several times a second."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench.native import Sink
from bench.subjects import Subject, memory_bytes
from bench.ticking import Ticking

_EVERY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """One look."""

    at: float
    """Monotonic seconds."""
    unique: int
    requests: int
    open: int
    resident_mb: float


class Sampler(Ticking):
    """A context that looks until it is left."""

    def __init__(self, subject: Subject, sink: Sink) -> None:
        super().__init__(_EVERY_SECONDS)
        self._subject, self._sink = subject, sink
        self.samples: list[Sample] = []

    def tick(self) -> None:
        """One sample."""
        count = self._sink.count()
        self.samples.append(
            Sample(
                time.monotonic(),
                count["unique"],
                count["requests"],
                count["open"],
                memory_bytes(self._subject)[0] / 1e6,
            )
        )

    def rates(self) -> list[tuple[float, float]]:
        """(monotonic seconds, arrivals a second since the sample before)."""
        pairs = zip(self.samples, self.samples[1:], strict=False)
        return [(b.at, (b.unique - a.unique) / (b.at - a.at)) for a, b in pairs]

    def memory(self) -> list[tuple[float, float]]:
        """(monotonic seconds, MB)."""
        return [(s.at, s.resident_mb) for s in self.samples if s.resident_mb]
