"""A schema as a list of fields: each named once, with its type, its rules and its meaning."""

from __future__ import annotations

from typing import Any

from dispatcherd.events.fields import fields


def table(schema: dict[str, Any]) -> dict[str, str]:
    """Field → type and rules."""
    return {field.name: "; ".join([field.type, *field.rules]) for field in fields(schema)}


def test_fields_stand_in_the_order_of_the_schema_each_before_those_within_it() -> None:
    price = {"type": "number", "exclusiveMinimum": 0, "maximum": 9.5}
    line = {"type": "object", "properties": {"price": price}, "required": ["price"]}
    schema = {
        "required": ["lines"],
        "properties": {
            "lines": {"type": "array", "items": line, "minItems": 1, "uniqueItems": True},
            "state": {"enum": ["open", None, 3]},
            "codes": {"type": "array", "items": {"type": "string", "minLength": 1}},
            "kind": {"const": "x", "default": "x"},
            "map": {"type": "object", "additionalProperties": False},
        },
    }
    assert list(table(schema).items()) == [
        ("lines", "array of object; at least 1 item; no item twice"),
        ("lines[].price", "number; above 0; at most 9.5"),
        ("state", "one of the values; one of open, null, 3"),
        ("codes", "array of string; each: at least 1 character"),
        ("kind", "one of the values; always x; x where it is missing"),
        ("map", "object; no other fields"),
    ]
    found = fields(schema)
    assert [(field.required, field.depth) for field in found[:3]] == [
        (True, 0),
        (True, 1),
        (False, 0),
    ]


def test_references_are_followed_and_what_stands_beside_one_wins() -> None:
    schema = {
        "properties": {
            "net": {"$ref": "#/$defs/money", "description": "Without taxes."},
            "gross": {"$ref": "#/$defs/money"},
        },
        "$defs": {"money": {"type": "number", "minimum": 0, "description": "A sum."}},
    }
    assert [field.description for field in fields(schema)] == ["Without taxes.", "A sum."]
    assert set(table(schema).values()) == {"number; at least 0"}


def test_alternatives_are_named_and_a_field_that_they_share_once() -> None:
    card = {"properties": {"kind": {"const": "card"}, "digits": {"type": "string"}}}
    cash = {"properties": {"kind": {"const": "cash"}, "till": {"type": "integer"}}}
    schema = {"properties": {"paid": {"oneOf": [card, cash, {"type": "null"}]}}}
    assert list(table(schema)) == ["paid", "paid.kind", "paid.digits", "paid.till"]
    assert table(schema)["paid"] == "object or null"


def test_a_schema_that_contains_itself_ends() -> None:
    node = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "below": {"type": "array", "items": {"$ref": "#/$defs/node"}},
        },
    }
    schema = {"properties": {"tree": {"$ref": "#/$defs/node"}}, "$defs": {"node": node}}
    assert list(table(schema)) == ["tree", "tree.name", "tree.below"]
    line = {"properties": {"lines": {"type": "array", "items": {"$ref": "#/$defs/line"}}}}
    money = {"properties": {"a": {"$ref": "#/$defs/node"}, "b": {"$ref": "#/$defs/node"}}}
    assert len(table({**money, "$defs": {"node": node}})) == 6
    assert list(table({**line, "$defs": {"line": line}})) == ["lines", "lines[].lines"]
    whole = {"properties": {"name": {"type": "string"}, "next": {"$ref": "#"}}}
    assert list(table(whole)) == ["name", "next"]
