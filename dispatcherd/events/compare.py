"""Two states of one schema: what has changed, and whether somebody could be hurt by it.

A change breaks when data that was valid is no longer (a producer is hurt), or when what receivers
could rely on is gone: a field, its type, its being there. New optional fields, new values of an
enum and wider bounds do not break; they are named all the same.

Invariant: whatever makes data invalid that was valid before, and whose fields the old schema
describes, is among the breaking changes: what cannot be judged keyword by keyword (`oneOf`, `if`,
`not` …) breaks when it differs at all. Leaves out: versions and types (compatibility).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from dispatcherd.events.catalogue import Schema
from dispatcherd.events.schema import (
    LISTS_OF_SCHEMAS,
    MAPS_OF_SCHEMAS,
    SCHEMAS,
    Step,
    resolve,
)

ANNOTATIONS = frozenset(
    (
        *("$anchor", "$comment", "$defs", "$id", "$schema", "default", "deprecated"),
        *("description", "examples", "readOnly", "title", "writeOnly"),
    )
)
"""Keywords that make no data valid or invalid."""
_AT_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_AT_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_EXACT = ("pattern", "format", "multipleOf")
_MONOTONE = ("allOf", "anyOf")
_JUDGED = frozenset(
    (
        *("type", "enum", "const", "required", "properties", "additionalProperties", "items"),
        *("uniqueItems", *_AT_LEAST, *_AT_MOST, *_EXACT, *_MONOTONE),
    )
)
_OVERARCHING = ("unevaluatedItems", "unevaluatedProperties", "$dynamicRef")
"""What these say depends on everything else in the schema."""
_DEEPEST = 20


@dataclass(frozen=True, slots=True)
class Change:
    """One difference."""

    path: Step
    """In the new schema; of what is gone, where it was."""
    field: str
    """`data`, `data.lines[].price`."""
    text: str
    breaking: bool


def compare(old: Schema, new: Schema) -> list[Change]:
    """What is different in `new`; nothing for schemas that mean the same to everybody."""
    return list(_Comparison(old, new).changes((), "data", old, new, 0))


class _Comparison:
    """One walk through two schemas side by side."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old, self._new = old, new

    def changes(
        self, path: Step, name: str, old: Any, new: Any, depth: int, mixed: bool = False
    ) -> Iterator[Change]:
        """What is different between two schemas that describe the same field.

        `mixed`: other schemas describe it as well, so that a field that is new in this one may be
        in one of those already.
        """
        if _same(_inlined(self._old, old), _inlined(self._new, new)):
            return

        def breaking(text: str, *step: str | int) -> Change:
            return Change((*path, *step), name, text, True)

        old, new = _plain(self._old, old), _plain(self._new, new)
        if depth > _DEEPEST or any(key in schema for key in _OVERARCHING for schema in (old, new)):
            yield breaking("changed in a way that cannot be judged")
            return
        before, after = _type(old), _type(new)
        if before != after:
            yield breaking(f"its type was {before} and is {after}", "type")
            return  # everything else about it is different too
        yield from _values(path, name, old, new)
        yield from _bounds(path, name, old, new)
        mixed |= _in_parts(self._old, old) or _in_parts(self._new, new)
        yield from self._properties(path, name, old, new, depth, mixed)
        yield from self._rest(path, name, old, new, depth)
        before, after = old.get("items", True), new.get("items", True)
        if before != after and True in (before, after):
            yield breaking("what its items may be has changed", "items")
        else:
            yield from self.changes((*path, "items"), f"{name}[]", before, after, depth + 1)
        for key in _MONOTONE:
            yield from self._alternatives(path, name, key, old, new, depth, mixed)
        for key in sorted((old.keys() | new.keys()) - _JUDGED - ANNOTATIONS):
            one, other = ({key: schema[key]} if key in schema else {} for schema in (old, new))
            if not key.startswith("x-") and not _same(
                _inlined(self._old, one), _inlined(self._new, other)
            ):
                yield breaking(f"`{key}` changed, which cannot be judged", key)

    def _properties(
        self, path: Step, name: str, old: Schema, new: Schema, depth: int, mixed: bool
    ) -> Iterator[Change]:
        before, after = old.get("properties", {}), new.get("properties", {})
        had, has = set(old.get("required", [])), set(new.get("required", []))
        for key in [*before, *(key for key in after if key not in before)]:
            at, field = (*path, "properties", key), f"{name}.{key}"
            if key not in after:
                yield Change(at, field, "it is removed", True)
                continue
            if key not in before:
                if "patternProperties" in old or mixed:
                    yield Change(at, field, "it is new where it cannot be judged", True)
                elif isinstance(old.get("additionalProperties"), dict):
                    others = old["additionalProperties"]
                    yield from self.changes(at, field, others, after[key], depth + 1)
                else:
                    required = key in has
                    text = f"it is new, and {'required' if required else 'optional'}"
                    yield Change(at, field, text, required)
                continue
            yield from self.changes(at, field, before[key], after[key], depth + 1)
            yield from _deprecation(at, field, before[key], after[key])
        for key in sorted(had ^ has):
            if (key in before) != (key in after):
                continue  # removed or new, and named as that
            required = key in has
            text = "it is required now" if required else "it was required and may be missing now"
            yield Change((*path, "required"), f"{name}.{key}", text, True)

    def _rest(
        self, path: Step, name: str, old: Schema, new: Schema, depth: int
    ) -> Iterator[Change]:
        """Of the fields that are not described by name."""
        before, after = old.get("additionalProperties", True), new.get("additionalProperties", True)
        at = (*path, "additionalProperties")
        if isinstance(before, dict) and isinstance(after, dict):
            yield from self.changes(at, f"{name}.*", before, after, depth + 1)
        elif before is False and after is not False:
            yield Change(at, name, "other fields are allowed now", False)
        elif before is not True and after is True:
            yield Change(at, name, "what its other fields may be is no longer said", True)
        elif before is not after:
            yield Change(at, name, "other fields are restricted now", True)

    def _alternatives(
        self, path: Step, name: str, key: str, old: Schema, new: Schema, depth: int, mixed: bool
    ) -> Iterator[Change]:
        before, after = old.get(key, []), new.get(key, [])
        if len(before) != len(after):
            wider = key == "anyOf" and 0 < len(before) < len(after)
            text = "there is another alternative" if wider else f"`{key}` has other members"
            yield Change((*path, key), name, text, not wider)
            if not wider:
                return
        for index, (one, other) in enumerate(zip(before, after, strict=False)):
            yield from self.changes((*path, key, index), name, one, other, depth + 1, mixed)


