"""The catalogue as documents for the people who receive the events.

Invariant: pure; the same catalogue gives the same text; a document stands by itself, without
network. Leaves out: writing files (the command line).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dispatcherd.events.catalogue import Catalogue
from dispatcherd.events.render.about import About
from dispatcherd.events.render.asyncapi import asyncapi
from dispatcherd.events.render.markdown import markdown
from dispatcherd.events.render.openapi import openapi
from dispatcherd.events.render.page import page

Format = Literal["html", "markdown", "asyncapi", "openapi"]

__all__ = ["FORMATS", "About", "Document", "Format"]


@dataclass(frozen=True, slots=True)
class Document:
    """One form of the catalogue."""

    file: str
    render: Callable[[Catalogue, About], str]


FORMATS: dict[Format, Document] = {
    "html": Document("index.html", page),
    "markdown": Document("events.md", markdown),
    "asyncapi": Document("asyncapi.json", asyncapi),
    "openapi": Document("openapi.json", openapi),
}
