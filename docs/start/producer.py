"""producer.py: publish one event, and be sure that Kafka has it."""

import json
import sys
import uuid

from confluent_kafka import Producer

event = {
    "id": f"evt_{uuid.uuid4().hex}",
    "type": "order.paid",
    "timestamp": "2026-01-02T03:04:05Z",
    "data": {"order": "A-1042", "total": 42},
}


def acknowledged(error, message):
    if error is not None:
        raise SystemExit(f"not published: {error}")
    where = f"partition {message.partition()}, offset {message.offset()}"
    print(f"{event['type']} is in {message.topic()}, {where}")


producer = Producer({"bootstrap.servers": sys.argv[1], "enable.idempotence": True})
producer.produce("shop", json.dumps(event).encode(), on_delivery=acknowledged)
producer.flush(30)
