"""What a change of a schema breaks: a table of changes, and the promise as a property."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from dispatcherd.events.compare import compare
from dispatcherd.events.schema import compiled, unusable
from tests.unit.events.schemas import Maker

Schema = dict[str, Any]

BASE: Schema = {
    "type": "object",
    "required": ["order", "lines"],
    "properties": {
        "order": {"type": "string", "description": "Its number."},
        "state": {"type": "string", "enum": ["open", "paid"]},
        "total": {"$ref": "#/$defs/money"},
        "lines": {
            "type": "array",
            "items": {"type": "object", "properties": {"price": {"$ref": "#/$defs/money"}}},
        },
        "address": {
            "anyOf": [
                {"type": "object", "properties": {"city": {"type": "string"}}},
                {"type": "null"},
            ]
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "$defs": {"money": {"type": "number", "minimum": 0}},
}
EXAMPLE = {
    "order": "A-1",
    "state": "open",
    "total": 4,
    "lines": [{"price": 4}],
    "address": {"city": "Graz"},
    "labels": {"a": "b"},
}


def line(schema: Schema) -> Schema:
    """The schema of one line."""
    found: Schema = schema["properties"]["lines"]["items"]
    return found


def changed(change: Callable[[Schema], object]) -> Schema:
    schema = copy.deepcopy(BASE)
    change(schema)
    return schema


BREAKING: dict[str, tuple[Callable[[Schema], object], str]] = {
    "a field removed": (lambda s: s["properties"].pop("state"), "data.state"),
    "a required field removed": (lambda s: s["properties"].pop("order"), "data.order"),
    "a nested field removed": (lambda s: line(s)["properties"].clear(), "data.lines[].price"),
    "a field retyped": (lambda s: s["properties"]["order"].update(type="integer"), "data.order"),
    "a definition retyped": (lambda s: s["$defs"]["money"].update(type="string"), "data.total"),
    "integer for number": (lambda s: s["$defs"]["money"].update(type="integer"), "data.total"),
    "null as well": (
        lambda s: s["properties"]["order"].update(type=["string", "null"]),
        "data.order",
    ),
    "made required": (lambda s: s["required"].append("state"), "data.state"),
    "made required below": (lambda s: line(s).update(required=["price"]), "data.lines[].price"),
    "no longer required": (lambda s: s["required"].remove("order"), "data.order"),
    "new and required": (
        lambda s: (s["properties"].update(new={"type": "string"}), s["required"].append("new")),
        "data.new",
    ),
    "an enum narrowed": (lambda s: s["properties"]["state"].update(enum=["open"]), "data.state"),
    "an enum begun": (lambda s: s["properties"]["order"].update(enum=["A-1"]), "data.order"),
    "a const for an enum": (
        lambda s: (s["properties"]["state"].pop("enum"), s["properties"]["state"].update(const=1)),
        "data.state",
    ),
    "a bound raised": (lambda s: s["$defs"]["money"].update(minimum=1), "data.lines[].price"),
    "a bound begun": (lambda s: s["properties"]["order"].update(maxLength=3), "data.order"),
    "a pattern begun": (lambda s: s["properties"]["order"].update(pattern="^A"), "data.order"),
    "a format begun": (lambda s: s["properties"]["order"].update(format="uuid"), "data.order"),
    "others forbidden": (lambda s: s.update(additionalProperties=False), "data"),
    "others retyped": (
        lambda s: s["properties"]["labels"].update(additionalProperties={"type": "integer"}),
        "data.labels.*",
    ),
    "a named one among others": (
        lambda s: s["properties"]["labels"].update(properties={"n": {"type": "integer"}}),
        "data.labels.n",
    ),
    "an alternative gone": (lambda s: s["properties"]["address"]["anyOf"].pop(), "data.address"),
    "an alternative's field gone": (
        lambda s: s["properties"]["address"]["anyOf"][0]["properties"].clear(),
        "data.address.city",
    ),
    "a condition": (lambda s: s.update({"if": {"required": ["state"]}, "then": False}), "data"),
    "a negation": (lambda s: s.update({"not": {"required": ["state"]}}), "data"),
    "a rule beside a reference": (
        lambda s: s["properties"]["total"].update(maximum=5),
        "data.total",
    ),
}
HARMLESS: dict[str, tuple[Callable[[Schema], object], str]] = {
    "a new optional field": (lambda s: s["properties"].update(new={}), "data.new"),
    "a new optional field below": (
        lambda s: line(s)["properties"].update(new={"type": "string"}),
        "data.lines[].new",
    ),
    "a new field of the only object among alternatives": (
        lambda s: s["properties"]["address"]["anyOf"][0]["properties"].update(zip={}),
        "data.address.zip",
    ),
    "an enum widened": (
        lambda s: s["properties"]["state"]["enum"].append("shipped"),
        "data.state",
    ),
    "a bound gone": (lambda s: s["$defs"]["money"].pop("minimum"), "data.total"),
    "another alternative": (
        lambda s: s["properties"]["address"]["anyOf"].append({"type": "string"}),
        "data.address",
    ),
    "deprecated": (lambda s: s["properties"]["state"].update(deprecated=True), "data.state"),
}
NOTHING: dict[str, Callable[[Schema], object]] = {
    "a description": lambda s: s["properties"]["order"].update(description="The number."),
    "another name for a definition": lambda s: (
        s["$defs"].update(amount=s["$defs"]["money"]),
        s["properties"]["total"].update({"$ref": "#/$defs/amount"}),
    ),
    "a definition written out": lambda s: s["properties"].update(
        total={"type": "number", "minimum": 0}
    ),
    "another order": lambda s: (
        s["required"].reverse(),
        s.update(properties=dict(reversed(s["properties"].items()))),
    ),
    "an extension": lambda s: s.update({"x-owner": "shop"}),
}


@pytest.mark.parametrize(("change", "field"), BREAKING.values(), ids=BREAKING)
def test_a_change_that_hurts_somebody_breaks_and_names_the_field(
    change: Callable[[Schema], object], field: str
) -> None:
    found = compare(BASE, changed(change))
    assert field in [one.field for one in found if one.breaking], found


@pytest.mark.parametrize(("change", "field"), HARMLESS.values(), ids=HARMLESS)
def test_a_change_that_hurts_nobody_is_named_and_does_not_break(
    change: Callable[[Schema], object], field: str
) -> None:
    schema = changed(change)
    assert compiled(schema).is_valid(EXAMPLE)
    found = compare(BASE, schema)
    assert field in [one.field for one in found]
    assert not [one for one in found if one.breaking]


@pytest.mark.parametrize("change", NOTHING.values(), ids=NOTHING)
def test_what_means_the_same_is_no_change(change: Callable[[Schema], object]) -> None:
    assert compare(BASE, changed(change)) == []


def test_a_removed_field_that_is_called_like_an_annotation_is_noticed() -> None:
    old = {"type": "object", "properties": {"title": {"type": "string"}}}
    [change] = compare(old, {"type": "object", "properties": {}})
    assert (change.field, change.breaking) == ("data.title", True)


def test_a_schema_that_contains_itself_is_compared_to_its_end() -> None:
    def tree(type_: str) -> Schema:
        below = {"type": "array", "items": {"$ref": "#"}}
        return {"type": "object", "properties": {"name": {"type": type_}, "below": below}}

    assert compare(tree("string"), tree("string")) == []
    assert "data.name" in [one.field for one in compare(tree("string"), tree("integer"))]


SEEDS = st.integers(0, 2**63)


@given(seed=SEEDS)
def test_whatever_makes_valid_data_invalid_is_reported(seed: int) -> None:
    make = Maker(seed)
    for _ in range(10):
        old = make.schema()
        new = make.mutated(old) if seed % 4 else make.schema()
        if [*unusable(old), *unusable(new)]:
            continue
        was, now = compiled(old), compiled(new)
        hurt = [
            value
            for value in (make.data(old) for _ in range(10))
            if was.is_valid(value) and not now.is_valid(value)
        ]
        if hurt:
            event("data became invalid")
            assert any(change.breaking for change in compare(old, new)), (old, new, hurt[0])


@given(seed=SEEDS)
def test_a_schema_is_compatible_with_itself(seed: int) -> None:
    schema = Maker(seed).schema()
    assert compare(schema, copy.deepcopy(schema)) == []
