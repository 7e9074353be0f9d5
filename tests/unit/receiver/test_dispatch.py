"""The most exact registration gets the event."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.receiver import AsyncReceiver, Receiver
from dispatcherd.receiver.dispatch import OTHER, Handlers
from dispatcherd.receiver.event import Event
from dispatcherd.route import compile_types

SECRET = "any text of 16 or more"


def event(type_: str, version: str = "1") -> Event:
    return Event("evt_1", type_, version, "", b"{}")


def named(name: str) -> Any:
    def handler(_event: Event) -> None: ...

    handler.__name__ = name
    return handler


def table(*registrations: tuple[str, str | None]) -> Handlers:
    handlers = Handlers()
    for pattern, version in registrations:
        handlers.add(pattern, named(f"{pattern} {version}"), [version])
    return handlers


def found(handlers: Handlers, type_: str, version: str) -> str | None:
    handler: Any = handlers.find(event(type_, version))
    return None if handler is None else str(handler.__name__)


@pytest.mark.parametrize(
    ("type_", "version", "expected"),
    [
        ("order.created", "2", "order.created 2"),
        ("order.created", "1", "order.created None"),
        ("order.paid", "2", "order.* 2"),
        ("order.paid", "1", "order.* None"),
        ("order.item.added", "2", "order.item.* None"),
        ("order", "1", "* None"),
        ("", "", "* None"),
    ],
)
def test_the_most_exact_registration_wins(type_: str, version: str, expected: str) -> None:
    handlers = table(
        ("*", None), ("order.*", None), ("order.*", "2"), ("order.item.*", None),
        ("order.created", None), ("order.created", "2"),
    )  # fmt: skip
    if expected == "order.item.* None":
        # A version that fits counts more than a longer prefix without one.
        assert found(handlers, type_, version) == "order.* 2"
        version = "1"
    assert found(handlers, type_, version) == expected


@given(
    st.sampled_from(["*", "a.*", "a.b.*", "a", "a.b"]),
    st.from_regex(r"[ab](\.[abc]){0,3}", fullmatch=True),
)
def test_a_pattern_means_what_it_means_to_the_sender(pattern: str, type_: str) -> None:
    wanted = compile_types([pattern])(type_)
    assert (found(table((pattern, None)), type_, "1") is not None) == wanted


def test_a_version_nobody_registered_has_no_handler() -> None:
    assert found(table(("a", "1"), ("a", "2")), "a", "3") is None


def test_a_second_handler_for_the_same_is_refused() -> None:
    handlers = table(("a", "1"), ("a.*", None))
    with pytest.raises(ValueError, match="a version 1 already has a handler"):
        handlers.add("a", named("x"), ["1"])
    with pytest.raises(ValueError, match=r"a\.\* version any already"):
        handlers.add("a.*", named("x"), [None])


@pytest.mark.parametrize("pattern", ["", "a b", "*.a", "a.*.b", "a.", "!a", "a*"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no event type"):
        Handlers().add(pattern, named("x"), [None])


def test_labels_are_the_registered_types_and_one_for_all_others() -> None:
    handlers = table(("a.b", None), ("c.*", None))
    assert [handlers.label(event(t)) for t in ("a.b", "c.d", "x")] == ["a.b", OTHER, OTHER]


def test_a_coroutine_function_is_refused_where_nobody_would_await_it() -> None:
    async def handler(_event: Event) -> None: ...

    class Callable:
        async def __call__(self, _event: Event) -> None: ...

    for one in (handler, Callable()):
        with pytest.raises(TypeError, match="AsyncReceiver"):
            Receiver([SECRET]).on("a")(one)
        AsyncReceiver([SECRET]).on("a")(one)


def test_a_registration_without_a_type_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one event type"):
        Receiver([SECRET]).on()
