"""`dispatcherd events`: look at the catalogue, check it, also against an earlier state, render it.

Invariant: nothing but `render` writes. Leaves out: what is wrong with a catalogue (events.lint,
events.compatibility) and what documents look like (events.render).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from dispatcherd.cli.table import show
from dispatcherd.config.load import load_config
from dispatcherd.errors import CatalogueError, CatalogueProblem, OutputRefused
from dispatcherd.events import SAMPLE, Catalogue, EventVersion, load
from dispatcherd.events.compatibility import Note, compatibility
from dispatcherd.events.fields import Field, fields
from dispatcherd.events.files import parse, read
from dispatcherd.events.history import earlier
from dispatcherd.events.lint import lint

if TYPE_CHECKING:
    from dispatcherd.events.render import About, Format


def directory(config_path: str | None, path: str | None, sample: bool = True) -> str:
    """Where the catalogue lies: as asked for, or as configured, or (said aloud) the demo's.

    Raises ConfigError; click.UsageError where the demo's will not do.
    """
    configured = path or load_config(config_path, os.environ).catalogue.path
    if configured is not None:
        return configured
    if not sample:
        raise click.UsageError("Say which catalogue: --path, or catalogue.path in --config.")
    click.echo("note: no catalogue is configured; this is the one of the demo", err=True)
    return str(SAMPLE)


def list_types(path: str, as_json: bool) -> None:
    """A line for each event type."""
    types = load(path).types.values()
    if as_json:
        for found in types:
            versions = {
                number: {"deprecated": version.deprecated}
                for number, version in found.versions.items()
            }
            _print({"type": found.type, "description": found.description, "versions": versions})
        return
    rows = [
        (
            found.type,
            ", ".join(
                f"{n} (deprecated)" if v.deprecated else n for n, v in found.versions.items()
            ),
            " ".join(found.description.split()),
        )
        for found in types
    ]
    show(("type", "versions", "description"), rows)
    click.echo(f"{len(rows)} event types")


def show_type(path: str, type_: str, version: str | None, as_json: bool) -> None:
    """One version of a type, with its fields and its example. Raises UnknownEvent."""
    catalogue = load(path)
    event = catalogue.event(type_, version)
    found = catalogue.types[event.type]
    if as_json:
        _print(
            {
                "type": event.type,
                "version": event.version,
                "description": found.description,
                "deprecated": event.deprecated,
                "changes": event.changes,
                "schema": event.schema,
                "example": event.example,
            }
        )
        return
    others = [number for number in found.versions if number != event.version]
    click.echo(f"{event.type} version {event.version}")
    click.echo(found.description)
    for word, text in (
        ("deprecated", event.deprecated),
        ("changes", event.changes),
        ("other versions", ", ".join(others)),
    ):
        if text:
            click.echo(f"{word}: {text}")
    click.echo()
    show(("field", "type", "", "meaning"), [_row(field) for field in fields(event.schema)])
    click.echo()
    click.echo(orjson.dumps(event.example, option=orjson.OPT_INDENT_2).decode())


def _row(field: Field) -> tuple[str, str, str, str]:
    rules = f" ({'; '.join(field.rules)})" if field.rules else ""
    kept = "required" if field.required else "deprecated" if field.deprecated else "optional"
    return field.name, field.type, kept, " ".join(field.description.split()) + rules


def check(path: str, against: str | None, as_json: bool) -> int:
    """The exit code: 0 when the catalogue is in order, 1 when not; each finding is named."""
    catalogue: Catalogue | None = None
    problems: Sequence[CatalogueProblem]
    notes: list[Note] = []
    try:
        sources = read(path)
        catalogue = parse(sources)
        problems = lint(catalogue, sources)
        if against is not None:
            before = earlier(path, against)
            if not before:
                click.echo(f"note: {against} has no catalogue in {path}: all is new", err=True)
            else:
                broken, notes = compatibility(parse(before), catalogue, sources)
                problems = [*problems, *broken]
    except CatalogueError as error:
        problems = error.problems
    if as_json:
        _print(
            {
                "problems": [problem._asdict() for problem in problems],
                "notes": [note._asdict() for note in notes],
            }
        )
    else:
        _report(catalogue, problems, notes)
    return 1 if problems else 0


def render(path: str, formats: Sequence[Format], out: str, about: About) -> None:
    """Write a document for each format into a directory. Raises CatalogueError, OutputRefused."""
    from dispatcherd.events.render import FORMATS  # templates and highlighters, for this only

    catalogue = load(path)
    folder = Path(out)
    for format_ in formats or FORMATS:
        document = FORMATS[format_]
        file = folder / document.file
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(document.render(catalogue, about), "utf-8")
        except OSError as error:
            raise OutputRefused(
                f"{file} cannot be written: {error.strerror}. Name another directory in --out"
            ) from error
        click.echo(file)


def _report(
    catalogue: Catalogue | None, problems: Sequence[CatalogueProblem], notes: Sequence[Note]
) -> None:
    for problem in problems:
        click.echo(str(problem))
    for note in notes:
        click.echo(f"compatible: {note}")
    if problems:
        click.echo(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}", err=True)
    elif catalogue is not None:
        versions: list[EventVersion] = [
            version for found in catalogue.types.values() for version in found.versions.values()
        ]
        click.echo(f"ok: {len(catalogue.types)} event types in {len(versions)} versions")


def _print(document: Any) -> None:
    sys.stdout.write(orjson.dumps(document).decode() + "\n")
