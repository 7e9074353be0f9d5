"""Rows for people: a table where it fits, else a block of lines for each row.

Invariant: no value is ever cut or broken, so that an id can be copied. A table that does not go to
a terminal is as wide as it needs to be, one line a row. Leaves out: `--json`.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_ENDLESS = 1_000_000
_INDENT = 4


def show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows; the first column is what names a row."""
    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = _console(None)
    needed = Measurement.get(console, console.options.update(width=_ENDLESS), table).maximum
    if not console.is_terminal or needed <= console.width:
        _console(needed).print(table)
        return
    for row in rows:
        block = [row[0], *_folded(columns[1:], row[1:], console.width - _INDENT)]
        console.print(f"\n{' ' * _INDENT}".join(block), soft_wrap=True)


def _console(width: int | None) -> Console:
    """One that takes every text as it is."""
    return Console(width=width, markup=False, emoji=False, highlight=False)


def _folded(names: Sequence[str], cells: Sequence[str], width: int) -> list[str]:
    """`name value` pairs, as many on a line as fit; one that is too long has its own line."""
    lines: list[str] = []
    for name, cell in zip(names, cells, strict=True):
        pair = f"{name} {cell}"
        if lines and len(lines[-1]) + 2 + len(pair) <= width:
            lines[-1] += f"  {pair}"
        else:
            lines.append(pair)
    return lines
