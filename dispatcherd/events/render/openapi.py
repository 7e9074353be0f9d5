"""The catalogue as an OpenAPI 3.1 document with `webhooks`: one for each version of a type.

Source: https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from typing import Any

import orjson

from dispatcherd.events.catalogue import Catalogue, EventType, EventVersion
from dispatcherd.events.render.about import ANSWERS, About, headers
from dispatcherd.events.render.hoist import PLACE, component, components, description

_STATUS = {"2xx": "2XX", "410": "410", "anything else": "default"}


def openapi(catalogue: Catalogue, about: About) -> str:
    """JSON."""
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": about.title,
            "version": about.version,
            "description": "Requests that a receiver of these events must expect, signed by "
            "[Standard Webhooks](https://www.standardwebhooks.com).",
        },
        "webhooks": {
            component(event): {"post": _operation(type_, event, about)}
            for type_ in catalogue.types.values()
            for event in type_.versions.values()
        },
        "components": {"schemas": components(catalogue)},
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n"


def _operation(type_: EventType, event: EventVersion, about: About) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": component(event),
        "summary": f"{event.type}, version {event.version}",
        "description": description(type_, event),
        "tags": [event.type.partition(".")[0]],
        # OpenAPI ignores a parameter of the name content-type: the request body has it.
        "parameters": [
            {
                "name": header.name,
                "in": "header",
                "required": True,
                "description": header.meaning,
                "schema": {"type": "string"},
                "example": header.example,
            }
            for header in headers(event)
            if header.name != "content-type"
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": about.body_schema(event, {"$ref": PLACE + component(event)}),
                    "examples": {"example": {"value": about.body(event)}},
                }
            },
        },
        "responses": {
            _STATUS[answer.status]: {"description": answer.meaning} for answer in ANSWERS
        },
    }
    if event.deprecated is not None:
        found["deprecated"] = True
    return found
