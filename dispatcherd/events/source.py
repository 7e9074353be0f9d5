"""One file of the catalogue as text: parsed to plain values, and the line of each key in it.

Invariant: what is parsed is what JSON can hold: texts as keys, no dates, no other kinds of YAML.
Leaves out: what the keys mean (files).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from dispatcherd.config.document import explained, parse_yaml
from dispatcherd.errors import CatalogueError, CatalogueProblem, ConfigError

Path = tuple[str | int, ...]
"""Keys and indices from the top of a document."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file's name, as a person would find it, and its text."""

    name: str
    text: str

    def problem(self, path: Sequence[str | int], trouble: str, remedy: str) -> CatalogueProblem:
        """A mistake at a place in this file."""
        return CatalogueProblem(self.name, self.line(path), dotted(path), trouble, remedy)

    def line(self, path: Sequence[str | int]) -> int | None:
        """The line of a key, or of the nearest one above it that exists."""
        node = yaml.compose(self.text, Loader=yaml.SafeLoader)
        line = None if node is None else node.start_mark.line + 1
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        return line

    def parse(self) -> Any:
        """The document. Raises CatalogueError."""
        try:
            document = parse_yaml(self.text)
        except yaml.YAMLError as error:
            place, trouble, remedy = explained(error)
            raise CatalogueError([self._broken(f"{trouble} {place}", remedy)]) from None
        except ConfigError as error:
            [first] = error.problems
            trouble = f"{first.key} {first.value}: {first.trouble}"
            raise CatalogueError([self._broken(trouble, first.remedy)]) from None
        except RecursionError:
            raise CatalogueError([self._broken("nested too deeply", "Mend the brackets")]) from None
        except (ValueError, LookupError, TypeError):
            trouble = "a value does not fit the tag (`!!…`) before it"
            raise CatalogueError([self._broken(trouble, "Remove the tag")]) from None
        problems = [self.problem(*found) for found in _not_json(document, ())]
        if problems:
            raise CatalogueError(problems)
        return document

    def _broken(self, trouble: str, remedy: str) -> CatalogueProblem:
        return CatalogueProblem(self.name, None, "", trouble, remedy)


def dotted(path: Sequence[str | int]) -> str:
    """`versions.1.schema.properties.lines.items`, `example.lines[0]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _child(node: yaml.Node | None, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    return None


def _not_json(value: Any, path: Path) -> Iterator[tuple[Path, str, str]]:
    """What of a YAML document JSON cannot hold."""
    if isinstance(value, dict):
        for key, below in value.items():
            if type(key) is int and path == ("versions",):
                key = str(key)  # `1:` says what it means
            if not isinstance(key, str):
                trouble = f"a key is read as {key!r}, which is no text"
                yield path, trouble, "Put the key in quotes (on, off, yes, no and numbers need it)"
                continue
            yield from _not_json(below, (*path, key))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _not_json(below, (*path, index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, "JSON has no such number", "Write a finite one"
    elif not (value is None or isinstance(value, (str, int, float))):
        yield path, f"JSON has no {type(value).__name__}", "Write a text, in quotes"