def _values(path: Step, name: str, old: Schema, new: Schema) -> Iterator[Change]:
    before, after = _allowed(old), _allowed(new)
    if before == after:
        return
    if before is None or after is None:
        text = "any value is possible now" if after is None else "only some values are allowed now"
        yield Change((*path, "enum"), name, text, after is not None)
        return
    for value in before.keys() - after.keys():
        yield Change((*path, "enum"), name, f"the value {before[value]} is gone", True)
    for value in after.keys() - before.keys():
        yield Change((*path, "enum"), name, f"there is a new value {after[value]}", False)


def _bounds(path: Step, name: str, old: Schema, new: Schema) -> Iterator[Change]:
    for key in (*_AT_LEAST, *_AT_MOST):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        narrower = after is not None and (
            before is None or (after > before if key in _AT_LEAST else after < before)
        )
        yield Change((*path, key), name, _was(key, before, after), narrower)
    for key in _EXACT:
        before, after = old.get(key), new.get(key)
        if before != after:
            yield Change((*path, key), name, _was(key, before, after), after is not None)
    if bool(old.get("uniqueItems")) != bool(new.get("uniqueItems")):
        text = "its items must differ now" if new.get("uniqueItems") else "its items may repeat now"
        yield Change((*path, "uniqueItems"), name, text, bool(new.get("uniqueItems")))


def _deprecation(path: Step, name: str, old: Any, new: Any) -> Iterator[Change]:
    def said(schema: Any) -> bool:
        return isinstance(schema, dict) and schema.get("deprecated") is True

    if said(new) and not said(old):
        yield Change(path, name, "it is deprecated now", False)


def _was(key: str, before: Any, after: Any) -> str:
    if before is None:
        return f"`{key}: {after}` is new"
    if after is None:
        return f"`{key}: {before}` is gone"
    return f"`{key}` was {before} and is {after}"


def _type(schema: Schema) -> str:
    said = schema.get("type", "anything")
    return said if isinstance(said, str) else " or ".join(sorted(said))


def _allowed(schema: Schema) -> dict[str, str] | None:
    """The values that an enum or a const leaves, by their JSON; None for any."""
    if "enum" not in schema and "const" not in schema:
        return None
    values = schema.get("enum", [schema.get("const")])
    if "enum" in schema and "const" in schema:
        values = [value for value in values if _same(value, schema["const"])]
    return {_json(value): _json(value) for value in values}


def _plain(top: Schema, schema: Any) -> Schema:
    """An object for `true` and `false`; a reference replaced by what it leads to, where it stands
    beside rules of its own as one more of `allOf`."""
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    plain: Schema = schema
    for _ in range(_DEEPEST):
        if "$ref" not in plain:
            break
        beside = {key: value for key, value in plain.items() if key != "$ref"}
        target = resolve(top, plain["$ref"])
        if beside.keys() - ANNOTATIONS:
            plain = {**beside, "allOf": [*beside.get("allOf", []), {"$ref": plain["$ref"]}]}
            break
        plain = {**target, **beside}
    return plain


def _inlined(top: Schema, schema: Any, within: tuple[str, ...] = ()) -> Any:
    """A schema with every reference replaced but those that lead in circles, and without
    annotations: equal ones mean the same."""
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for key, below in schema.items():
        if key == "$ref" and below not in within:
            found[key] = _inlined(top, resolve(top, below), (*within, below))
        elif key in MAPS_OF_SCHEMAS and key != "$defs":
            found[key] = {name: _inlined(top, one, within) for name, one in below.items()}
        elif key in LISTS_OF_SCHEMAS:
            found[key] = [_inlined(top, one, within) for one in below]
        elif key in SCHEMAS:
            found[key] = _inlined(top, below, within)
        elif key == "deprecated" or key not in ANNOTATIONS:
            found[key] = below
    return found


def _in_parts(top: Schema, schema: Schema) -> bool:
    """Whether the rules for one field may stand in several places of a schema."""
    places = 1 if "properties" in schema else 0
    for key in ("allOf", "anyOf", "oneOf"):
        for below in schema.get(key, []):
            plain = _plain(top, below)
            places += "properties" in plain or _in_parts(top, plain)
    return places > 1


def _same(one: Any, other: Any) -> bool:
    return _json(one) == _json(other)


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
