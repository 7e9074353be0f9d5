"""An endpoint's filter as a closure over events: what it wants beyond the type.

Invariant: a compiled filter answers for any event and any parsed body, and never raises: what is
not there, or is of another kind than the condition speaks of, does not match. Leaves out:
event-type patterns (route).

How values compare. Fields as JSON has them: a number is never a boolean (`true` is not 1) and
never a string, while 1 and 1.0 are the same number. Headers are text: a number or a boolean in a
condition on one stands for its JSON text (`5`, `true`), compared as UTF-8 bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from dispatcherd.config.check_endpoint import check_form
from dispatcherd.config.model import OPERATORS, FilterCondition, FilterConfig
from dispatcherd.delivery import Event, Matcher
from dispatcherd.errors import ConfigError, ConfigProblem

_Scalar = str | int | float | bool
_Test = Callable[[Any], bool]

_MISSING: Final = object()
_is_number: Final = re.compile(rb"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,9})?").fullmatch
_INDEX_DIGITS: Final = 9


def compile_filter(config: FilterConfig) -> Matcher:
    """All of `all`, at least one of `any` (when there are any) and none of `none`.

    Of several operators in one condition (`greater_than` and `less_than`) each must hold. A missing
    header or field matches `exists: false` and `not_equals`, nothing else; a field that is null is
    there. Raises ConfigError for a condition without exactly one of `header` and `field`, or
    without an operator.
    """
    problems: list[ConfigProblem] = []
    every = _compile_list("all", config.all, problems)
    some = _compile_list("any", config.any, problems)
    none = _compile_list("none", config.none, problems)
    if problems:
        raise ConfigError(problems)
    if len(every) == 1 and not some and not none:
        return every[0]
    if every and not some and not none:
        return _all_of(tuple(every))

    def matches(event: Event, document: Any) -> bool:
        for condition in every:
            if not condition(event, document):
                return False
        for condition in none:
            if condition(event, document):
                return False
        return not some or any(condition(event, document) for condition in some)

    return matches


def parse_path(path: str) -> tuple[str, ...]:
    r"""The keys of a dotted path. `\.` is a dot within a key, `\\` a backslash."""
    keys, key, escaped = [], "", False
    for character in path:
        if escaped:
            key += character if character in ".\\" else "\\" + character
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == ".":
            keys.append(key)
            key = ""
        else:
            key += character
    keys.append(key + "\\" if escaped else key)
    return tuple(keys)


def _all_of(conditions: tuple[Matcher, ...]) -> Matcher:
    def matches(event: Event, document: Any) -> bool:
        for condition in conditions:  # noqa: SIM110  (a generator costs three times the loop)
            if not condition(event, document):
                return False
        return True

    return matches


def _compile_list(
    name: str, conditions: Sequence[FilterCondition], problems: list[ConfigProblem]
) -> list[Matcher]:
    compiled = []
    for number, condition in enumerate(conditions):
        mistakes = list(check_form(f"filter.{name}[{number}]", condition))
        problems += mistakes
        if not mistakes:
            compiled.append(_compile_condition(condition))
    return compiled


def _compile_condition(condition: FilterCondition) -> Matcher:
    present = [word for word in OPERATORS if getattr(condition, word) is not None]
    when_missing = all(
        word == "not_equals" or (word == "exists" and not condition.exists) for word in present
    )
    compile_test = _field_test if condition.header is None else _header_test
    tests = [compile_test(word, getattr(condition, word)) for word in present]
    test = tests[0] if len(tests) == 1 else _each(tuple(tests))
    if condition.header is not None:
        return _on_header(condition.header.lower(), test, when_missing)
    assert condition.field is not None
    return _on_field(parse_path(condition.field), test, when_missing)


def _each(tests: tuple[_Test, ...]) -> _Test:
    return lambda found: all(test(found) for test in tests)


def _on_header(name: str, test: _Test, when_missing: bool) -> Matcher:
    def matches(event: Event, document: Any) -> bool:
        for given, content in reversed(event.headers):  # the last one counts, as in decode
            if given == name or given.lower() == name:
                return test(content)
        return when_missing

    return matches


def _on_field(path: tuple[str, ...], test: _Test, when_missing: bool) -> Matcher:
    steps = tuple((key, _index(key)) for key in path)

    def matches(event: Event, document: Any) -> bool:
        node = document
        for key, index in steps:
            if type(node) is dict:
                node = node.get(key, _MISSING)
            elif type(node) is list and 0 <= index < len(node):
                node = node[index]
            else:
                return when_missing
        return when_missing if node is _MISSING else test(node)

    return matches


def _index(key: str) -> int:
    return int(key) if key.isascii() and key.isdigit() and len(key) <= _INDEX_DIGITS else -1


def _field_test(word: str, expected: Any) -> _Test:
    match word:
        case "equals":
            return _equals(expected)
        case "not_equals":
            equals = _equals(expected)
            return lambda found: not equals(found)
        case "one_of":
            members = frozenset((_kind(value), value) for value in expected)
            # Only scalars are looked up: arrays and objects have no hash.
            return lambda found: (
                type(found) in (str, int, float, bool) and (_kind(found), found) in members
            )
        case "prefix":
            return lambda found: type(found) is str and found.startswith(expected)
        case "greater_than":
            return lambda found: type(found) in (int, float) and found > expected
        case "less_than":
            return lambda found: type(found) in (int, float) and found < expected
        case _:
            return _constant(bool(expected))


def _header_test(word: str, expected: Any) -> _Test:
    match word:
        case "equals":
            text = _text(expected)
            return lambda found: found == text
        case "not_equals":
            text = _text(expected)
            return lambda found: found != text
        case "one_of":
            texts = frozenset(_text(value) for value in expected)
            return lambda found: found in texts
        case "prefix":
            start = _text(expected)
            return lambda found: found.startswith(start)
        case "greater_than":
            return lambda found: _is_number(found) is not None and float(found) > expected
        case "less_than":
            return lambda found: _is_number(found) is not None and float(found) < expected
        case _:
            return _constant(bool(expected))


def _equals(expected: _Scalar) -> _Test:
    if isinstance(expected, bool):
        return lambda found: found is expected
    if isinstance(expected, str):
        return lambda found: bool(found == expected)
    return lambda found: type(found) in (int, float) and found == expected


def _constant(answer: bool) -> _Test:
    return lambda found: answer


def _kind(value: _Scalar) -> str:
    """Apart what JSON keeps apart and Python does not: True == 1 has the same hash."""
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"


def _text(value: _Scalar) -> bytes:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return str(value).encode("utf-8", "surrogatepass")
