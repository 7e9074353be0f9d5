"""From files to a `Catalogue`, or to every mistake in them at once.

One event type a file, `events/order.created.yaml` (JSON is taken too):

    type: order.created
    description: A customer has placed an order.
    versions:
      "1":
        deprecated: Since May 2026; use version 2.
        schema: {type: object, properties: {…}, required: […]}
        example: {…}
      "2":
        changes: The total is in cents.
        schema: …
        example: …

Invariant: a type that stands in the result has at least one version, each with a schema that
compiles and refers to nothing outside of itself. Leaves out: whether the examples fit and every
field is described (lint).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dispatcherd.errors import CatalogueError, CatalogueProblem
from dispatcherd.events.catalogue import Catalogue, EventType, EventVersion
from dispatcherd.events.schema import unusable
from dispatcherd.events.source import Source

SAMPLE = Path(__file__).with_name("sample")
"""The catalogue of the demo: a small shop's events."""

SUFFIXES = (".yaml", ".yml", ".json")
_MOST_BYTES = 4 * 1024 * 1024
_is_type = re.compile(r"[A-Za-z0-9_.:/-]{1,128}").fullmatch
_is_version = re.compile(r"[A-Za-z0-9_.-]{1,32}").fullmatch
_OF_TYPE = ("type", "description", "versions")
_OF_VERSION = ("schema", "example", "deprecated", "changes")

_Found = Iterator[CatalogueProblem]


def load(path: str | Path) -> Catalogue:
    """The catalogue in a directory. Raises CatalogueError with all its mistakes."""
    return parse(read(path))


def read(path: str | Path) -> list[Source]:
    """The files of a directory, by name; files that end otherwise, and folders, are left alone.

    Raises CatalogueError.
    """
    folder = Path(path)
    try:
        files = sorted(f for f in folder.iterdir() if f.suffix in SUFFIXES and f.is_file())
        sources = [_read_file(file) for file in files]
    except OSError as error:
        name, trouble = error.filename or folder, error.strerror or str(error)
        raise _refused(str(name), f"cannot be read: {trouble}", "Check the path") from error
    if not sources:
        trouble = "there is no event type in it"
        raise _refused(str(folder), trouble, "Write one file a type: order.created.yaml")
    return sources


def parse(sources: Iterable[Source]) -> Catalogue:
    """Raises CatalogueError with all mistakes of all files."""
    types: dict[str, EventType] = {}
    problems: list[CatalogueProblem] = []
    for source in sources:
        try:
            found = _event_type(source)
            other = types.get(found.type)
            if other is not None:
                trouble = f"{found.type} is described in {other.file} already"
                raise CatalogueError([source.problem(["type"], trouble, "Keep one of the two")])
            types[found.type] = found
        except CatalogueError as error:
            problems += error.problems
    if problems:
        raise CatalogueError(problems)
    return Catalogue(dict(sorted(types.items())))


def _read_file(file: Path) -> Source:
    with file.open("rb") as opened:
        raw = opened.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise _refused(str(file), "larger than 4 MiB", "Describe one event type a file")
    try:
        return Source(str(file), raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = CatalogueProblem(str(file), line, "", "not UTF-8", "Save the file as UTF-8")
        raise CatalogueError([problem]) from error


def _refused(file: str, trouble: str, remedy: str) -> CatalogueError:
    return CatalogueError([CatalogueProblem(file, None, "", trouble, remedy)])


def _event_type(source: Source) -> EventType:
    document = source.parse()
    problems = list(_wrong_in_type(source, document))
    if problems:
        raise CatalogueError(problems)
    type_ = document["type"]
    versions = {
        str(number): EventVersion(
            type_,
            str(number),
            body["schema"],
            body["example"],
            body.get("deprecated"),
            body.get("changes"),
        )
        for number, body in document["versions"].items()
    }
    return EventType(type_, document["description"].strip(), versions, source.name)


def _wrong_in_type(source: Source, document: Any) -> _Found:
    if not isinstance(document, dict):
        yield source.problem([], "no mapping", "Begin with `type:`, `description:`, `versions:`")
        return
    yield from _unknown_keys(source, [], document, _OF_TYPE)
    type_ = document.get("type")
    if not isinstance(type_, str) or not _is_type(type_):
        remedy = "Write the event type: 1-128 characters of A-Z a-z 0-9 _ . : / -"
        yield source.problem(["type"], _is("the event type", type_), remedy)
    if not _text(document.get("description")):
        trouble = _is("the description", document.get("description"))
        yield source.problem(["description"], trouble, "Say when this event happens")
    versions = document.get("versions")
    if not isinstance(versions, dict) or not versions:
        remedy = 'Write `versions:` with at least `"1":` below it'
        yield source.problem(["versions"], _is("the mapping of versions", versions), remedy)
        return
    for number, body in versions.items():
        at = ["versions", str(number)]
        if not _is_version(str(number)):
            trouble = "no version that an event can have"
            yield source.problem(at, trouble, "Write 1-32 characters of A-Z a-z 0-9 _ . -")
        if isinstance(body, dict):
            yield from _wrong_in_version(source, at, body)
        else:
            remedy = "Write `schema:` and `example:` below it"
            yield source.problem(at, _is("the version", body), remedy)


def _wrong_in_version(source: Source, at: list[str], body: dict[str, Any]) -> _Found:
    yield from _unknown_keys(source, at, body, _OF_VERSION)
    for name in ("deprecated", "changes"):
        if name in body and not _text(body[name]):
            remedy = {
                "deprecated": "Say since when, and what to use instead",
                "changes": "Say what is different from the version before",
            }[name]
            yield source.problem([*at, name], _is(f"`{name}`", body[name]), remedy)
    if not isinstance(body.get("example"), dict):
        trouble = _is("the example", body.get("example"))
        yield source.problem([*at, "example"], trouble, "Write the event's `data`, an object")
    schema = body.get("schema")
    if not isinstance(schema, dict):
        remedy = "Write the JSON Schema of the event's `data`"
        yield source.problem([*at, "schema"], _is("the schema", schema), remedy)
        return
    for path, trouble, remedy in unusable(schema):
        yield source.problem([*at, "schema", *path], trouble, remedy)


def _unknown_keys(
    source: Source, at: Sequence[str], mapping: dict[str, Any], known: tuple[str, ...]
) -> _Found:
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            remedy = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}"
            yield source.problem([*at, str(key)], "no such key", remedy)


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is(what: str, value: Any) -> str:
    """What is wrong with a value that is not what it must be."""
    kinds = {dict: "a mapping", list: "a list", bool: "true or false", int: "a number"}
    if value is None:
        return f"{what} is missing"
    if isinstance(value, str):
        return f"{what} is {value[:60]!r}"
    return f"{what} is {kinds.get(type(value), 'a number')}"
