"""Publishes the same kind of event in each of the four forms that dispatcherd reads.

Python 3.11 or newer with confluent-kafka. The id is yours to choose: an event that you publish
twice with one id is two deliveries, and receivers deduplicate by it.
"""

import json
import os
import sys
import uuid
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

# docs:start forms
Form = tuple[bytes, list[tuple[str, bytes]]]
"""What a record's value and headers are."""


def plain(event_id: str, event_type: str, data: dict[str, Any]) -> Form:
    """An envelope: everything in the JSON. Receivers see it as it is."""
    content = {
        "id": event_id,
        "type": event_type,
        "timestamp": datetime.now(UTC).isoformat(),
        "data": data,
    }
    return json.dumps(content).encode(), []


def headers(event_id: str, event_type: str, data: dict[str, Any]) -> Form:
    """Bare data, as your topic may have it already; what it is stands in headers of the record."""
    return json.dumps(data).encode(), [
        ("webhook-id", event_id.encode()),
        ("webhook-type", event_type.encode()),
        ("webhook-version", b"1"),
    ]


def cloudevent(event_id: str, event_type: str, data: dict[str, Any]) -> Form:
    """CloudEvents 1.0, structured: everything in the JSON, under the names of that standard."""
    content = {
        "specversion": "1.0",
        "id": event_id,
        "source": "/shop",
        "type": event_type,
        "time": datetime.now(UTC).isoformat(),
        "datacontenttype": "application/json",
        "data": data,
    }
    return json.dumps(content).encode(), [("content-type", b"application/cloudevents+json")]


def cloudevent_binary(event_id: str, event_type: str, data: dict[str, Any]) -> Form:
    """CloudEvents 1.0, binary: bare data, the attributes as headers that begin with ce_."""
    return json.dumps(data).encode(), [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_source", b"/shop"),
        ("ce_type", event_type.encode()),
        ("ce_time", datetime.now(UTC).isoformat().encode()),
        ("content-type", b"application/json"),
    ]


# docs:end forms

FORMS = {
    "plain": plain,
    "headers": headers,
    "cloudevent": cloudevent,
    "cloudevent_binary": cloudevent_binary,
}


def main() -> None:
    refused: list[KafkaError] = []

    def acknowledged(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            refused.append(error)

    # Idempotence: a retry inside the client does not write the record twice.
    bootstrap = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    topic = os.environ.get("TOPIC", "orders")
    for name, form in FORMS.items():
        event_id = f"evt_{uuid.uuid4().hex}"
        order = {"order": f"ord_{event_id[-6:]}", "total": 42, "currency": "EUR"}
        value, record_headers = form(event_id, "order.created", order)
        producer.produce(
            topic, value, key=order["order"], headers=record_headers, on_delivery=acknowledged
        )
        print(name, event_id)
    # Publishing has happened when the broker has said so, not before.
    left = producer.flush(30)
    if left or refused:
        sys.exit(f"{left} records not acknowledged, {len(refused)} refused: {refused[:1]}")


if __name__ == "__main__":
    main()
