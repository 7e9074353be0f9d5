"""What a sender publishes is taken if it is whole, and otherwise changes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.receiver import AllowList
from dispatcherd.receiver.published import (
    Facts,
    PublishedFactsError,
    fetch_facts,
    parse_facts,
    read_facts,
)

NETWORKS = ["192.0.2.0/24", "2001:db8::/32"]


def test_networks_and_the_keys_in_force_are_read() -> None:
    document = {
        "egress": NETWORKS,
        "keys": [
            {"public_key": "whpk_old", "not_after": 100},
            {"public_key": "whpk_now", "not_before": 50},
            {"public_key": "whpk_next", "not_before": 200, "not_after": 300},
            {"public_key": "whpk_always"},
        ],
        "signature_versions": ["v1", "v1a"],
    }
    facts = parse_facts(json.dumps(document).encode(), now=150)
    assert facts == Facts(tuple(NETWORKS), ("whpk_now", "whpk_always"))
    assert len(AllowList(facts.egress)) == 2


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"egress": []},
        {"egress": "192.0.2.0/24"},
        {"egress": [1]},
        {"egress": ["192.0.2.1/24"]},
        {"egress": NETWORKS, "keys": [{}]},
        {"egress": NETWORKS, "keys": ["whpk_x"]},
        {"egress": NETWORKS, "keys": [{"public_key": "x", "not_before": "soon"}]},
        {"egress": NETWORKS, "keys": 1},
    ],
)
def test_a_document_that_is_not_whole_is_refused(document: Any) -> None:
    with pytest.raises(PublishedFactsError):
        read_facts(document)


@given(st.binary(max_size=60))
def test_any_bytes_are_facts_or_refused(content: bytes) -> None:
    with pytest.raises(PublishedFactsError):
        parse_facts(content)


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "file:///etc/passwd", "ftp://x/"])
def test_facts_are_fetched_over_https_only(url: str) -> None:
    with pytest.raises(PublishedFactsError, match="https://"):
        fetch_facts(url)


def test_an_unreachable_server_is_a_named_error() -> None:
    with pytest.raises(PublishedFactsError, match="cannot fetch"):
        fetch_facts("https://127.0.0.1:9/", timeout_seconds=2)
