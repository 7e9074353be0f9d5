"""The catalogue as an AsyncAPI 3.0 document: one channel, a message for each version of a type.

Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

from typing import Any

import orjson

from dispatcherd.events.catalogue import Catalogue, EventType, EventVersion
from dispatcherd.events.render.about import About, headers
from dispatcherd.events.render.hoist import PLACE, component, components, description


def asyncapi(catalogue: Catalogue, about: About) -> str:
    """JSON."""
    messages = {
        component(event): _message(type_, event, about)
        for type_ in catalogue.types.values()
        for event in type_.versions.values()
    }
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": about.title,
            "version": about.version,
            "description": "Events that are sent by HTTP POST to the addresses that receivers have "
            "registered, signed by Standard Webhooks (https://www.standardwebhooks.com).",
        },
        "defaultContentType": "application/json",
        "channels": {
            "webhooks": {
                "address": None,
                "title": "The receiver's address",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            "sendEvent": {
                "action": "send",
                "channel": {"$ref": "#/channels/webhooks"},
                "summary": "An event is sent to a receiver.",
                "bindings": {"http": {"method": "POST", "bindingVersion": "0.3.0"}},
                "messages": [{"$ref": f"#/channels/webhooks/messages/{name}"} for name in messages],
            }
        },
        "components": {"messages": messages, "schemas": components(catalogue)},
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n"


def _message(type_: EventType, event: EventVersion, about: About) -> dict[str, Any]:
    payload = about.body_schema(event, {"$ref": PLACE + component(event)})
    if event.deprecated is not None and not about.bare:
        payload = {**payload, "deprecated": True}
    return {
        "name": event.type,
        "title": f"{event.type}, version {event.version}",
        "description": description(type_, event),
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": {
                header.name: {"type": "string", "description": header.meaning}
                for header in headers(event)
            },
        },
        "payload": payload,
        "examples": [
            {
                "name": "example",
                "headers": {header.name: header.example for header in headers(event)},
                "payload": about.body(event),
            }
        ],
    }
