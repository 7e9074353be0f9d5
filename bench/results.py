"""What a scenario comes to: figures with their spread, checks against targets, drawings.

Invariant: everything shown (table, plot, README) is made from this, and this is what the JSON
holds. Leaves out: how it is shown (table, plots).
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1
PACE = "pace_us"
"""The measure that every run has: what a fixed piece of work cost meanwhile (bench/pace.py)."""
Columns = Sequence[tuple[str, str, str]]


@dataclass(slots=True)
class Figure:
    """One measured quantity of one variant: the values of its runs."""

    variant: str
    name: str
    unit: str
    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


@dataclass(slots=True)
class Check:
    """A figure that somebody promised: "at most" or "at least" the target."""

    claim: str
    target: float
    got: float
    unit: str = ""
    at_least: bool = False
    at_equal_pace: float | None = None
    """Of a ratio: what it had been had the machine kept its pace. Told, not judged."""

    @property
    def ok(self) -> bool:
        return self.got >= self.target if self.at_least else self.got <= self.target


@dataclass(slots=True)
class Line:
    """A named row of points; `low` and `high` are the spread, where there is one."""

    name: str
    points: Sequence[tuple[float | str, float]]
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Drawing:
    """A plot: bars over words, or lines over numbers."""

    name: str
    """Also its file name: letters, digits and hyphens."""
    title: str
    x: str
    y: str
    lines: list[Line]
    kind: str = "lines"
    """`lines`, `bars`, `stack` (bars of which each line is a layer) or `across` (one line only)."""
    log_x: bool = False
    log_y: bool = False
    target: float | None = None
    """Drawn as a dashed line."""
    target_name: str = ""


@dataclass(slots=True)
class Result:
    """One scenario."""

    scenario: str
    title: str
    figures: list[Figure] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    """The raw measures of each run, with its `variant` and `run` number."""
    failure: str = ""
    """Why there are no figures: an event was lost, a part is missing."""
    skipped: bool = False
    seconds: float = 0.0
    """What the scenario took."""

    def figure(self, variant: str, name: str, unit: str, values: Sequence[float]) -> float:
        """Add a figure; its median."""
        made = Figure(variant, name, unit, [float(v) for v in values])
        self.figures.append(made)
        return made.median

    def figures_of(self, runs: Mapping[str, Sequence[Mapping[str, Any]]], columns: Columns) -> None:
        """A figure for each variant and each of the columns (measure, name, unit)."""
        for variant, measured in runs.items():
            for key, name, unit in columns:
                self.figure(variant, name, unit, [m[key] for m in measured])

    def check(
        self, claim: str, target: float, got: float, unit: str = "", at_least: bool = False
    ) -> None:
        """Compare a figure with what somebody promised of it."""
        self.checks.append(Check(claim, target, got, unit, at_least))

    def check_ratio(
        self,
        claim: str,
        target: float,
        measured: Sequence[Mapping[str, Any]],
        reference: Sequence[Mapping[str, Any]],
        key: str,
        at_least: bool = False,
    ) -> None:
        """Compare the ratio of two variants' medians with a target. `key`: a cost, or a rate that
        begins with `per_`."""
        got = ratio(measured, reference, key)
        even = ratio_at_equal_pace(measured, reference, key)
        self.checks.append(Check(claim, target, got, "times", at_least, even))


def ratio(
    measured: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]], key: str
) -> float:
    """The median of one variant's measure as a multiple of another's."""
    return medians(measured, key) / medians(reference, key)


def ratio_at_equal_pace(
    measured: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]], key: str
) -> float:
    """`ratio`, had the machine kept its pace."""
    return ratio(_paced(measured, key), _paced(reference, key), key)


def _paced(measured: Sequence[Mapping[str, Any]], key: str) -> list[dict[str, float]]:
    """In pieces of work instead of microseconds."""
    sign = 1 if key.startswith("per_") else -1
    return [{key: run[key] * run[PACE] ** sign} for run in measured]


def medians(measured: Sequence[Mapping[str, Any]], key: str) -> float:
    """The median of one measure over the runs of a variant."""
    return statistics.median(float(m[key]) for m in measured)


@dataclass(slots=True)
class Report:
    """A run of the bench."""

    started_at: str
    quick: bool
    machine: dict[str, Any]
    results: list[Result] = field(default_factory=list)

    def to_json(self) -> str:
        """With the medians spelled out, for readers without this code."""
        found = asdict(self) | {"format": FORMAT}
        for result, plain in zip(self.results, found["results"], strict=True):
            for figure, entry in zip(result.figures, plain["figures"], strict=True):
                entry |= {"median": figure.median, "low": figure.low, "high": figure.high}
            for check, entry in zip(result.checks, plain["checks"], strict=True):
                entry["ok"] = check.ok
        return json.dumps(found, indent=1, default=str)


def load(path: Path) -> Report:
    """Read what `to_json` wrote. Raises ValueError for another format."""
    found = json.loads(path.read_text())
    if found.get("format") != FORMAT:
        raise ValueError(f"{path}: format {found.get('format')!r}, this code reads {FORMAT}")
    results = []
    for plain in found["results"]:
        figures = [
            Figure(f["variant"], f["name"], f["unit"], f["values"]) for f in plain.pop("figures")
        ]
        checks = [
            Check(
                c["claim"], c["target"], c["got"], c["unit"], c["at_least"], c.get("at_equal_pace")
            )
            for c in plain.pop("checks")
        ]
        drawings = [
            Drawing(**{**d, "lines": [Line(**line) for line in d["lines"]]})
            for d in plain.pop("drawings")
        ]
        results.append(Result(figures=figures, checks=checks, drawings=drawings, **plain))
    return Report(found["started_at"], found["quick"], found["machine"], results)
