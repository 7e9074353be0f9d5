"""The sender's address and scheme are what trusted hops say, and nothing that a client writes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcherd.receiver import AllowList, NotHttps, SenderNotAllowed
from dispatcherd.receiver.network import Guard, Proxies, parse_address, parse_networks

PROXIES = ["10.0.0.0/8", "fd00::/8"]
addresses = st.ip_addresses().map(str)


def client(
    trusted: Any, peer: str | None, *forwarded: str, name: str = "X-Forwarded-For"
) -> str | None:
    found = Proxies(trusted).client(peer, [(name, value) for value in forwarded])
    return None if found is None else str(found)


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "expected"),
    [
        ((), "192.0.2.1", [], "192.0.2.1"),
        ((), "192.0.2.1", ["203.0.113.9"], "192.0.2.1"),  # nobody is trusted
        (PROXIES, "192.0.2.1", ["203.0.113.9"], "192.0.2.1"),  # the peer is not
        (PROXIES, "10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        (PROXIES, "10.0.0.1", ["203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        (PROXIES, "10.0.0.1", ["203.0.113.9", "10.0.0.2"], "203.0.113.9"),  # two headers
        (PROXIES, "10.0.0.1", ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),  # forged on the left
        (PROXIES, "10.0.0.1", ["10.0.0.7, 203.0.113.9"], "203.0.113.9"),
        (PROXIES, "10.0.0.1", ["203.0.113.9, unknown"], None),
        (PROXIES, "10.0.0.1", ["203.0.113.9,"], None),
        (PROXIES, "10.0.0.1", [], None),  # the proxy itself is no sender
        (PROXIES, "10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        (PROXIES, "10.0.0.1", ['"[2001:db8::1]:4711"'], "2001:db8::1"),
        (PROXIES, "fd00::1", ["2001:db8::1"], "2001:db8::1"),
        (PROXIES, "::ffff:10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        (PROXIES, None, ["203.0.113.9"], None),
        (PROXIES, "", ["203.0.113.9"], None),  # a Unix socket
        (1, "10.9.9.9", ["203.0.113.9"], "203.0.113.9"),
        (1, "10.9.9.9", ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        (2, "10.9.9.9", ["198.51.100.1, 203.0.113.9, 10.8.8.8"], "203.0.113.9"),
        (2, "10.9.9.9", ["203.0.113.9"], None),  # fewer hops than there must be
        (1, None, ["203.0.113.9"], "203.0.113.9"),
        (1, "10.9.9.9", ["1.1.1.1, " * 1000 + "203.0.113.9"], "203.0.113.9"),
    ],
)
def test_the_client_is_the_first_hop_from_the_right_that_is_not_trusted(
    trusted: Any, peer: str | None, forwarded: list[str], expected: str | None
) -> None:
    assert client(trusted, peer, *forwarded) == expected


@given(forged=st.lists(st.one_of(addresses, st.text(max_size=20)), max_size=5), true=addresses)
@example(forged=[], true="::ffff:a00:0")  # a proxy's address, as a dual-stack socket sees it
def test_whatever_a_client_writes_it_remains_itself(forged: list[str], true: str) -> None:
    address = parse_address(true)
    assert address is not None
    said = ", ".join([*forged, true])
    assert client(1, "10.0.0.1", said) == str(address)
    if not any(
        address in network for network in parse_networks(PROXIES)
    ):  # those are looked through
        assert client(PROXIES, "10.0.0.1", said) == str(address)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_none(text: str) -> None:
    parse_address(text)


@pytest.mark.parametrize(
    ("trusted", "peer", "scheme", "said", "expected"),
    [
        ((), "192.0.2.1", "https", [], "https"),
        ((), "192.0.2.1", "http", ["https"], "http"),
        (PROXIES, "192.0.2.1", "http", ["https"], "http"),
        (PROXIES, "10.0.0.1", "http", ["https"], "https"),
        (PROXIES, "10.0.0.1", "http", ["HTTPS, https"], "https"),
        (PROXIES, "10.0.0.1", "https", ["http"], "http"),
        (PROXIES, "10.0.0.1", "http", ["https, http"], "http"),
        (PROXIES, "10.0.0.1", "http", ["https", ""], "http"),
        (PROXIES, "10.0.0.1", "http", [], "http"),
        (1, "10.9.9.9", "http", ["https"], "https"),
    ],
)
def test_the_scheme_is_https_only_if_every_known_hop_was(
    trusted: Any, peer: str, scheme: str, said: list[str], expected: str
) -> None:
    headers = [("x-forwarded-proto", value) for value in said]
    assert Proxies(trusted).scheme(peer, scheme, headers) == expected


def guard(allowed: list[str] | None, https_only: bool = False) -> Guard:
    return Guard(Proxies(PROXIES), None if allowed is None else AllowList(allowed), https_only)


def test_an_address_on_no_list_is_refused_and_named() -> None:
    guard(["192.0.2.0/24", "2001:db8::/32"]).check("192.0.2.7", "http", {})
    guard(["192.0.2.0/24", "2001:db8::/32"]).check("2001:db8::7", "http", {})
    with pytest.raises(SenderNotAllowed, match=r"203\.0\.113\.1 is not among the 1 networks"):
        guard(["192.0.2.0/24"]).check("203.0.113.1", "http", {})
    with pytest.raises(SenderNotAllowed, match="cannot be told"):
        guard(["192.0.2.0/24"]).check("10.0.0.1", "http", {"x-forwarded-for": "?"})


def test_an_allow_list_of_no_networks_allows_nobody() -> None:
    with pytest.raises(SenderNotAllowed):
        guard([]).check("192.0.2.7", "https", {})


def test_plain_http_is_refused_with_the_remedy() -> None:
    guard(None, https_only=True).check("192.0.2.7", "https", {})
    with pytest.raises(NotHttps, match="trusted_proxies"):
        guard(None, https_only=True).check("192.0.2.7", "http", {})


def test_an_allow_list_is_replaced_as_a_whole_and_never_by_nothing() -> None:
    allowed = AllowList(["192.0.2.0/24"])
    allowed.replace(["203.0.113.0/24"])
    assert parse_address("203.0.113.1") in allowed and parse_address("192.0.2.1") not in allowed
    for wrong in ([], ["192.0.2.0/24", "nonsense"]):
        with pytest.raises(ValueError):
            allowed.replace(wrong)
    assert parse_address("203.0.113.1") in allowed


@pytest.mark.parametrize("trusted", [-1, 33, ["10.0.0.1/8"], ["x"]])
def test_proxies_that_cannot_be_are_refused(trusted: Any) -> None:
    with pytest.raises(ValueError):
        Proxies(trusted)
