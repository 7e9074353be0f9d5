"""Schemas and data for the property tests: small, with every keyword that is judged and some that
are not, over few names and values so that two of them often meet.

Made by a seeded generator, and not by hypothesis's own strategies: thousands are needed until two
schemas, and data that is valid by one and not by the other, meet.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from dispatcherd.events.schema import resolve

NAMES = ("a", "b", "title")
"""One of them is called like a keyword that only annotates."""
TEXTS = ("x", "yy", "zzz", "2026-07-01")


class Maker:
    """Everything that it makes depends on its seed only."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def _maybe(self, chance: float = 0.5) -> bool:
        return self._random.random() < chance

    def _names(self) -> list[str]:
        return [name for name in NAMES if self._maybe()]

    def _some(
        self, schema: dict[str, Any], chance: float, keywords: dict[str, Callable[[], Any]]
    ) -> dict[str, Any]:
        for name, value in keywords.items():
            if self._maybe(chance):
                schema[name] = value()
        return schema

    # --- schemas ---------------------------------------------------------------------------

    def schema(self) -> dict[str, Any]:
        """Of an event's data."""
        shared = self._leaf() if self._maybe() else self._object(0)
        return {**self._object(2), "$defs": {"shared": shared}}

    def _nested(self, depth: int) -> Any:
        kind = self._random.randrange(10)
        if kind < 2 and depth > 0:
            return self._object(depth - 1)
        if kind < 4 and depth > 0:
            return self._array(depth - 1)
        if kind == 4:
            return self._maybe()
        if kind == 5:
            beside = ({}, {"description": "shared"}, {"maximum": 2})
            return {"$ref": "#/$defs/shared", **self._random.choice(beside)}
        return self._leaf()

    def _leaf(self) -> dict[str, Any]:
        draw = self._random
        type_ = draw.choice(["string", "integer", "number", "boolean", "nullable"])
        if type_ == "nullable":
            return {"type": ["string", "null"]}
        if type_ == "string":
            texts: dict[str, Callable[[], Any]] = {
                "minLength": lambda: draw.randint(0, 3),
                "maxLength": lambda: draw.randint(1, 4),
                "pattern": lambda: draw.choice(["^x", "z$"]),
                "format": lambda: "date",
                "enum": lambda: draw.sample(TEXTS, draw.randint(1, 3)),
            }
            return self._some({"type": type_}, 0.2, texts)
        numbers: dict[str, Callable[[], Any]] = {
            "minimum": lambda: draw.randint(-3, 3),
            "maximum": lambda: draw.randint(-3, 3),
            "exclusiveMinimum": lambda: draw.randint(-3, 3),
            "exclusiveMaximum": lambda: draw.randint(-3, 3),
            "multipleOf": lambda: draw.randint(1, 3),
            "const": lambda: draw.randint(-3, 3),
        }
        return self._some({"type": type_}, 0.15, {} if type_ == "boolean" else numbers)

    def _array(self, depth: int) -> dict[str, Any]:
        draw = self._random
        schema: dict[str, Any] = {"type": "array"}
        return self._some(
            schema,
            0.3,
            {
                "items": lambda: self._nested(depth),
                "minItems": lambda: draw.randint(0, 2),
                "maxItems": lambda: draw.randint(0, 3),
                "uniqueItems": self._maybe,
                "contains": lambda: self._nested(depth),
            },
        )

    def _object(self, depth: int) -> dict[str, Any]:
        names = self._names()
        schema = {
            "type": "object",
            "properties": {name: self._nested(depth) for name in names},
            "required": [name for name in names if self._maybe()],
        }
        draw = self._random
        return self._some(
            schema,
            0.08,
            {
                "additionalProperties": lambda: self._nested(depth),
                "patternProperties": lambda: {"^a": self._nested(depth)},
                "allOf": lambda: [self._part(depth) for _ in range(draw.randint(1, 2))],
                "anyOf": lambda: [self._part(depth) for _ in range(draw.randint(1, 2))],
                "oneOf": lambda: [self._part(depth) for _ in range(draw.randint(1, 2))],
                "not": lambda: self._part(depth),
                "if": lambda: self._part(depth),
                "then": lambda: self._part(depth),
                "minProperties": lambda: draw.randint(0, 2),
                "unevaluatedProperties": self._maybe,
                "dependentRequired": lambda: {"a": ["b"]},
            },
        )

    def _part(self, depth: int) -> dict[str, Any]:
        """Rules for an object that has others already."""
        names = self._names()
        schema: dict[str, Any] = {"properties": {name: self._nested(depth) for name in names}}
        more: dict[str, Callable[[], Any]] = {
            "required": lambda: names,
            "additionalProperties": self._maybe,
        }
        return self._some(schema, 0.3, more)

    def mutated(self, schema: Any) -> Any:
        """The same with a few keywords changed, added or taken away, anywhere."""
        draw = self._random
        if isinstance(schema, list):
            return [self.mutated(one) if isinstance(one, dict) else one for one in schema]
        if isinstance(schema, int) and not isinstance(schema, bool):
            return max(1, schema + draw.randint(-1, 1)) if self._maybe(0.3) else schema
        if not isinstance(schema, dict):
            return schema
        found = {key: self.mutated(below) for key, below in schema.items()}
        for key in list(found):
            if key not in ("$defs", "shared", "$ref", "type") and self._maybe(0.05):
                del found[key]
        if "properties" in found and self._maybe(0.1):
            found["properties"] = {**found["properties"], draw.choice(NAMES): self._nested(1)}
        if isinstance(found.get("required"), list) and self._maybe(0.1):
            found["required"] = self._names()
        if found.get("type") == "object" and self._maybe(0.1):
            found |= {key: value for key, value in self._object(1).items() if key not in found}
        return found

    # --- data ------------------------------------------------------------------------------

    def data(self, top: dict[str, Any]) -> dict[str, Any]:
        """Data whose every field the schema describes; often, not always, valid."""
        return self._of_object(top, top, 6)

    def _value(self, top: dict[str, Any], schema: Any, depth: int) -> Any:
        draw = self._random
        if not isinstance(schema, dict) or depth == 0:
            return draw.choice([None, 1, "x"])
        if "$ref" in schema:
            schema = {**resolve(top, schema["$ref"]), **schema}
        type_ = schema.get("type", "object")
        if isinstance(type_, list):
            type_ = draw.choice(type_)
        if type_ == "object":
            return self._of_object(top, schema, depth - 1)
        if type_ == "array":
            items = schema.get("items", True)
            return [self._value(top, items, depth - 1) for _ in range(draw.randint(0, 3))]
        if "enum" in schema:
            return draw.choice(schema["enum"])
        if "const" in schema:
            return schema["const"]
        values: dict[str, tuple[Any, ...]] = {
            "string": (*TEXTS, ""),
            "integer": tuple(range(-4, 5)),
            "number": (*range(-4, 5), -0.5, 0.5, 2.5),
            "boolean": (True, False),
            "null": (None,),
        }
        return draw.choice(values[type_])

    def _of_object(self, top: dict[str, Any], schema: dict[str, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        parts = [schema, *schema.get("allOf", [])]
        parts += [self._random.choice(schema[key]) for key in ("anyOf", "oneOf") if key in schema]
        for part in parts:
            for name, below in part.get("properties", {}).items():
                if name in part.get("required", []) or self._maybe():
                    found[name] = self._value(top, below, depth)
        others = schema.get("additionalProperties")
        if isinstance(others, dict) and self._maybe():
            found.setdefault(self._random.choice(NAMES), self._value(top, others, depth))
        return found
