"""The reference pages, made from config.yaml and from the command line's own help.

Invariant: nothing is said here that is not in those two. Leaves out: whether config.yaml is true
to the program (tests/config/test_reference.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from dispatcherd.cli.main import cli

_KEY = re.compile(r"(?P<indent> *)#?(?:- )?(?P<key>[a-z_]+):")
_COMMENT = re.compile(r" *# (?P<words>.*)")
_SPECIAL = re.compile(r"([*_<>\[\]{}|\\])")
_WIDTH = 96


@dataclass
class Entry:
    """One comment of config.yaml with the lines below it."""

    words: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    """The keys it is about, dotted, without what stands deeper than the first one."""


def entries(text: str) -> Iterator[Entry]:
    """The file in order. The head comes first, as an entry without lines."""
    entry = Entry()
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        comment = _COMMENT.fullmatch(line)
        if comment or line.strip() in ("", "#"):
            if entry.lines or (not line.strip() and entry.words):
                yield entry
                entry = Entry()
            if comment:
                entry.words.append(comment["words"])
            continue
        entry.lines.append(line)
        key = _KEY.match(line)
        if key is None:
            continue
        column = key.start("key") - (1 if "#" in line[: key.start("key")] else 0)
        above = [(where, name) for where, name in above if where < column]
        path = ".".join([*(name for _, name in above), key["key"]])
        above.append((column, key["key"]))
        if not entry.paths or path.rpartition(".")[0] == entry.paths[0].rpartition(".")[0]:
            entry.paths.append(path)
    yield entry


def _prose(words: list[str]) -> str:
    """A comment as Markdown: what stands in backticks stays, the rest is taken literally."""
    parts = re.split(r"(`[^`]*`)", " ".join(words))
    return "".join(p if p.startswith("`") else _SPECIAL.sub(r"\\\1", p) for p in parts)


def anchor(path: str) -> str:
    """What a key is linked to by: `config-kafka-topics`."""
    return "config-" + path.replace(".", "-").replace("_", "-")


def configuration(text: str) -> str:
    """The page of all keys."""
    page = [
        "# Configuration",
        "Every key of `config.yaml` with its default, its unit and its reason, made from\n"
        "{download}`config.yaml <../../config.yaml>` itself. In the samples a line after `#` is "
        "commented out\nthere, and shows the default or, where the text says *no default*, an "
        "example.",
    ]
    for entry in entries(text):
        if not entry.lines:
            if "From the environment" in entry.words[0]:
                page += ["## The environment", _prose(entry.words)]
            elif "A reload" in entry.words[0]:
                page += ["## A reload", _prose(entry.words)]
            continue
        level = "##" if "." not in entry.paths[0] else "###"
        targets = "\n".join(f"({anchor(path)})=" for path in entry.paths)
        title = ", ".join(f"`{path}`" for path in entry.paths)
        page.append(f"{targets}\n{level} {title}")
        page.append(_prose(entry.words))
        name = entry.paths[0].rpartition(".")[2]
        if entry.lines[0].lstrip(" #") != f"{name}:" or len(entry.lines) > 1:
            indent = min(len(line) - len(line.lstrip()) for line in entry.lines)
            code = "\n".join(line[indent:] for line in entry.lines)
            page.append(f"```yaml\n{code}\n```")
    return "\n\n".join(part for part in page if part) + "\n"


def walk(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """(`dispatcherd endpoints list`, command) of each command that does something."""
    if isinstance(command, click.Group):
        for word, child in command.commands.items():
            yield from walk(child, f"{name} {word}")
    else:
        yield name, command


def commands() -> str:
    """The page of all commands."""
    page = [
        "# Commands",
        "What `dispatcherd <command> --help` says. Exit codes: 0 done, 1 failed, 2 the "
        "configuration or the\ncommand line is wrong; 130 after Ctrl-C.",
    ]
    for name, command in walk(cli, "dispatcherd"):
        context = click.Context(
            command,
            info_name=name,
            terminal_width=_WIDTH,
            max_content_width=_WIDTH,
            help_option_names=cli.context_settings["help_option_names"],
        )
        target = "command-" + "-".join(name.split()[1:])
        page.append(f"({target})=\n## {name}")
        page.append(f"```text\n{command.get_help(context)}\n```")
    return "\n\n".join(page) + "\n"


def write(folder: Path, config: Path) -> None:
    """Write both pages; a page that has not changed is left alone, so that it is not built anew."""
    for name, text in (
        ("configuration.md", configuration(config.read_text())),
        ("commands.md", commands()),
    ):
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
