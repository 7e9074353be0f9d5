"""What this process holds of its endpoints: little for those that rest, kept as they change."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import pytest

from dispatcherd.config.model import Config, EndpointConfig
from dispatcherd.config.secrets import Access
from dispatcherd.endpoints import Endpoints
from dispatcherd.exchange import Target
from dispatcherd.keys import SigningKey
from dispatcherd.record.registry import Registration
from dispatcherd.sign import Signer
from tests.unit.nouns import make_delivery, make_event

KEY, OTHER_KEY = b"k" * 32, b"o" * 32


def target(
    url: str, headers: Iterable[tuple[str, str]], tls: ssl.SSLContext | None = None
) -> Target:
    return Target(url, headers, [], tls)


def registration(number: int, held: bool = False, **keys: Any) -> Registration:
    config = {"id": f"e{number}", "url": f"https://example.com/{number}", **keys}
    return Registration(number, EndpointConfig.model_validate(config), held)


class Held:
    """Endpoints, and the keys of the file they came from."""

    def __init__(self) -> None:
        self.endpoints = Endpoints(Config(), target)
        self.keys: dict[str, tuple[SigningKey, ...]] = {}
        self.access: dict[str, Access] = {}

    def apply(self, *registrations: Registration, gone: tuple[int, ...] = ()) -> list[str]:
        left = self.endpoints.apply(registrations, gone, self.keys, self.access)
        return [lane.endpoint.name for lane in left]

    def routed(self) -> list[int]:
        return [e.id for e in self.endpoints.router.route(make_event(), {})]


@pytest.fixture
def held() -> Held:
    made = Held()
    made.keys = {f"e{n}": (KEY,) for n in range(1, 5)}
    made.apply(*[registration(n) for n in (1, 2, 3)])
    return made


def test_an_endpoint_without_deliveries_has_neither_lane_nor_outlet(held: Held) -> None:
    assert held.routed() == [1, 2, 3]
    assert not held.endpoints.lanes
    assert not held.endpoints.outlets
    lane = held.endpoints.lanes[2]
    assert lane is held.endpoints.lanes[2] is held.endpoints.lane(2)
    assert list(held.endpoints.lanes) == [2]
    assert held.endpoints.outlets[2] is held.endpoints.outlets[2]


def test_there_is_no_lane_of_an_endpoint_that_is_not_registered(held: Held) -> None:
    assert held.endpoints.lane(9) is None
    with pytest.raises(KeyError):
        held.endpoints.lanes[9]
    with pytest.raises(KeyError):
        held.endpoints.outlets[9]
    assert list(held.endpoints.lanes) == []


def test_a_change_keeps_the_lane_and_what_waits_in_it(held: Held) -> None:
    lane = held.endpoints.lanes[1]
    waiting = make_delivery()
    lane.offer(waiting)
    before = held.endpoints.outlets[1]
    held.apply(registration(1, url="https://example.org/new", timeout_seconds=3.0))
    assert held.endpoints.lane(1) is lane
    assert list(lane.fresh) == [waiting]
    assert lane.endpoint.timeout_seconds == 3.0
    assert held.endpoints.outlets[1] is not before
    assert held.endpoints.outlets[1].host == "https://example.org:443"
    assert held.routed() == [1, 2, 3]


def test_what_did_not_change_is_left_as_it_is(held: Held) -> None:
    router, outlet = held.endpoints.router, held.endpoints.outlets[1]
    endpoint = held.endpoints.registered[1]
    held.apply(*[registration(n) for n in (1, 2, 3)])
    assert held.endpoints.router is router
    assert held.endpoints.outlets[1] is outlet
    assert held.endpoints.registered[1] is endpoint


def test_a_new_secret_or_header_is_used_from_then_on(held: Held) -> None:
    first, other = held.endpoints.outlets[1], held.endpoints.outlets[2]
    held.keys = {**held.keys, "e1": (OTHER_KEY,)}
    held.access = {"e1": Access((("authorization", "Bearer 1"),))}
    held.apply()
    second = held.endpoints.outlets[1]
    assert second.signer.lines("evt", 1, b"") != first.signer.lines("evt", 1, b"")
    assert b"authorization: Bearer 1\r\n" in second.target.head
    assert held.endpoints.outlets[2] is other


def test_a_secret_that_changed_before_the_first_delivery_is_the_one_that_signs(held: Held) -> None:
    held.keys = {"e1": (OTHER_KEY,)}
    held.apply()
    held.keys = {"e1": (KEY,)}
    held.apply()
    signed = held.endpoints.outlets[1].signer.lines("evt", 1, b"")
    assert signed == Signer([KEY]).lines("evt", 1, b"")


def test_who_is_gone_leaves_its_lane_behind_and_is_routed_to_no_more(held: Held) -> None:
    lane = held.endpoints.lanes[1]
    held.endpoints.outlets[1]
    assert held.apply(gone=(1, 2, 9)) == ["e1"]  # the others had none
    assert lane.removed
    assert held.routed() == [3]
    assert held.endpoints.lane(1) is None
    assert 1 not in held.endpoints.outlets


def test_held_ones_are_known_by_number(held: Held) -> None:
    held.apply(registration(2, held=True), registration(4, held=True))
    assert held.endpoints.held == {2, 4}
    held.apply(registration(2), gone=(4,))
    assert held.endpoints.held == set()
    assert not held.endpoints.registered[2].held
