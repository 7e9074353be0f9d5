"""Filters: what matches, what does not, and what is missing."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.config.model import FilterCondition, FilterConfig
from dispatcherd.delivery import Claim, Event, Shape
from dispatcherd.errors import ConfigError
from dispatcherd.filter import compile_filter, parse_path


def event_with(*headers: tuple[str, bytes]) -> Event:
    claim = Claim("orders", 1, 0, 1, b"k" * 16)
    return Event(claim, 1, "evt_1", "a.b", "1", "", b"{}", headers, Shape.WHOLE)


def on_field(document: Any, field: str, **operators: Any) -> bool:
    condition = FilterCondition(field=field, **operators)
    return compile_filter(FilterConfig(all=[condition]))(event_with(), document)


def on_header(content: bytes | None, **operators: Any) -> bool:
    condition = FilterCondition(header="X-Region", **operators)
    event = event_with() if content is None else event_with(("x-region", content))
    return compile_filter(FilterConfig(all=[condition]))(event, {})


# --- fields --------------------------------------------------------------------------------

EQUAL = [
    ("eu", "eu"),
    ("", ""),
    (1, 1),
    (1, 1.0),
    (1.5, 1.5),
    (True, True),
    (False, False),
    (0, -0.0),
]
UNEQUAL = [
    (True, 1),
    (1, True),
    (0, False),
    (False, 0.0),
    ("1", 1),
    (1, "1"),
    ("true", True),
    (None, "null"),
    (None, False),
    ([], "[]"),
    ([1], 1),
    ({}, "x"),
    ("eu", "EU"),
]


@pytest.mark.parametrize(("found", "expected"), EQUAL)
def test_equal_values_of_one_kind_are_equal(found: Any, expected: Any) -> None:
    assert on_field({"a": found}, "a", equals=expected)
    assert not on_field({"a": found}, "a", not_equals=expected)
    assert on_field({"a": found}, "a", one_of=["other", expected])


@pytest.mark.parametrize(("found", "expected"), UNEQUAL)
def test_values_of_another_kind_are_not_equal(found: Any, expected: Any) -> None:
    assert not on_field({"a": found}, "a", equals=expected)
    assert on_field({"a": found}, "a", not_equals=expected)
    assert not on_field({"a": found}, "a", one_of=["other", expected])


@pytest.mark.parametrize(
    ("found", "above", "below"),
    [
        (11, True, False),
        (10, False, False),
        (9.5, False, True),
        (10**19, True, False),
        (True, False, False),
        ("11", False, False),
        (None, False, False),
        ([11], False, False),
    ],
)
def test_only_numbers_are_greater_or_less(found: Any, above: bool, below: bool) -> None:
    assert on_field({"a": found}, "a", greater_than=10) is above
    assert on_field({"a": found}, "a", less_than=10) is below


def test_prefix_is_of_strings_only() -> None:
    assert on_field({"a": "eu-west"}, "a", prefix="eu-")
    assert not on_field({"a": "us-eu-"}, "a", prefix="eu-")
    assert not on_field({"a": ["eu-"]}, "a", prefix="eu-")
    assert not on_field({"a": 15}, "a", prefix="1")


def test_several_operators_of_a_condition_must_all_hold() -> None:
    for found, within in ((5, False), (6, True), (9, True), (10, False)):
        assert on_field({"a": found}, "a", greater_than=5, less_than=10) is within


MISSING = [{}, {"b": 1}, {"a": 1}, {"a": []}, {"a": None}, {"a": "b"}, [], None]


@pytest.mark.parametrize("document", MISSING)
def test_a_missing_field_matches_only_exists_false_and_not_equals(document: Any) -> None:
    assert on_field(document, "a.b", exists=False)
    assert on_field(document, "a.b", not_equals="x")
    assert on_field(document, "a.b", not_equals="x", exists=False)
    assert not on_field(document, "a.b", exists=True)
    assert not on_field(document, "a.b", equals="x")
    assert not on_field(document, "a.b", one_of=["x"])
    assert not on_field(document, "a.b", prefix="")
    assert not on_field(document, "a.b", greater_than=-1e9)
    assert not on_field(document, "a.b", less_than=1e9)
    assert not on_field(document, "a.b", not_equals="x", exists=True)


def test_a_null_field_is_there() -> None:
    assert on_field({"a": None}, "a", exists=True)
    assert not on_field({"a": None}, "a", exists=False)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("data.items.0.sku", "s0"),
        ("data.items.1.sku", "s1"),
        ("data.items.2.sku", None),
        ("data.items.-1.sku", None),
        ("data.items.٠.sku", None),
        ("data.items.00.sku", "s0"),
        ("data.items." + "9" * 5_000 + ".sku", None),
        ("data.7", "seven"),
        (r"data.a\.b", "dotted"),
        (r"data.c\\d", "backslash"),
        (r"data.c\d", "backslash"),
        ("data.", "empty"),
        ("data.name.0", None),
        ("", None),
    ],
)
def test_a_path_leads_through_keys_and_list_indexes(path: str, found: str | None) -> None:
    document = {
        "data": {
            "items": [{"sku": "s0"}, {"sku": "s1"}],
            "7": "seven",
            "a.b": "dotted",
            "c\\d": "backslash",
            "": "empty",
            "name": "abc",
        }
    }
    assert on_field(document, path, exists=True) is (found is not None)
    if found is not None:
        assert on_field(document, path, equals=found)


@given(st.lists(st.text(), min_size=1))
def test_any_keys_can_be_written_as_a_path(keys: list[str]) -> None:
    path = ".".join(key.replace("\\", "\\\\").replace(".", "\\.") for key in keys)
    assert parse_path(path) == tuple(keys)


# --- headers -------------------------------------------------------------------------------


def test_a_header_is_found_whatever_the_case_of_its_name_and_the_last_one_counts() -> None:
    condition = FilterCondition(header="X-Region", equals="eu")
    matches = compile_filter(FilterConfig(all=[condition]))
    assert matches(event_with(("x-REGION", b"eu")), {})
    assert matches(event_with(("x-region", b"us"), ("X-Region", b"eu"), ("y", b"us")), {})
    assert not matches(event_with(("x-region", b"eu"), ("X-Region", b"us")), {})


@pytest.mark.parametrize(
    ("content", "operators", "expected"),
    [
        (b"eu", {"equals": "eu"}, True),
        ("größe".encode(), {"equals": "größe"}, True),
        ("größe".encode("latin-1"), {"equals": "größe"}, False),
        (b"5", {"equals": 5}, True),
        (b"5.0", {"equals": 5}, False),
        (b"true", {"equals": True}, True),
        (b"True", {"equals": True}, False),
        (b"1", {"equals": True}, False),
        (b"eu", {"equals": "\ud800"}, False),
        (b"eu", {"not_equals": "eu"}, False),
        (b"\xff", {"not_equals": "eu"}, True),
        (b"7", {"one_of": ["eu", 7]}, True),
        (b"eu-west", {"prefix": "eu-"}, True),
        (b"eu", {"prefix": "eu-"}, False),
        (b"11", {"greater_than": 10}, True),
        (b"-1.5e1", {"less_than": -10}, True),
        (b"9" * 400, {"greater_than": 10}, True),
        (b"nan", {"greater_than": 10}, False),
        (b"inf", {"greater_than": 10}, False),
        (b"1_1", {"greater_than": 10}, False),
        (b" 11", {"greater_than": 10}, False),
        (b"11\n", {"greater_than": 10}, False),
        (b"", {"less_than": 10}, False),
        (b"", {"exists": True}, True),
        (b"", {"exists": False}, False),
        (None, {"exists": False}, True),
        (None, {"exists": True}, False),
        (None, {"not_equals": "eu"}, True),
        (None, {"equals": "eu"}, False),
        (None, {"prefix": ""}, False),
        (None, {"one_of": ["eu"]}, False),
        (None, {"less_than": 10}, False),
    ],
)
def test_a_header_is_compared_as_text(
    content: bytes | None, operators: dict[str, Any], expected: bool
) -> None:
    assert on_header(content, **operators) is expected


# --- all, any, none ------------------------------------------------------------------------

_flags = st.lists(st.booleans(), max_size=3)


@given(every=_flags, some=_flags, none=_flags)
def test_all_of_all_one_of_any_and_none_of_none(
    every: list[bool], some: list[bool], none: list[bool]
) -> None:
    def conditions(flags: list[bool]) -> list[FilterCondition]:
        return [FilterCondition(field="a", equals="x" if flag else "y") for flag in flags]

    config = FilterConfig(all=conditions(every), any=conditions(some), none=conditions(none))
    expected = all(every) and (not some or any(some)) and not any(none)
    assert compile_filter(config)(event_with(), {"a": "x"}) is expected


def test_an_empty_filter_matches_everything() -> None:
    assert compile_filter(FilterConfig())(event_with(), {})


def test_conditions_that_test_nothing_or_two_things_are_all_named() -> None:
    config = FilterConfig(
        all=[FilterCondition(equals=1), FilterCondition(field="a", equals=1)],
        any=[FilterCondition(header="a", field="a", exists=True)],
        none=[FilterCondition(field="a")],
    )
    with pytest.raises(ConfigError) as caught:
        compile_filter(config)
    keys = [problem.key for problem in caught.value.problems]
    assert keys == ["filter.all[0]", "filter.any[0]", "filter.none[0]"]


# --- anything at all -----------------------------------------------------------------------

_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
_keys = st.sampled_from(["a", "b", "0", "1", ""])
_documents = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3)
)
_expected = st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
_conditions = st.builds(
    FilterCondition,
    field=st.lists(_keys, min_size=1, max_size=4).map(".".join),
    equals=st.none() | _expected,
    not_equals=st.none() | _expected,
    one_of=st.none() | st.lists(_expected, max_size=3),
    prefix=st.none() | st.text(max_size=2),
    greater_than=st.none() | st.floats(),
    less_than=st.none() | st.floats(),
    exists=st.booleans(),
)


@given(condition=_conditions, document=_documents, content=st.binary(max_size=8))
def test_no_document_and_no_header_makes_a_filter_raise(
    condition: FilterCondition, document: Any, content: bytes
) -> None:
    on_header_too = condition.model_copy(update={"header": "x", "field": None})
    matches = compile_filter(FilterConfig(any=[condition, on_header_too]))
    assert matches(event_with(("X", content)), document) in (True, False)


def test_a_document_of_the_greatest_depth_is_compared_without_recursion() -> None:
    document = orjson.loads(b'{"a":' * 1_000 + b"1" + b"}" * 1_000)
    assert not on_field(document, "a", equals="x")
    assert not on_field(document, "a", one_of=["x"])
    assert on_field(document, ".".join("a" * 1_000), equals=1)
