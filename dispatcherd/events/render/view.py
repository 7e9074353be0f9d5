"""What the page and the Markdown show of the catalogue, ready for a template.

Invariant: a template decides only how things look. Leaves out: templates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined

from dispatcherd.events.catalogue import Catalogue, EventType, EventVersion
from dispatcherd.events.compare import Change, compare
from dispatcherd.events.fields import Field, fields
from dispatcherd.events.render.about import (
    ANSWERS,
    About,
    Header,
    headers,
    samples,
    schedule,
    timeout_seconds,
)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a type."""

    event: EventVersion
    fields: list[Field]
    headers: list[Header]
    body: str
    """JSON, indented."""
    since: list[Change]
    """What is different from the version before."""
    before: str | None
    """The version before."""
    current: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """One event type; its current version first, then the others, newest first."""

    type: EventType
    versions: list[Version]


def context(catalogue: Catalogue, about: About) -> dict[str, Any]:
    """The variables of a template."""
    groups: dict[str, list[Shown]] = {}
    for type_ in catalogue.types.values():
        group = type_.type.partition(".")[0]
        groups.setdefault(group, []).append(_shown(type_, about))
    return {
        "about": about,
        "groups": groups,
        "types": len(catalogue.types),
        "answers": ANSWERS,
        "samples": samples(),
        "schedule": schedule(),
        "timeout_seconds": timeout_seconds(),
        "some": next(iter(groups.values()))[0].versions[0],
    }


def environment(autoescape: bool) -> Environment:
    """Where templates come from; a variable that is missing is an error."""
    return Environment(
        loader=PackageLoader("dispatcherd.events.render"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _shown(type_: EventType, about: About) -> Shown:
    versions = list(_versions(type_, about))
    versions.sort(key=lambda version: version.current)
    return Shown(type_, versions[::-1])


def _versions(type_: EventType, about: About) -> Iterator[Version]:
    before: EventVersion | None = None
    for event in type_.versions.values():
        yield Version(
            event,
            fields(event.schema),
            headers(event),
            orjson.dumps(about.body(event), option=orjson.OPT_INDENT_2).decode(),
            compare(before.schema, event.schema) if before is not None else [],
            before.version if before is not None else None,
            event is type_.current,
        )
        before = event
