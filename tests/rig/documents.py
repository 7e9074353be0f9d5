"""Documents as data: Markdown's blocks, tables and words in code; what an HTML page links to."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import get_args

import click
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydantic import BaseModel

from dispatcherd.cli.main import cli
from dispatcherd.config.model import EndpointConfig


def parsed(text: str) -> list[Token]:
    """A document as CommonMark with tables."""
    return MarkdownIt("commonmark").enable("table").parse(text)


def walk(tokens: list[Token]) -> Iterator[Token]:
    """Every token, those within lines too."""
    for token in tokens:
        yield token
        yield from walk(token.children or [])


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [t.content for t in parsed(text) if t.type == "fence" and t.info == language]


def codes(text: str) -> list[str]:
    """What stands `so` in a document."""
    return [t.content for t in walk(parsed(text)) if t.type == "code_inline"]


def tables(text: str) -> list[list[list[str]]]:
    """Table → row (the head first) → cell, as Markdown."""
    found: list[list[list[str]]] = []
    for token in parsed(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and token.map and token.level > 2:
            found[-1][-1].append(token.content)
    return found


def table(text: str, head: str) -> dict[str, str]:
    """First column → second column, backticks taken off, of the only table with that head."""
    [found] = [t for t in tables(text) if t[0][0].strip("`") == head]
    return {row[0].strip("`"): row[1] for row in found[1:]}


def check_command(words: list[str]) -> None:
    """Parse a `dispatcherd` command line without running it; raises click's UsageError."""
    command: click.Command = cli
    assert words[0] == "dispatcherd"
    rest = words[1:]
    while isinstance(command, click.Group):
        context = click.Context(command)
        _, command, rest = command.resolve_command(context, rest)  # type: ignore[assignment]
    command.make_context(command.name, rest)


def model_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of the configuration, sections too; an endpoint's keys stand without a prefix."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from model_keys(inner, "" if inner is EndpointConfig else f"{prefix}{name}.")


class Page(HTMLParser):
    """What an HTML page has ids for, links to, and loads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") != "canonical":
            self.loads.append(given.get("href", ""))
        elif "src" in given:
            self.loads.append(given["src"])
