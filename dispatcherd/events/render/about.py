"""What every document says beside the event types: the request, its headers, the answers.

Invariant: says what the sender does; tests hold it against the sender. Leaves out: how it looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple

from dispatcherd.config.model import STANDARD_SCHEDULE_SECONDS, EndpointConfig
from dispatcherd.events.catalogue import EventVersion, Schema, envelope

EXAMPLE_ID = "evt_2bq6n4l7yvtc5kxg3wzjmdrfae"
EXAMPLE_TIME = "2026-07-01T09:30:00Z"
EXAMPLE_SECONDS = 1_782_898_200
"""The same moment."""


@dataclass(frozen=True, slots=True)
class About:
    """What a document needs to know beside the catalogue."""

    title: str = "Webhook events"
    version: str = "1.0.0"
    """Of the document, for those who keep several."""
    bare: bool = False
    """Events are published as bare data, and not in an envelope."""

    @property
    def form(self) -> str:
        """How the body stands to the data that is described, in a sentence or two."""
        if self.bare:
            return "The body is the event's data; its type and version are in the headers."
        return (
            "The body is as the producer published it: an envelope with the event's data under "
            "`data`. An event that was published without an envelope arrives as the bare data; its "
            "type and version are in the headers then."
        )

    def body(self, event: EventVersion) -> dict[str, Any]:
        """An example of a request's body."""
        return event.example if self.bare else envelope(event, EXAMPLE_ID, EXAMPLE_TIME)

    def body_schema(self, event: EventVersion, data: Schema) -> Schema:
        """Of a request's body, where `data` is the schema of the event's data, or a reference."""
        if self.bare:
            return data
        return {
            "type": "object",
            "required": ["type", "data"],
            "properties": {
                "id": {"type": "string", "description": "The event's id; see `webhook-id`."},
                "type": {"const": event.type, "description": "The event's type."},
                "version": {
                    "type": "string",
                    "description": f"The version of the data: {event.version}.",
                },
                "timestamp": {"type": "string", "description": "When it happened."},
                "data": data,
            },
        }


class Header(NamedTuple):
    """One header of each request."""

    name: str
    meaning: str
    example: str


def headers(event: EventVersion) -> list[Header]:
    """Of a request with one event."""
    return [
        Header(
            "webhook-id",
            "The event's id, the same in every attempt: drop what you have seen before by it.",
            EXAMPLE_ID,
        ),
        Header(
            "webhook-timestamp",
            "When this attempt was made, in seconds of the Unix era.",
            str(EXAMPLE_SECONDS),
        ),
        Header(
            "webhook-signature",
            "One or more signatures, separated by spaces; one of them must be right.",
            "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
        ),
        Header("webhook-attempt", "1 for the first attempt, then 2, 3 …", "1"),
        Header("x-webhook-type", "The event's type.", event.type),
        Header("x-webhook-version", "The version of the event's data.", event.version),
        Header("content-type", "The body is JSON.", "application/json"),
    ]


class Answer(NamedTuple):
    """What an answer of the receiver means to the sender."""

    status: str
    meaning: str


ANSWERS = (
    Answer("2xx", "The event is delivered. Answer so as soon as you have stored it."),
    Answer("410", "Send this event no more: it is given up at once."),
    Answer(
        "anything else",
        "Try again, by the schedule below, or later if `Retry-After` asks for it. No answer in "
        "time and no connection mean the same; redirects are not followed.",
    ),
)


def timeout_seconds() -> float:
    """How long a receiver has for its answer where nothing else is agreed."""
    return float(EndpointConfig.model_fields["timeout_seconds"].default)


def schedule() -> str:
    """The waits between attempts, in words, where nothing else is agreed."""
    return ", ".join(map(_duration, STANDARD_SCHEDULE_SECONDS[1:]))


def _duration(seconds: float) -> str:
    for size, unit in ((3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


class Sample(NamedTuple):
    """How a request is verified, in one language."""

    language: str
    alias: str
    """As fenced blocks and highlighters call it."""
    code: str


_SAMPLES = (
    ("Python", "python", "verify.py"),
    ("Node.js", "javascript", "verify.mjs"),
    ("Go", "go", "verify.go"),
    ("Java", "java", "Verify.java"),
    ("PHP", "php", "verify.php"),
    ("Ruby", "ruby", "verify.rb"),
    ("Shell", "bash", "verify.sh"),
)


def samples() -> list[Sample]:
    """All languages. The files are programs that the tests run."""
    folder = files("dispatcherd.events.render") / "verify"
    return [
        Sample(language, alias, (folder / file).read_text("utf-8").strip())
        for language, alias, file in _SAMPLES
    ]
