"""Events are held against a catalogue: what is refused, what only counted, and in which words."""

from __future__ import annotations

import logging
from typing import Any, Literal

import orjson
import pytest

from dispatcherd.config.model import CatalogueConfig, DecodeConfig
from dispatcherd.conformity import Conformity, Rules
from dispatcherd.decode import Decoder
from dispatcherd.delivery import Reason, Refused
from dispatcherd.events import Catalogue
from dispatcherd.events.files import parse
from dispatcherd.events.source import Source
from dispatcherd.metrics import OTHER, Metrics
from tests.unit.nouns import CLAIM

Policy = Literal["warn", "quarantine"]

CATALOGUE = parse(
    [
        Source(
            "order.yaml",
            """
type: order.created
description: An order was placed.
versions:
  "1":
    schema:
      type: object
      required: [order, lines]
      properties:
        order: {type: string, pattern: "^A-"}
        day: {type: string, format: date}
        lines: {type: array, items: {type: object, properties: {price: {type: number}}}}
        kind: {enum: [web, app]}
        closed: {type: object, additionalProperties: false}
        narrow: {type: object, properties: {a: {}}, additionalProperties: false}
    example: {}
  "2":
    schema: {type: object, properties: {order: {type: integer}}}
    example: {}
""",
        )
    ]
)
GOOD = {"order": "A-1", "lines": [{"price": 2}]}


def rules(
    catalogue: Catalogue = CATALOGUE,
    on_violation: Policy = "quarantine",
    on_unknown: Literal["accept", "warn", "quarantine"] = "quarantine",
) -> Rules:
    return Rules(catalogue, CatalogueConfig(on_violation=on_violation, on_unknown=on_unknown))


def held(rules: Rules, document: Any, metrics: Metrics, **headers: str) -> Refused | None:
    """What becomes of a record with that body."""
    encoded = [(name.replace("_", "-"), text.encode()) for name, text in headers.items()]
    decoded = Decoder(DecodeConfig()).decode(CLAIM, 7, orjson.dumps(document), encoded, 0)
    assert not isinstance(decoded, Refused)
    return Conformity(rules, metrics).refusal(rules, *decoded)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"lines": []}, "data.order is missing"),
        ({**GOOD, "order": 17}, 'data.order: the value is not of type "string"'),
        ({**GOOD, "order": "B-1"}, 'data.order: the value does not match "^A-"'),
        ({**GOOD, "day": "1.7.2026"}, 'data.day: the value is not a "date"'),
        ({**GOOD, "lines": [{}, {"price": "3"}]}, "data.lines[1].price: "),
        ({**GOOD, "kind": "fax"}, "data.kind: the value is not one of"),
        ({**GOOD, "closed": {"x": 1}}, "data.closed is not allowed, or something in it"),
        ({**GOOD, "narrow": {"x": 1}}, "data.narrow.x is not described"),
        ([], 'data: the value is not of type "object"'),
        (None, "data is missing"),
        ({}, "data.order is missing; data.lines is missing"),
    ],
)
def test_a_violation_names_the_field_and_no_value(data: Any, said: str) -> None:
    refused = rules().look("order.created", "1", data)
    assert refused is not None and refused.reason is Reason.INVALID_DATA
    assert refused.detail.startswith("not by version 1 of order.created: ")
    assert said in refused.detail
    for secret in ("B-1", "1.7.2026", "fax"):
        assert secret not in refused.detail


def test_a_detail_is_bounded_also_for_many_and_long_names() -> None:
    refused = rules().look("order.created", "1", {**GOOD, "narrow": {"x" * 10_000: 1}})
    assert refused is not None and len(refused.detail) <= 300


def test_each_version_has_rules_of_its_own() -> None:
    assert rules().look("order.created", "2", {"order": 17}) is None
    assert rules().look("order.created", "1", {"order": 17}) is not None


@pytest.mark.parametrize(
    ("document", "headers"),
    [
        ({"type": "order.created", "data": GOOD}, {}),
        ({"event": "order.created", "version": "1", "data": GOOD}, {}),
        ({"event_type": "order.created", "version": 2, "data": {"order": 1}}, {}),
        ({"specversion": "1.0", "type": "order.created", "id": "1", "data": GOOD}, {}),
        (GOOD, {"webhook_type": "order.created"}),
        ({"order": 1}, {"webhook_type": "order.created", "webhook_version": "2"}),
        # A body of another type than the header's is data, whatever it holds.
        ({**GOOD, "type": "express"}, {"webhook_type": "order.created"}),
        # The header says what the body says: it is an envelope.
        ({"type": "order.created", "data": GOOD}, {"webhook_type": "order.created"}),
    ],
)
def test_the_data_is_looked_for_where_the_shape_has_it(
    document: Any, headers: dict[str, str]
) -> None:
    metrics = Metrics()
    assert held(rules(), document, metrics, **headers) is None
    assert not metrics.violations


def test_an_envelope_without_data_is_a_violation() -> None:
    refused = held(rules(), {"type": "order.created", "order": "A-1", "lines": []}, Metrics())
    assert refused is not None and refused.detail.endswith("data is missing")


def test_what_is_to_be_quarantined_is_refused_and_counted() -> None:
    metrics = Metrics()
    refused = held(rules(), {"type": "order.created", "data": {}}, metrics)
    assert refused is not None
    assert metrics.violations == {("order.created", Reason.INVALID_DATA): 1}


def test_what_is_only_to_be_warned_of_is_counted_logged_and_let_through(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()
    with caplog.at_level(logging.WARNING, "dispatcherd"):
        document = {"type": "order.created", "data": {"order": "B-1"}}
        assert held(rules(on_violation="warn"), document, metrics) is None
    assert metrics.violations == {("order.created", Reason.INVALID_DATA): 1}
    [record] = caplog.records
    fields = record.__dict__["fields"]
    assert record.message == "event_not_by_catalogue"
    assert (fields["offset"], fields["reason"]) == (7, "invalid_data")
    assert "data.lines is missing" in fields["detail"] and "B-1" not in fields["detail"]


@pytest.mark.parametrize(
    ("type_", "version", "reason", "said"),
    [
        ("order.creatd", "1", Reason.UNKNOWN_TYPE, "the catalogue has no type 'order.creatd'"),
        (
            "order.created",
            "3",
            Reason.UNKNOWN_VERSION,
            "the catalogue has no version '3' of order.created; it has 1, 2",
        ),
    ],
)
def test_what_the_catalogue_does_not_know_is_accepted_warned_of_or_refused(
    type_: str, version: str, reason: Reason, said: str
) -> None:
    document = {"type": type_, "version": version, "data": GOOD}
    accepting, warning, refusing = Metrics(), Metrics(), Metrics()
    assert held(rules(on_unknown="accept"), document, accepting) is None
    assert held(rules(on_unknown="warn"), document, warning) is None
    assert held(rules(on_unknown="quarantine"), document, refusing) == Refused(reason, said)
    assert not accepting.violations
    known = type_ in CATALOGUE.types
    expected = {(type_ if known else OTHER, reason): 1}
    assert warning.violations == refusing.violations == expected


def test_producers_that_make_up_types_make_one_series() -> None:
    metrics = Metrics()
    for number in range(100):
        held(rules(on_unknown="warn"), {"type": f"made.up.{number}", "data": {}}, metrics)
    assert metrics.violations == {(OTHER, Reason.UNKNOWN_TYPE): 100}


def test_without_a_path_there_are_no_rules() -> None:
    assert Rules.of(CatalogueConfig()) is None
