"""JSON Schema 2020-12 as the catalogue uses it: usable or not, compiled, its references followed.

Invariant: nothing is ever fetched: a schema that refers outside of itself is unusable. Leaves out:
what a schema means to people (fields) and what a change of it breaks (compatibility).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema_rs

from dispatcherd.events.catalogue import Schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_META = {"$schema": DIALECT, "$ref": DIALECT}
_MASK = "the value"

MAPS_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "dependentSchemas")
LISTS_OF_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems")
SCHEMAS = (
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
)
TYPES = ("string", "integer", "number", "boolean", "object", "array", "null")

Step = tuple[str | int, ...]


def compiled(schema: Schema) -> jsonschema_rs.Draft202012Validator:
    """Ready to check values; formats count, and messages hold nothing of a value."""
    return jsonschema_rs.Draft202012Validator(
        schema, validate_formats=True, mask=_MASK, offline=True
    )


def unusable(schema: Schema) -> Iterator[tuple[Step, str, str]]:
    """(path, trouble, remedy) of what keeps a schema from being one for an event's data."""
    wrong = list(_against_the_dialect(schema))
    yield from wrong
    if wrong:
        return
    outside = [(path, ref) for path, ref in _references(schema) if not resolves(schema, ref)]
    for path, ref in outside:
        trouble = f"it refers to {ref!r}, which is not in this schema"
        yield path, trouble, "Put it into $defs here and refer to '#/$defs/…'"
    if outside:
        return
    if schema.get("type") != "object":
        yield ("type",), "an event's data is an object", "Write `type: object`"
    try:
        compiled(schema)
    except jsonschema_rs.ValidationError as error:
        yield tuple(error.instance_path), f"not JSON Schema: {error.message}", "Mend it"


@cache
def _dialect() -> jsonschema_rs.Draft202012Validator:
    """What holds of every schema; made once, for that takes milliseconds."""
    return jsonschema_rs.Draft202012Validator(_META, validate_formats=True, offline=True)


def _against_the_dialect(schema: Schema) -> Iterator[tuple[Step, str, str]]:
    said = schema.get("$schema", DIALECT)
    if said != DIALECT:
        yield ("$schema",), f"another dialect: {said!r}", f"Write {DIALECT}, or leave it out"
        return
    for error in _dialect().iter_errors(schema):
        path = tuple(error.instance_path)
        if path and path[-1] == "type":
            yield path, "no type of JSON", f"Write one of {', '.join(TYPES)}, or a list of them"
        else:
            yield path, f"not JSON Schema: {error.message}", "Mend it"


def subschemas(schema: Any, path: Step = ()) -> Iterator[tuple[Step, Schema]]:
    """Every schema within a schema, itself first, with its path. References are not followed."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for key in MAPS_OF_SCHEMAS:
        for name, below in schema.get(key, {}).items():
            yield from subschemas(below, (*path, key, name))
    for key in LISTS_OF_SCHEMAS:
        for index, below in enumerate(schema.get(key, [])):
            yield from subschemas(below, (*path, key, index))
    for key in SCHEMAS:
        if key in schema:
            yield from subschemas(schema[key], (*path, key))


def _references(schema: Schema) -> Iterator[tuple[Step, str]]:
    for path, below in subschemas(schema):
        for key in ("$ref", "$dynamicRef"):
            if key in below:
                yield (*path, key), below[key]


def resolves(schema: Schema, reference: str) -> bool:
    """Whether a reference leads to a schema within this one: `#` or `#/$defs/money`."""
    try:
        resolve(schema, reference)
    except LookupError:
        return False
    return True


def resolve(schema: Schema, reference: str) -> Schema:
    """The schema that a reference within `schema` leads to. Raises LookupError."""
    if reference != "#" and not reference.startswith("#/"):
        raise LookupError(reference)
    found: Any = schema
    for step in reference.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal():
            found = found[int(name)]
        elif isinstance(found, dict):
            found = found[name]
        else:
            raise LookupError(reference)
    if not isinstance(found, dict):
        raise LookupError(reference)
    return found
