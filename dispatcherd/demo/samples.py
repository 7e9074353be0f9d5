"""Realistic records: a small shop's orders, users, invoices …, in every shape that is understood.

Invariant: the same seed gives the same records but for their times; an id is never used twice; what
is an event is by the catalogue of the demo (`events.SAMPLE`). Leaves out: publishing them (kafka),
who wants them (scenario).
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

_TYPES = {
    "order.created": 24,
    "order.paid": 18,
    "order.shipped": 12,
    "order.cancelled": 4,
    "user.registered": 8,
    "user.updated": 7,
    "user.deleted": 2,
    "invoice.issued": 8,
    "invoice.paid": 7,
    "payment.failed": 3,
    "payment.refunded": 2,
    "subscription.renewed": 4,
    "subscription.cancelled": 1,
}
"""Weights, in percent."""
_MOST_BIG_ORDERS = 300
_EVENTS_PER_BAD_RECORD = 125
_NAMES = ("Ada", "Bjørn", "Chloé", "Dilnoza", "Ewa", "Farid", "Grete", "Hiroshi", "Işıl", "João")
_CITIES = ("Aarhus", "Bilbao", "Gdańsk", "Graz", "Kraków", "Malmö", "Nantes", "Porto", "Zürich")
_COUNTRIES = ("AT", "DE", "ES", "FR", "PL", "SE")
_OLD = 0.2
"""The part of the events of two versions that still is of the first."""
_GOODS = ("teapot", "lamp", "notebook", "umbrella", "kite", "garden chair", "sextant", "kayak")


_Made = tuple[str, str, dict[str, Any]]
"""Key, version and data of one event."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One record to publish."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    type: str | None = None
    """None: it is no event."""
    total: float | None = None
    refused_for: str | None = None
    """Of a record that is no event: the reason it must lie in quarantine for."""


BAD_RECORDS: tuple[tuple[str, bytes | None], ...] = (
    ("not_json", b'{"type": "order.created", "data": {"order": "A-10'),  # cut off
    ("not_json", b"order A-1042 was paid"),
    ("no_value", None),  # a tombstone of a compacted topic
    ("empty", b""),
    ("not_utf8", '{"type": "user.updated", "data": {"name": "Jürgen"}}'.encode("latin-1")),
    ("not_an_object", b'[{"type": "order.paid"}, {"type": "order.paid"}]'),
    ("no_type", b'{"id": "1042", "data": {"order": "A-1042"}}'),
    ("invalid_type", b'{"type": "order created", "data": {}}'),
    ("invalid_id", b'{"type": "order.paid", "id": "1042.1", "data": {}}'),
    ("unknown_type", b'{"type": "order.payed", "data": {"order": "A-1042"}}'),
    ("unknown_version", b'{"type": "user.deleted", "version": "2", "data": {"user": "c17"}}'),
    ("invalid_data", b'{"type": "order.shipped", "data": {"order": 1042, "carrier": "DHL"}}'),
)


