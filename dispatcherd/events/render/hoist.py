"""Versions as parts of a larger document, where `#` is the document and no longer the schema.

Invariant: what a schema's references led to, they lead to afterwards. Leaves out: the documents.
"""

from __future__ import annotations

import re
from typing import Any

from dispatcherd.events.catalogue import Catalogue, EventType, EventVersion, Schema
from dispatcherd.events.schema import LISTS_OF_SCHEMAS, MAPS_OF_SCHEMAS, SCHEMAS

PLACE = "#/components/schemas/"


def component(event: EventVersion) -> str:
    """The name of a version in a document: letters, digits and `. - _` only."""
    return f"{re.sub('[^A-Za-z0-9._-]', '_', event.type)}.v{event.version}"


def description(type_: EventType, event: EventVersion) -> str:
    """What a version is, in CommonMark."""
    parts = [type_.description]
    if event.changes:
        parts.append(f"Different from the version before: {event.changes}")
    if event.deprecated:
        parts.append(f"**Deprecated.** {event.deprecated}")
    return "\n\n".join(parts)


def components(catalogue: Catalogue) -> dict[str, Schema]:
    """The schemas of all versions, and what they define, by their names in a document."""
    found: dict[str, Schema] = {}
    for type_ in catalogue.types.values():
        for event in type_.versions.values():
            name = component(event)
            found[name] = _moved(event.schema, name)
            found |= {
                f"{name}.{_plain(key)}": _moved(below, name)
                for key, below in event.schema.get("$defs", {}).items()
            }
    return found


def _plain(name: str) -> str:
    return re.sub("[^A-Za-z0-9._-]", "_", name)


def _moved(schema: Any, name: str) -> Any:
    if not isinstance(schema, dict):
        return schema
    found: Schema = {}
    for key, below in schema.items():
        if key == "$ref":
            found[key] = _reference(below, name)
        elif key == "$schema" or key == "$defs":
            continue  # the document has a dialect of its own, and definitions are components
        elif key in MAPS_OF_SCHEMAS:
            found[key] = {inner: _moved(one, name) for inner, one in below.items()}
        elif key in LISTS_OF_SCHEMAS:
            found[key] = [_moved(one, name) for one in below]
        elif key in SCHEMAS:
            found[key] = _moved(below, name)
        else:
            found[key] = below
    return found


def _reference(reference: str, name: str) -> str:
    steps = reference.split("/")[1:]
    if steps[:1] == ["$defs"]:
        target = f"{name}.{_plain(steps[1].replace('~1', '/').replace('~0', '~'))}"
        return PLACE + "/".join([target, *steps[2:]])
    return PLACE + "/".join([name, *steps])
