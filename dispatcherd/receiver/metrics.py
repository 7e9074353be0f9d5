"""Counters in Prometheus's text format, without a Prometheus library.

Serve `text()` with the content type `CONTENT_TYPE`, or hand it on from your own `/metrics`.
Invariant: every label takes its values from a fixed set or from the registered event types, so that
no sender can make series; counting never raises. Leaves out: what to count (front, processing).
Source: Prometheus text exposition format 0.0.4.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

COUNTERS = {
    "requests_total": "Requests by the status that answered them",
    "refused_total": "Requests turned away before any handler, by cause",
    "events_total": "Events by type and by what became of them",
    "handler_runs_total": "Handler runs by type and by what they came to",
    "unusual_total": "Traffic that a healthy sender does not make, by kind",
}
HISTOGRAMS = {
    "response_seconds": "From a request's arrival to its answer",
    "handler_seconds": "One run of a handler",
}

_Labels = tuple[tuple[str, str], ...]


class _Histogram:
    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0


class Metrics:
    """Several receivers may share one: the label `receiver` tells them apart."""

    def __init__(self, prefix: str = "webhook_receiver") -> None:
        self._prefix = prefix
        self._lock = threading.Lock()
        self._counts: dict[str, dict[_Labels, int]] = {name: {} for name in COUNTERS}
        self._histograms: dict[str, dict[_Labels, _Histogram]] = {n: {} for n in HISTOGRAMS}
        self._gauges: dict[tuple[str, _Labels], tuple[str, Callable[[], float]]] = {}

    def count(self, name: str, **labels: str) -> None:
        """One more."""
        key = tuple(sorted(labels.items()))
        with self._lock:
            counts = self._counts[name]
            counts[key] = counts.get(key, 0) + 1

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """One duration."""
        key = tuple(sorted(labels.items()))
        with self._lock:
            histogram = self._histograms[name].setdefault(key, _Histogram())
            histogram.counts[bisect_left(SECONDS, seconds)] += 1
            histogram.total += seconds

    def gauge(self, name: str, text: str, read: Callable[[], float], **labels: str) -> None:
        """A value that is read when asked for; a reading that fails is left out."""
        with self._lock:
            self._gauges[name, tuple(sorted(labels.items()))] = (text, read)

    def value(self, name: str, **labels: str) -> int:
        """The sum of the counters that have these labels, among others."""
        wanted = set(labels.items())
        with self._lock:
            return sum(n for key, n in self._counts[name].items() if wanted <= set(key))

    def text(self) -> str:
        """Everything, as of now."""
        lines: list[str] = []
        with self._lock:
            for name, text in COUNTERS.items():
                lines += self._head(name, text, "counter")
                lines += [self._line(name, k, n) for k, n in sorted(self._counts[name].items())]
            for name, text in HISTOGRAMS.items():
                lines += self._head(name, text, "histogram")
                for key, histogram in sorted(self._histograms[name].items()):
                    lines += self._histogram_lines(name, key, histogram)
            gauges = sorted(self._gauges.items(), key=lambda item: item[0])
        last = ""
        for (name, key), (text, read) in gauges:
            try:
                value = read()
            except Exception:  # the file is closed, the disk is gone: the other figures still count
                continue
            lines += self._head(name, text, "gauge") if name != last else []
            lines.append(self._line(name, key, value))
            last = name
        return "\n".join(lines) + "\n"

    def _head(self, name: str, text: str, kind: str) -> list[str]:
        full = f"{self._prefix}_{name}"
        return [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]

    def _line(self, name: str, labels: Iterable[tuple[str, str]], value: float) -> str:
        inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
        return f"{self._prefix}_{name}{{{inner}}} {value}"

    def _histogram_lines(self, name: str, key: _Labels, histogram: _Histogram) -> list[str]:
        lines, running = [], 0
        for bound, count in zip((*map(str, SECONDS), "+Inf"), histogram.counts, strict=True):
            running += count
            lines.append(self._line(f"{name}_bucket", (*key, ("le", bound)), running))
        lines.append(self._line(f"{name}_sum", key, histogram.total))
        return [*lines, self._line(f"{name}_count", key, running)]


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