class Shop:
    """Makes records; the state is which orders and customers there are."""

    def __init__(self, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self._orders = 1_000
        self._customers = 400
        self._invoices = 7_000
        self._big_orders = 0

    def records(self, events: int, clock: Callable[[], datetime]) -> Iterator[Sample]:
        """So many events, each made at the time at which it is asked for; among them records that
        are no events, at least one of each kind."""
        bad = min(max(len(BAD_RECORDS), events // _EVENTS_PER_BAD_RECORD), events)
        places = self._random.sample(range(events), bad)
        kinds = {place: number % len(BAD_RECORDS) for number, place in enumerate(places)}
        for number in range(events):
            if number in kinds:
                reason, value = BAD_RECORDS[kinds[number]]
                topic = "accounts" if value and b"user" in value else "shop"
                yield Sample(topic, None, value, refused_for=reason)
            yield self.event(clock())

    def event(self, now: datetime) -> Sample:
        """The next event, published at `now`."""
        draw = self._random
        (type_,) = draw.choices(list(_TYPES), list(_TYPES.values()))
        kind, _, happened = type_.partition(".")
        key, version, data = getattr(self, f"_{kind}")(happened)
        id_ = str(uuid.UUID(int=draw.getrandbits(128), version=4))
        shape = draw.choice(_SHAPES)
        time = now.isoformat(timespec="milliseconds")
        value, headers = shape(type_, version, id_, time, data)
        return Sample(
            "shop" if kind == "order" else "accounts",
            key.encode(),
            orjson.dumps(value),
            tuple((name, text.encode()) for name, text in headers.items()),
            type_,
            data.get("total"),
        )

    def _order(self, happened: str) -> _Made:
        draw = self._random
        if happened == "created":
            return self._new_order()
        order = f"A-{draw.randint(1_000, self._orders)}"
        if happened == "shipped":
            address = {"city": draw.choice(_CITIES), "country": draw.choice(_COUNTRIES)}
            return order, "1", {"order": order, "carrier": "DHL", "address": address}
        if happened == "cancelled":
            return order, "1", {"order": order, "reason": draw.choice(("customer", "unpaid"))}
        return order, "1", {"order": order, **self._money(), "method": "card"}

    def _new_order(self) -> _Made:
        draw = self._random
        self._orders += 1
        order = f"A-{self._orders}"
        lines: list[dict[str, Any]] = [
            {"item": draw.choice(_GOODS), "quantity": draw.randint(1, 4), "price": price}
            for price in (round(draw.uniform(3, 80), 2) for _ in range(draw.randint(1, 3)))
        ]
        if self._big_orders < _MOST_BIG_ORDERS and draw.random() < 0.25:
            self._big_orders += 1
            lines.append({"item": "grand piano", "quantity": 1, "price": 8_450.00})
        total = round(sum(line["quantity"] * line["price"] for line in lines), 2)
        data = {"order": order, "customer": self._customer(), "lines": lines, "total": total}
        if draw.random() < _OLD:
            return order, "1", data
        return order, "2", {**data, "currency": "EUR", "channel": draw.choice(("web", "app"))}

    def _user(self, happened: str) -> _Made:
        draw = self._random
        if happened == "registered":
            self._customers += 1
        user = f"c{self._customers}" if happened == "registered" else self._customer()
        if happened == "deleted":
            return user, "1", {"user": user}
        name, city = draw.choice(_NAMES), draw.choice(_CITIES)
        data = {"user": user, "name": name, "city": city, "newsletter": draw.random() < 0.3}
        return user, "1", data

    def _invoice(self, happened: str) -> _Made:
        draw = self._random
        if happened == "issued":
            self._invoices += 1
        number = self._invoices if happened == "issued" else draw.randint(7_000, self._invoices)
        invoice, value = f"2026-{number}", round(draw.uniform(9, 400), 2)
        if happened == "paid" or draw.random() < _OLD:
            return invoice, "1", {"invoice": invoice, "amount": value}
        amount = {"value": value, "tax": round(value / 6, 2), "currency": "EUR"}
        data = {"invoice": invoice, "customer": self._customer(), "amount": amount}
        return invoice, "2", {**data, "due": "2026-12-31"}

    def _payment(self, happened: str) -> _Made:
        money = self._money()
        if happened == "failed":
            money |= {"reason": self._random.choice(("declined", "expired")), "final": False}
        return str(money["payment"]), "1", money

    def _subscription(self, happened: str) -> _Made:
        subscription = f"s-{self._random.randint(1, 900)}"
        data = {"subscription": subscription, "customer": self._customer()}
        starts, ends = "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"
        if happened == "cancelled":
            return subscription, "1", {**data, "ends": ends, "reasons": ["price"]}
        period = {"starts": starts, "ends": ends}
        return subscription, "1", {**data, "plan": "monthly", "period": period}

    def _money(self) -> dict[str, Any]:
        draw = self._random
        payment = f"p-{draw.randint(10_000, 99_999)}"
        return {"payment": payment, "amount": round(draw.uniform(9, 400), 2), "currency": "EUR"}

    def _customer(self) -> str:
        return f"c{self._random.randint(1, self._customers)}"


_Shaped = tuple[dict[str, Any], dict[str, str]]


def _event_key(type_: str, version: str, _id: str, time: str, data: dict[str, Any]) -> _Shaped:
    # Its id comes from its position.
    return {"event": type_, **_unless_1(version), "timestamp": time, "data": data}, {}


def _event_type_key(type_: str, version: str, id_: str, time: str, data: dict[str, Any]) -> _Shaped:
    envelope = {"event_type": type_, **_unless_1(version), "id": id_, "timestamp": time}
    return {**envelope, "data": data}, {}


def _type_key(type_: str, version: str, id_: str, time: str, data: dict[str, Any]) -> _Shaped:
    return {"id": id_, "type": type_, "version": version, "timestamp": time, "data": data}, {}


def _cloudevent(type_: str, version: str, id_: str, time: str, data: dict[str, Any]) -> _Shaped:
    attributes = {"specversion": "1.0", "id": id_, "source": "/shop", "type": type_, "time": time}
    attributes |= {"version": version, "datacontenttype": "application/json"}
    return {**attributes, "data": data}, {}


def _binary_cloudevent(
    type_: str, version: str, id_: str, time: str, data: dict[str, Any]
) -> _Shaped:
    headers = {"ce_specversion": "1.0", "ce_id": id_, "ce_source": "/shop", "ce_type": type_}
    headers |= {"ce_version": version, "ce_time": time, "content-type": "application/json"}
    return data, headers


def _plain_headers(type_: str, version: str, id_: str, _time: str, data: dict[str, Any]) -> _Shaped:
    return data, {"webhook-type": type_, "webhook-id": id_, "webhook-version": version}


def _unless_1(version: str) -> dict[str, str]:
    """A producer that knows of no versions names none."""
    return {} if version == "1" else {"version": version}


_SHAPES = (
    _event_key,
    _event_type_key,
    _type_key,
    _cloudevent,
    _binary_cloudevent,
    _plain_headers,
)
