"""Whether a catalogue keeps what an earlier state of it promised.

The rule: a version, once published, changes only in ways that hurt nobody (compare); for anything
else there is a new version beside it. A version goes only after it was marked as deprecated.

Invariant: pure; the earlier examples are valid in the new state, or it is said why not. Leaves out:
where the earlier state comes from (history).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dispatcherd.errors import CatalogueProblem
from dispatcherd.events.catalogue import Catalogue, EventType, EventVersion
from dispatcherd.events.compare import compare
from dispatcherd.events.schema import compiled
from dispatcherd.events.source import Source

_NEW_VERSION = "Leave this version as it was, and describe the change in a new one"
_DEPRECATE = "Put it back, and mark it as `deprecated:` for a while first"


class Note(NamedTuple):
    """A change that hurts nobody."""

    type: str
    version: str
    """Empty for a type as a whole."""
    text: str

    def __str__(self) -> str:
        return f"{self.type}{f' version {self.version}' if self.version else ''}: {self.text}"


def compatibility(
    old: Catalogue, new: Catalogue, sources: Iterable[Source]
) -> tuple[list[CatalogueProblem], list[Note]]:
    """What of `old` is broken in `new`, and what has changed without breaking anything.

    `sources` are those of `new`.
    """
    by_name = {source.name: source for source in sources}
    problems: list[CatalogueProblem] = []
    notes: list[Note] = []
    for type_, before in old.types.items():
        after = new.types.get(type_)
        if after is None:
            if any(version.deprecated is None for version in before.versions.values()):
                trouble = f"the event type {type_} is gone"
                problems.append(CatalogueProblem(before.file, None, "", trouble, _DEPRECATE))
            else:
                notes.append(Note(type_, "", "it is gone, and was deprecated"))
            continue
        for found in _versions(by_name[after.file], before, after):
            (notes if isinstance(found, Note) else problems).append(found)  # type: ignore[arg-type]
    notes += [Note(type_, "", "it is new") for type_ in new.types if type_ not in old.types]
    return problems, notes


def _versions(
    source: Source, before: EventType, after: EventType
) -> Iterator[CatalogueProblem | Note]:
    for number, version in before.versions.items():
        now = after.versions.get(number)
        if now is not None:
            yield from _version(source, version, now)
        elif version.deprecated is None:
            yield source.problem(["versions"], f"version {number} is gone", _DEPRECATE)
        else:
            yield Note(before.type, number, "it is gone, and was deprecated")
    for number in after.versions:
        if number not in before.versions:
            yield Note(after.type, number, "it is new")


def _version(
    source: Source, before: EventVersion, after: EventVersion
) -> Iterator[CatalogueProblem | Note]:
    at = ("versions", after.version)
    broken = False
    for change in compare(before.schema, after.schema):
        if change.breaking:
            broken = True
            path = (*at, "schema", *change.path)
            yield source.problem(path, f"{change.field}: {change.text}", _NEW_VERSION)
        else:
            yield Note(after.type, after.version, f"{change.field}: {change.text}")
    if not broken and not compiled(after.schema).is_valid(before.example):
        # Fields outside of the schema are nobody's promise, but this one was shown.
        error = next(compiled(after.schema).iter_errors(before.example))
        path = (*at, "schema")
        trouble = f"the example that was shown is no longer valid: {error.message}"
        yield source.problem(path, trouble, _NEW_VERSION)
    if after.deprecated is not None and before.deprecated is None:
        yield Note(after.type, after.version, f"it is deprecated now: {after.deprecated}")
    if after.deprecated is None and before.deprecated is not None:
        yield Note(after.type, after.version, "it is no longer deprecated")
