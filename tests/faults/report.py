"""Results as lines for a person, and as the part of docs/reliability.md that nobody writes by hand.

Pure but for `write`.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.run import Result
from tests.faults.scenarios import Scenario

BEGIN = "<!-- results: written by `make faults`, not by hand -->"
END = "<!-- end of results -->"


def listing(scenarios: Iterable[Scenario]) -> str:
    """For `--list`."""
    rows = [(s.name, s.rows, s.promises, f"{s.seconds:.0f} s", s.says) for s in scenarios]
    head = ("name", "rows", "promises", "time", "what")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]
    return "\n".join(lines)


def command(result: Result) -> str:
    """What runs it again."""
    return f"make faults ONLY={result.name} SEED={result.seed}"


def line(result: Result) -> str:
    """One result in one line."""
    verdict = "held" if result.held else "DID NOT HOLD"
    repeated = sum(result.repeated.values())
    ratio = "" if result.isolation is None else f", p99 ratio {result.isolation.ratio:.2f}"
    figures = "".join(f", {name} {value:,.1f}" for name, value in result.figures.items())
    return (
        f"{result.name}: {verdict}. {result.seconds:.0f} s, {sum(result.faults.values())} faults, "
        f"{result.published:,} published, {result.deliveries:,} delivered, {result.lost} lost, "
        f"{repeated} repeated, {result.memory_bytes / 1e6:.0f} MB{ratio}{figures}"
    )


def trouble(result: Result) -> str:
    """What did not hold: the first violation with its story, how many more, how to see it again."""
    parts = []
    if result.story:
        parts.append(result.story)
    if len(result.violations) > 1:
        kinds = Counter(text.split(":")[0] for text in result.violations)
        parts.append(f"{len(result.violations)} violations in all: {dict(kinds)}")
    if result.failure:
        parts.append(f"the bench could not go on: {result.failure}")
    parts.append(f"again: {command(result)}\nlogs: {result.folder}")
    return "\n".join(parts)


def table(results: Sequence[Result]) -> str:
    """All results, for a person at a terminal."""
    lines = [line(result) for result in results]
    held = sum(result.held for result in results)
    lines.append(f"{held} of {len(results)} held")
    lines += [f"again: {command(result)}" for result in results if not result.held]
    return "\n".join(lines)


def markdown(results: Sequence[Result], at: datetime) -> str:
    """The generated part of the document."""
    published = sum(r.published for r in results)
    faults = sum(sum(r.faults.values()) for r in results)
    lost = sum(r.lost for r in results)
    seconds = sum(r.seconds for r in results)
    held = sum(r.held for r in results)
    seeds = ", ".join(str(seed) for seed in sorted({r.seed for r in results}))
    load = sum(r.deliveries for r in results) / seconds if seconds else 0.0
    causes: Counter[str] = Counter()
    for result in results:
        causes.update(result.repeated)
    lines = [
        f"Run on {at:%Y-%m-%d} ({platform.machine()}, Python {platform.python_version()}); seeds "
        f"{seeds}. {held} of {len(results)} scenarios held.",
        "",
        "| what | figure |",
        "|---|---|",
        f"| time under faults | {seconds / 60:.0f} min |",
        f"| load held | {load:,.0f} deliveries a second on average |",
        f"| faults survived | {faults:,} |",
        f"| `kill -9` among them | {sum(r.kills for r in results):,} processes |",
        f"| records published | {published:,}, of them {sum(r.bad for r in results):,} bad |",
        f"| deliveries accepted | {sum(r.deliveries for r in results):,} |",
        f"| deliveries lost | {lost} |",
        f"| attempts compared with rows | {sum(r.rows for r in results):,} |",
        f"| watermarks compared with rows | {sum(r.snapshots for r in results):,} times |",
        f"| most memory of one process | {max(r.memory_bytes for r in results) / 1e6:.0f} MB |",
        f"| accepted, and sent again | {sum(causes.values()):,} |",
        *(f"| … {cause} | {count:,} |" for cause, count in sorted(causes.items())),
        "",
        "| scenario | seed | s | faults | published | lost | repeated | MB | p99 ratio | held |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_row(result) for result in results),
        *_measured(results),
    ]
    return "\n".join(lines)


def _measured(results: Sequence[Result]) -> list[str]:
    rows = [
        f"| {result.name} | {name} | {value:,.1f} |"
        for result in results
        for name, value in result.figures.items()
    ]
    return ["", "| scenario | what it measured | figure |", "|---|---|---|", *rows] if rows else []


def _row(result: Result) -> str:
    ratio = "" if result.isolation is None else f"{result.isolation.ratio:.2f}"
    held = "yes" if result.held else f"no: {'; '.join(result.violations[:1]) or 'see the run'}"
    return (
        f"| {result.name} | {result.seed} | {result.seconds:.0f} | {sum(result.faults.values())} | "
        f"{result.published:,} | {result.lost} | {sum(result.repeated.values())} | "
        f"{result.memory_bytes / 1e6:.0f} | {ratio} | {held} |"
    )


def write(path: Path, results: Sequence[Result]) -> None:
    """Put the results between the markers of a document."""
    text = path.read_text()
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise SystemExit(f"{path} has no line {BEGIN!r} followed by {END!r}")
    content = markdown(results, datetime.now(UTC))
    path.write_text(f"{before}{BEGIN}\n\n{content}\n\n{END}{after}")
