"""What the demo shows: steps, live progress, the table, the sums, where to look next.

Invariant: where the output is no terminal there are no control codes, and progress is a line every
two seconds. Leaves out: everything that happens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rich.box import SIMPLE
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dispatcherd import __version__
from dispatcherd.demo.scenario import ROLES, End, Role
from dispatcherd.demo.tally import Books, Received, Recorded

_SECONDS_BETWEEN_LINES = 2.0
_WIDE = 120
"""From this width on the table has room for what each row shows."""
_COLOURS = {End.DELIVERED: "green", End.OWED: "yellow", End.DEAD: "red"}


class Counts(NamedTuple):
    """Of one endpoint, so far."""

    routed: int = 0
    delivered: int = 0
    owed: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far it is."""

    seconds: float
    published: int
    events: int
    quarantined: int
    endpoints: Mapping[str, Counts] = field(default_factory=dict)

    def total(self) -> Counts:
        """Of all endpoints."""
        return Counts(*map(sum, zip(*self.endpoints.values(), strict=True)))


class View:
    """Prints to one console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        unicode = console.encoding.lower().startswith("utf")
        self._yes, self._no = ("✓", "✗") if unicode else ("ok", "!!")
        self._bar = "█▒░" if unicode else "#=x"
        self._line_at = 0.0

    # --- before ----------------------------------------------------------------------------

    def title(self, events: int) -> None:
        """What is going to happen."""
        self._print(f"[bold]dispatcherd {__version__} demo[/]")
        self._print(
            f"{events:,} events from Kafka to {len(ROLES)} webhook endpoints, not all of which "
            "behave.\n"
        )

    def step(self, what: str, detail: str) -> None:
        """One part is up."""
        line = Text.assemble((f"{self._yes} ", "green"), (f"{what:<10}", "bold"), detail)
        self._print(line)

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Something takes a moment."""
        if self._console.is_terminal:
            with self._console.status(what):
                yield
        else:
            yield

    # --- meanwhile -------------------------------------------------------------------------

    @contextlib.contextmanager
    def progress(self) -> Iterator[Live | None]:
        """Around calls of `update`."""
        self._console.print()
        if not self._console.is_terminal:
            yield None
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            yield live

    def update(self, live: Live | None, snapshot: Snapshot, last: bool = False) -> None:
        """Show how far it is."""
        if live is not None:
            live.update(self._picture(snapshot), refresh=True)
        elif last or snapshot.seconds >= self._line_at:
            self._line_at = snapshot.seconds + _SECONDS_BETWEEN_LINES
            total = snapshot.total()
            self._print(
                f"{snapshot.seconds:5.1f} s  {snapshot.published:,} published, "
                f"{total.delivered:,} delivered, {total.owed:,} owed, {total.dead:,} dead letters"
                + ("\n" if last else "")
            )

    def _picture(self, snapshot: Snapshot) -> RenderableType:
        total = snapshot.total()
        width = max(10, min(48, self._console.width - 48))
        lines: list[RenderableType] = [
            Text.assemble(
                (f"published {snapshot.published:,} of {snapshot.events:,}", "bold"),
                f"   {total.delivered:,} delivered   {snapshot.quarantined:,} in quarantine"
                f"   {snapshot.seconds:.1f} s",
            ),
            Text(),
        ]
        most = max((counts.routed for counts in snapshot.endpoints.values()), default=0)
        for role in ROLES:
            counts = snapshot.endpoints.get(role.name, Counts())
            lines.append(self._bar_of(role, counts, most, width))
        key = Text("\n")
        for glyph, state in zip(self._bar, End, strict=True):
            key.append(f"{glyph} ", _COLOURS[state])
            key.append(f"{state.value}   ", "dim")
        return Group(*lines, key)

    def _bar_of(self, role: Role, counts: Counts, most: int, width: int) -> Text:
        line = Text.assemble((f"{role.name:<12}", "bold"), (f"{role.says:<20}", "dim"))
        used = 0
        for glyph, state in zip(self._bar, End, strict=True):
            count = getattr(counts, state.value)
            length = round(width * count / most) if most else 0
            line.append(glyph * length, _COLOURS[state])
            used += length
        rest = round(width * counts.routed / most) - used if most else 0
        line.append("·" * max(0, rest), "dim")
        return line.append(f" {counts.routed:,}", "dim")

    # --- after -----------------------------------------------------------------------------

    def table(self, books: Books) -> None:
        """What became of every delivery, by endpoint."""
        wide = self._console.width >= _WIDE
        table = Table(box=SIMPLE, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        table.add_column("endpoint", no_wrap=True)
        for column in ("delivered", "retries", "owed", "dead", "p50", "p99"):
            table.add_column(column, justify="right", no_wrap=True)
        if wide:
            table.add_column("what it shows")
        for role in ROLES:
            recorded = books.recorded.get(role.name, Recorded())
            table.add_row(
                role.name,
                _count(recorded.delivered, "green"),
                _count(recorded.retries),
                _count(recorded.owed, "yellow"),
                _count(recorded.dead, "red"),
                _duration(recorded.p50_seconds),
                _duration(recorded.p99_seconds),
                *([_shows(role, recorded)] if wide else []),
            )
        self._print(table)
        if not wide:
            grid = Table.grid(padding=(0, 1))
            for role in ROLES:
                shows = _shows(role, books.recorded.get(role.name, Recorded()))
                grid.add_row(Text(role.name, "bold"), shows)
            self._print("")
            self._print(grid)
        self._print(
            "\n[dim]retries: attempts after the first. p50, p99: from publishing to the receiver's "
            "200, the waits between retries included.[/]\n"
        )

    def sums(self, books: Books, problems: Sequence[str]) -> None:
        """Whether the counts add up; what does not, by name."""
        if problems:
            self._print("[bold red]The counts do not add up[/]")
            grid = Table.grid(padding=(0, 1))
            for problem in problems:
                grid.add_row(Text(self._no, "red"), problem)
            self._print(grid)
            return
        self._print("[bold]The counts add up[/]")
        grid = Table.grid(padding=(0, 1))
        for line in _confirmations(books):
            grid.add_row(Text(self._yes, "green"), line)
        self._print(grid)

    def commands(self, heading: str, commands: Sequence[tuple[str, str]]) -> None:
        """What there is to see, and the command for it; never wrapped, so that it can be copied."""
        self._print(f"\n[bold]{heading}[/]")
        for command, meaning in commands:
            self._print(Text(f"  {meaning}", "dim"))
            self._console.print(Text(f"    {command}"), soft_wrap=True)

    def say(self, text: str) -> None:
        """A line, as it is."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _print(self, renderable: RenderableType) -> None:
        """In a file or a pipe without the blanks that fill lines up."""
        if self._console.is_terminal:
            self._console.print(renderable)
            return
        with self._console.capture() as captured:
            self._console.print(renderable)
        for line in captured.get().splitlines():
            self.say(line.rstrip())


def _shows(role: Role, recorded: Recorded) -> str:
    numbers = {name: f"{getattr(recorded, name):,}" for name in ("delivered", "retries",
               "owed", "dead", "timeouts", "exchanges")}  # fmt: skip
    return role.shows.format(**numbers)


def _confirmations(books: Books) -> Iterator[str]:
    routed = sum(books.routed.values())
    delivered, owed, dead = (books.total(state) for state in End)
    yield (
        f"{routed:,} deliveries routed = {delivered:,} delivered + {owed:,} owed + {dead:,} dead "
        "letters"
    )
    received = [books.received.get(name, Received()) for name in books.routed]
    requests = sum(counts.requests for counts in received)
    yield f"the receivers accepted those {delivered:,} events, none of them twice"
    yield f"they saw {requests:,} requests, each one is in Postgres, every signature verified"
    bad = ", ".join(f"{reason} {count}" for reason, count in books.quarantined.items())
    yield f"{sum(books.quarantined.values())} records were no events: in quarantine ({bad})"
    yield (
        f"every offset of {len(books.log_ends)} partitions is settled in Postgres and committed "
        "to Kafka"
    )


def _count(number: int, style: str = "") -> Text:
    return Text(f"{number:,}" if number else "-", style if number else "dim")


def _duration(seconds: float | None) -> Text:
    if seconds is None:
        return Text("-", "dim")
    return Text(f"{seconds * 1_000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s")
