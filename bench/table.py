"""The report as a reader takes it in: in the terminal, and as Markdown."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.results import Check, Figure, Report, Result


def number(value: float) -> str:
    """With as many digits as mean something."""
    if value != value:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _cell(figure: Figure) -> str:
    """The median, and the spread where there were several runs."""
    if len(figure.values) == 1 or figure.low == figure.high:
        return number(figure.median)
    return f"{number(figure.median)} ({number(figure.low)}–{number(figure.high)})"


def _grids(result: Result) -> list[tuple[list[str], list[list[str]]]]:
    """(head, rows): variants down, quantities across; a grid for all that have the same ones."""
    by_variant: dict[str, dict[tuple[str, str], Figure]] = {}
    for figure in result.figures:
        by_variant.setdefault(figure.variant, {})[(figure.name, figure.unit)] = figure
    grids: dict[tuple[tuple[str, str], ...], list[list[str]]] = {}
    for variant, found in by_variant.items():
        cells = [_cell(figure) for figure in found.values()]
        grids.setdefault(tuple(found), []).append([variant, *cells])
    return [
        (["", *(f"{name}, {unit}" if unit else name for name, unit in names)], rows)
        for names, rows in grids.items()
    ]


def _target(check: Check) -> str:
    return f"{'≥' if check.at_least else '≤'} {number(check.target)} {check.unit}".strip()


def _got(check: Check) -> str:
    even = check.at_equal_pace
    return f"{number(check.got)} {check.unit}".strip() + (
        "" if even is None else f" ({number(even)} at equal pace)"
    )


def show(report: Report, console: Console) -> None:
    """Print the figures and the checks."""
    for result in report.results:
        title = f"{result.scenario}: {result.title} ({result.seconds:.0f} s)"
        console.print(title, style="bold")
        for head, rows in _grids(result):
            table = Table()
            for column in head:
                table.add_column(column, justify="right" if column else "left")
            for row in rows:
                table.add_row(*row)
            console.print(table)
        for note in result.notes:
            console.print(f"  {note}", style="dim", highlight=False)
        if result.failure:
            failure = escape(result.failure)
            console.print(f"  no figures: {failure}", style="red", highlight=False)
    checks = Table(title="Against the targets", title_justify="left", title_style="bold")
    for column in ("scenario", "claim", "target", "got", ""):
        checks.add_column(column)
    for result in report.results:
        for check in result.checks:
            verdict = "[green]ok[/green]" if check.ok else "[red]short[/red]"
            checks.add_row(result.scenario, check.claim, _target(check), _got(check), verdict)
    console.print(checks)


def markdown(report: Report) -> str:
    """The same for a file."""
    machine = report.machine
    lines = [
        f"# Bench of {report.started_at}{' (quick: a smoke test)' if report.quick else ''}",
        "",
        f"{machine['cores']} cores of {machine['processor']}"
        f"{' (virtual)' if machine['virtual'] else ''}, {machine['memory_gb']} GB, Linux "
        f"{machine['kernel']}, Python {machine['python']} ({machine['python_build']}), "
        f"{machine['kafka']}, dispatcherd {machine['dispatcherd']}, commit "
        f"{machine['commit']}; load before: {machine['load_before']}.",
        "",
        "| scenario | claim | target | got | |",
        "|---|---|---|---|---|",
    ]
    for result in report.results:
        lines += [
            f"| {result.scenario} | {check.claim} | {_target(check)} | {_got(check)} | "
            f"{'ok' if check.ok else '**short**'} |"
            for check in result.checks
        ]
    for result in report.results:
        lines += ["", f"## {result.scenario}: {result.title}", ""]
        if result.failure:
            lines += [f"No figures: {result.failure}", ""]
        for head, rows in _grids(result):
            lines += [f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
            lines += [f"| {' | '.join(row)} |" for row in rows]
            lines += [""]
        lines += [*result.notes, ""]
        lines += [f"![{d.title}]({d.name}.svg)" for d in result.drawings]
    return "\n".join(lines) + "\n"
