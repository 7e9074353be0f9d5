"""What a catalogue must be beyond readable: examples that are valid, every field described.

Invariant: pure; names every mistake at once, with its file and line. Leaves out: what keeps a file
from being read at all (files), and what changed (compatibility).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema_rs

from dispatcherd.errors import CatalogueProblem
from dispatcherd.events.catalogue import Catalogue, EventVersion, Schema
from dispatcherd.events.fields import fields, followed
from dispatcherd.events.schema import (
    DIALECT,
    LISTS_OF_SCHEMAS,
    MAPS_OF_SCHEMAS,
    SCHEMAS,
    Step,
    compiled,
    subschemas,
)
from dispatcherd.events.source import Source

_KEYWORDS = (
    *("$anchor", "$comment", "$defs", "$dynamicAnchor", "$dynamicRef", "$id", "$ref", "$schema"),
    *("$vocabulary", "const", "contentEncoding", "contentMediaType", "contentSchema", "default"),
    *("dependentRequired", "deprecated", "description", "enum", "examples", "exclusiveMaximum"),
    *("exclusiveMinimum", "format", "maxContains", "maxItems", "maxLength", "maxProperties"),
    *("maximum", "minContains", "minItems", "minLength", "minProperties", "minimum", "multipleOf"),
    *("pattern", "readOnly", "required", "title", "type", "uniqueItems", "writeOnly"),
    *MAPS_OF_SCHEMAS,
    *LISTS_OF_SCHEMAS,
    *SCHEMAS,
)

_Wrong = Iterator[tuple[Step, str, str]]
"""(path within a version, trouble, remedy)"""


def lint(catalogue: Catalogue, sources: Iterable[Source]) -> list[CatalogueProblem]:
    """Everything that is wrong with a catalogue that can be read."""
    by_name = {source.name: source for source in sources}
    problems = []
    for found in catalogue.types.values():
        source = by_name[found.file]
        for number, version in enumerate(found.versions.values()):
            for path, trouble, remedy in _wrong(version, first=number == 0):
                at = ("versions", version.version, *path)
                problems.append(source.problem(at, trouble, remedy))
    return problems


def _wrong(version: EventVersion, first: bool) -> _Wrong:
    if not first and version.changes is None:
        remedy = "Write `changes:`, a sentence for those who receive it"
        yield (), "nothing says what is different from the version before", remedy
    yield from _keywords(version.schema)
    yield from _descriptions(version.schema)
    yield from _values(version.schema)
    yield from _example(version)


def _keywords(schema: Schema) -> _Wrong:
    for path, below in subschemas(schema):
        for key in below:
            if key in _KEYWORDS or key.startswith("x-"):
                continue
            near = difflib.get_close_matches(key, _KEYWORDS, 1)
            remedy = f"Did you mean {near[0]}?" if near else f"Remove it; see {DIALECT}"
            yield ("schema", *path, key), "no keyword of JSON Schema, so nothing checks it", remedy


def _descriptions(schema: Schema) -> _Wrong:
    described = fields(schema)
    if not described:
        remedy = "Describe the fields of `data` under `properties`"
        yield ("schema",), "it describes no field", remedy
    for field in described:
        if not field.description:
            remedy = "Write `description:`, a sentence for those who receive it"
            yield ("schema", *field.path), f"the field {field.name} is not described", remedy
    for path, below in subschemas(schema):
        names = followed(schema, below).get("properties", {})
        for name in below.get("required", []):
            if name not in names:
                remedy = "Describe it under `properties`, or take it off"
                trouble = f"{name!r} is required and not described"
                yield ("schema", *path, "required"), trouble, remedy


def _values(schema: Schema) -> _Wrong:
    """Values of an enum, a const or a default that can never be."""
    for path, below in subschemas(schema):
        if "type" not in below:
            continue
        only_type = compiled({"type": below["type"]})
        for key in ("enum", "const", "default"):
            if key not in below:
                continue
            for value in below[key] if key == "enum" else [below[key]]:
                if not only_type.is_valid(value):
                    trouble = f"{value!r} is not of type {below['type']}"
                    remedy = "Correct it (yes, no, on, off and numbers are texts only in quotes)"
                    yield ("schema", *path, key), trouble, remedy


def _example(version: EventVersion) -> _Wrong:
    # The files are the reader's own: here the values may be shown.
    validator = jsonschema_rs.Draft202012Validator(
        version.schema, validate_formats=True, offline=True
    )
    for error in validator.iter_errors(version.example):
        path = ("example", *error.instance_path)
        yield path, f"not valid by its schema: {error.message[:200]}", "Correct one of the two"
    top = version.schema
    for name, path in _undescribed(top, [top], version.example, "", ("example",)):
        remedy = "Describe it in the schema, or take it out"
        yield path, f"the schema does not describe {name}", remedy


def _undescribed(
    top: Schema, schemas: list[Any], value: Any, name: str, path: Step
) -> Iterator[tuple[str, Step]]:
    """The fields of a value that its schema does not describe."""
    schemas = list(_parts(top, schemas))
    if isinstance(value, dict):
        for key, below in value.items():
            inner = f"{name}.{key}" if name else key
            named = [s["properties"][key] for s in schemas if key in s.get("properties", {})]
            others = [s.get("additionalProperties") for s in schemas]
            others += [one for s in schemas for one in s.get("patternProperties", {}).values()]
            described = named or [one for one in others if isinstance(one, dict)]
            if not described:
                yield inner, (*path, key)
            yield from _undescribed(top, described, below, inner, (*path, key))
    elif isinstance(value, list):
        items = [s["items"] for s in schemas if "items" in s]
        for index, below in enumerate(value):
            yield from _undescribed(top, items, below, f"{name}[]", (*path, index))


def _parts(top: Schema, schemas: list[Any]) -> Iterator[Schema]:
    """These schemas, and those that they are made of, with references followed."""
    seen: list[Schema] = []
    waiting = [schema for schema in schemas if isinstance(schema, dict)]
    while waiting:
        schema = followed(top, waiting.pop())
        if schema in seen:
            continue
        seen.append(schema)
        yield schema
        for key in ("allOf", "anyOf", "oneOf"):
            waiting += [one for one in schema.get(key, []) if isinstance(one, dict)]
        waiting += [schema[key] for key in ("then", "else") if isinstance(schema.get(key), dict)]
