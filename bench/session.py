"""Running scenarios: parts shared between them, progress while they run, runs interleaved.

Invariant: the variants of a scenario take turns, run by run, so that a slow minute of the machine
hits all of them; each run knows the pace that the machine had, and is made again where the
hypervisor took more than a tenth of a core; a scenario that fails says why and does not stop the
next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.markup import escape

from bench import machine
from bench.native import Missing
from bench.pace import Pace
from bench.parts import Parts
from bench.results import PACE, Report, Result
from bench.stolen import SHARE, TOLERATED_SHARE, least_robbed
from bench.subjects import Loss

Measures = dict[str, Any]
Variant = Callable[[], Measures]

_NOISE = 0.10
_UNEVEN = 1.1


class Session:
    """What a scenario is given."""

    def __init__(
        self, parts: Parts, pace: Pace, quick: bool, runs: int | None, console: Console
    ) -> None:
        self.parts = parts
        self._pace = pace
        self.quick = quick
        self._runs = runs
        self._console = console
        self._status = console.status("")
        self._label = ""
        self.warm = False
        """The broker has been under load for long enough (bench/warming.py)."""
        self.drain_rate = 0.0
        """Deliveries a second to one endpoint, once some scenario has measured it."""

    def size(self, full: int, quick: int) -> int:
        """How much work: the full size, or the quick one."""
        return quick if self.quick else full

    def runs(self, full: int) -> int:
        """How often: as asked on the command line, else `full`, or once when quick."""
        return self._runs or (1 if self.quick else full)

    def tell(self, text: str) -> None:
        """Progress within a run; shown only on a terminal."""
        if self._console.is_terminal:
            self._status.update(f"{self._label}: {text}")
            self._status.start()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._status.stop()
        self._console.print(f"[dim]{datetime.now():%H:%M:%S}[/dim] {text}", highlight=False)

    def scenario(self, module: ModuleType) -> Result:
        """Run one; its result, also when it failed."""
        name = module.__name__.rsplit(".", 1)[1]
        self._label = name
        title = (module.__doc__ or "").strip().splitlines()[0].rstrip(".")
        self.say(f"[bold]{name}[/bold]: {title}")
        result = Result(name, title)
        started = time.monotonic()
        try:
            module.run(self, result)
        except Missing as missing:
            result.skipped = True
            result.failure = f"this machine has not got {missing}"
            self.say(f"[yellow]{name} skipped: {result.failure}[/yellow]")
        except Exception as error:
            # Loss above all; but whatever it is, the other scenarios still have something to say.
            result.failure = str(error) if isinstance(error, Loss) else repr(error)
            for part, words in self.parts.ended().items():
                result.failure += f"\n{part} had ended: {words}"
            self.say(f"[red]{name} failed[/red]: {escape(result.failure)}")
            if not isinstance(error, Loss):
                self._console.print_exception()
        finally:
            self._status.stop()
        result.seconds = time.monotonic() - started
        _note_noise(result)
        return result

    def interleave(
        self, result: Result, variants: Mapping[str, Variant], runs: int
    ) -> dict[str, list[Measures]]:
        """Run each variant `runs` times, taking turns; the measures by variant."""
        found: dict[str, list[Measures]] = {name: [] for name in variants}
        names = list(variants)
        for run in range(runs):
            turn = run % len(names)
            for name in names[turn:] + names[:turn]:
                self._label = f"{result.scenario}, {name}, run {run + 1} of {runs}"
                self.tell("starting")
                started = time.monotonic()
                measures = least_robbed(partial(self._paced, variants[name]), SHARE)
                found[name].append(measures)
                result.runs.append({"variant": name, "run": run + 1, **measures})
                self.say(f"  {name}: {_brief(measures)} ({time.monotonic() - started:.0f} s)")
        return found

    def _paced(self, variant: Variant) -> Measures:
        self._pace.take()
        measures = variant()
        measures[PACE] = self._pace.take()
        return measures


def _brief(measures: Measures) -> str:
    shown = []
    for key, unit in (
        ("per_second", "/s"),
        ("cpu_us", "µs CPU each"),
        ("p99_ms", "ms p99"),
        ("peak_mb", "MB"),
    ):
        if key in measures:
            shown.append(f"{measures[key]:,.1f} {unit}")
    return ", ".join(shown) or "done"


def _note_noise(result: Result) -> None:
    shares = [run["others_share"] for run in result.runs if "others_share" in run]
    if shares and max(shares) > _NOISE:
        result.notes.append(
            f"The machine was not quiet: other programs took up to {max(shares):.2f} cores."
        )
    robbed = [run[SHARE] for run in result.runs if run.get(SHARE, 0.0) > TOLERATED_SHARE]
    if robbed:
        result.notes.append(
            f"The hypervisor took up to {max(robbed):.2f} cores in {len(robbed)} of "
            f"{len(result.runs)} runs, however often they were made."
        )
    paces = [run[PACE] for run in result.runs if PACE in run]
    if paces and max(paces) > _UNEVEN * min(paces):
        result.notes.append(
            f"The machine's pace was not even: the same piece of work took {min(paces):.0f} to "
            f"{max(paces):.0f} µs from run to run."
        )


def report(modules: list[ModuleType], quick: bool, runs: int | None, console: Console) -> Report:
    """Run the scenarios."""
    made = Report(datetime.now(UTC).isoformat(timespec="seconds"), quick, machine.describe())
    with Parts() as parts, Pace() as pace:
        session = Session(parts, pace, quick, runs, console)
        for module in modules:
            made.results.append(session.scenario(module))
    return made
