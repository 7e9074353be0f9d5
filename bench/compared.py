"""All that was measured beside the daemon, in one picture: CPU as a multiple of the daemon's.

Invariant: each multiple is of the daemon's median in the same scenario, where both took turns.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.results import Drawing, Line, Result, medians
from bench.scenarios import baseline, drain, limit, peers

NAME = "compared"
_TITLE = "CPU each, as a multiple of dispatcherd's signed, recorded delivery"
_BESIDE = (
    (limit, limit.IN_C, "loop in C: the same bytes, nothing else"),
    (limit, limit.IN_PYTHON, "loop in Python: the same bytes"),
    (limit, limit.SIGNED, "loop in Python that signs each"),
    (limit, limit.ALONE, "dispatcherd's exchange alone"),
    (limit, limit.DAEMON, "dispatcherd: from Kafka to Postgres"),
    (peers, "", "Benthos 4.60 from Kafka, recording nothing"),
    (limit, limit.REFERENCE, "aiohttp's ClientSession alone"),
    (baseline, baseline.BASELINE, "a day's work in Python: from Kafka to Postgres"),
)  # fmt: skip
_DAEMON = {limit: limit.DAEMON, peers: peers.DAEMON, baseline: drain.ONE}


def compared(results: Sequence[Result]) -> list[Result]:
    """The picture, as a scenario's result of its own; none when there is nothing to compare."""
    by_name = {result.scenario: result for result in results if not result.failure}
    bars: list[tuple[str, float]] = []
    for module, variant, words in _BESIDE:
        measured = by_name.get(module.__name__.rsplit(".", 1)[1])
        if measured is None:
            continue
        if module is peers:
            variant = min(peers.WAYS, key=lambda name: _cpu(measured, name))
        bars.append((words, _cpu(measured, variant) / _cpu(measured, _DAEMON[module])))
    if len(bars) < 2:
        return []
    bars.sort(key=lambda bar: bar[1])
    made = Result(NAME, _TITLE)
    for words, multiple in bars:
        made.figure(words, "CPU", "times", [multiple])
    made.drawings.append(
        Drawing(NAME, _TITLE, "", "times", [Line("CPU", bars)], kind="across", target=1.0)
    )
    return [made]


def _cpu(result: Result, variant: str) -> float:
    return medians([run for run in result.runs if run["variant"] == variant], "cpu_us")
