"""A schema as people read it: one line for each field, with its type, its rules and what it means.

Invariant: every field that a schema describes by `properties`, in objects and arrays, through
references and alternatives, is named once; a recursive schema ends where it begins to repeat.
Leaves out: how the lines are shown (render).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from dispatcherd.events.catalogue import Schema
from dispatcherd.events.schema import Step, resolve

_RULES = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "above {}"),
    ("maximum", "at most {}"),
    ("exclusiveMaximum", "below {}"),
    ("multipleOf", "a multiple of {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} items"),
    ("maxItems", "at most {} items"),
    ("minProperties", "at least {} fields"),
    ("maxProperties", "at most {} fields"),
)
_ALTERNATIVES = ("allOf", "anyOf", "oneOf")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an event's data."""

    name: str
    """`lines[].price`: from the top of `data`; `[]` is each item of an array."""
    path: Step
    """Where it stands in the schema."""
    schema: Schema
    """With its references followed."""
    type: str
    """In words: `string`, `array of object`, `string or null`."""
    required: bool
    """Whether it is there whenever what contains it is."""
    description: str
    rules: tuple[str, ...]
    """What else is promised: bounds, allowed values, format."""
    deprecated: bool
    depth: int
    """0 at the top of `data`."""


def fields(schema: Schema) -> list[Field]:
    """All fields of a schema of an event's data, in its order, each before those within it."""
    found: dict[str, Field] = {}
    for field in _within(schema, schema, "", (), 0, frozenset("#")):
        found.setdefault(field.name, field)  # alternatives may share a field
    return list(found.values())


def followed(top: Schema, schema: Schema) -> Schema:
    """A schema with the one that its `$ref` leads to merged into it; what stands beside wins."""
    return _follow(top, schema)[0]


def _follow(top: Schema, schema: Schema) -> tuple[Schema, frozenset[str]]:
    """The same, and the references that were followed."""
    seen: set[str] = set()
    while "$ref" in schema and schema["$ref"] not in seen:
        seen.add(schema["$ref"])
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**resolve(top, schema["$ref"]), **beside}
    return schema, frozenset(seen)


def _within(
    top: Schema, schema: Any, name: str, path: Step, depth: int, within: frozenset[str]
) -> Iterator[Field]:
    """The fields of an object, or of the objects in an array.

    `within`: the references that led here; where one leads here again, the schema repeats itself.
    """
    if not isinstance(schema, dict):
        return
    schema, references = _follow(top, schema)
    if references & within:
        return
    within |= references
    required = schema.get("required", [])
    for key, below in schema.get("properties", {}).items():
        full = followed(top, below) if isinstance(below, dict) else {}
        inner = f"{name}.{key}" if name else key
        at = (*path, "properties", key)
        yield Field(
            inner,
            at,
            full,
            _type(top, full),
            key in required,
            str(full.get("description", "")).strip(),
            tuple(_rules(top, full)),
            full.get("deprecated") is True,
            depth,
        )
        yield from _within(top, below, inner, at, depth + 1, within)
    yield from _within(top, schema.get("items"), f"{name}[]", (*path, "items"), depth, within)
    for key in _ALTERNATIVES:
        for index, below in enumerate(schema.get(key, [])):
            yield from _within(top, below, name, (*path, key, index), depth, within)


def _type(top: Schema, schema: Schema) -> str:
    said = schema.get("type")
    if isinstance(said, list):
        return " or ".join(_typed(top, schema, one) for one in said)
    if isinstance(said, str):
        return _typed(top, schema, said)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            kinds = [_type(top, followed(top, b)) for b in schema[key] if isinstance(b, dict)]
            return " or ".join(dict.fromkeys(kinds))
    if "const" in schema or "enum" in schema:
        return "one of the values"
    return "object" if "properties" in schema else "anything"


def _typed(top: Schema, schema: Schema, type_: str) -> str:
    items = schema.get("items")
    if type_ != "array" or not isinstance(items, dict):
        return type_
    return f"array of {_type(top, followed(top, items))}"


def _rules(top: Schema, schema: Schema) -> Iterator[str]:
    if "const" in schema:
        yield f"always {_value(schema['const'])}"
    if "enum" in schema:
        yield f"one of {', '.join(map(_value, schema['enum']))}"
    if "format" in schema:
        yield f"format {schema['format']}"
    if "pattern" in schema:
        yield f"pattern {schema['pattern']}"
    for key, words in _RULES:
        if key in schema:
            one = schema[key] == 1 and words.endswith("s")
            yield (words[:-1] if one else words).format(_value(schema[key]))
    if schema.get("uniqueItems") is True:
        yield "no item twice"
    if schema.get("additionalProperties") is False:
        yield "no other fields"
    if "default" in schema:
        yield f"{_value(schema['default'])} where it is missing"
    items = schema.get("items")
    if isinstance(items, dict):
        for rule in _rules(top, followed(top, items)):
            yield f"each: {rule}"


def _value(value: Any) -> str:
    return value if isinstance(value, str) and value else orjson.dumps(value).decode()
