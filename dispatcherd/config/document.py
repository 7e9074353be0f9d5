"""A YAML file as plain Python values, or where and why it is none.

Invariant: the file is read to a bound, and no message holds a text of the file, which may be a
secret: a mistake is shown by its line and column. A key that stands twice is an error, where YAML
would let the last one win. Leaves out: what the keys mean (model).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dispatcherd.config.plain import RESOLVERS, NotPlain, parse_plain
from dispatcherd.errors import ConfigError, ConfigProblem

_MOST_BYTES = 64 * 1024 * 1024
_MERGE = "tag:yaml.org,2002:merge"

_WORDS = (
    # what PyYAML says → what it means to somebody who writes a configuration
    ("could not determine a constructor", "a text cannot begin with ! outside quotes"),
    ("found undefined alias", "a text cannot begin with * outside quotes"),
    ("while scanning an alias", "a text cannot begin with * outside quotes"),
    ("while scanning an anchor", "a text cannot begin with & outside quotes"),
    ("found character '\\t'", "there is a tab"),
    ("cannot start any token", "a text cannot begin with this character outside quotes"),
    ("mapping values are not allowed", "there is a second `: ` in one line"),
    ("but found another document", "there is a second document (`---`)"),
    ("found unexpected end of stream", "a quote is not closed"),
    ("special characters are not allowed", "there is a control character"),
    ("unhashable key", "a key is a list or a mapping"),
    ("while parsing a flow", "a bracket is not closed, or a comma is missing"),
    ("while parsing a block", "the indentation does not fit what stands above"),
    ("expected <document start>", "the indentation does not fit what stands above"),
    ("found unknown escape character", "there is an unknown escape in double quotes"),
)
_REMEDIES = {
    "outside quotes": "Put the text in quotes",
    "tab": "Indent with spaces",
    "second `: `": "Put a text that holds `: ` in quotes, or mend the indentation",
    "second document": "Keep one document",
    "escape": "Write \\\\ for a backslash, or use single quotes",
    "control": "Remove it",
}


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a date is a text. Slow, but its mistakes have words and places."""

    yaml_implicit_resolvers = RESOLVERS


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE:
            continue
        key, line = loader.construct_object(key_node), key_node.start_mark.line + 1
        if key in seen:
            trouble = f"it stands twice (first on line {seen[key]})"
            raise ConfigError(
                [ConfigProblem(str(key), f"(line {line})", trouble, "Keep one of the two")]
            )
        seen[key] = line
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises yaml.YAMLError, ConfigError for a key that stands twice,
    ValueError or RecursionError for what YAML's own constructors cannot take."""
    try:
        return parse_plain(text)
    except NotPlain:
        return yaml.load(text, Loader=_Loader)


def read_file(path: str) -> bytes:
    """What is in a file. Raises ConfigError naming the file and the remedy."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        trouble = f"cannot be read: {error.strerror}"
        raise _refusal(path, "(the file)", trouble, "Check the path and its permissions") from error
    if len(raw) > _MOST_BYTES:
        raise _refusal(path, "(the file)", "larger than 64 MiB", "Split the endpoints up")
    return raw


def _refusal(path: str, value: str, trouble: str, remedy: str) -> ConfigError:
    return ConfigError([ConfigProblem(path, value, trouble, remedy)])


def parse_document(path: str, raw: bytes) -> dict[str, Any]:
    """The mapping in a file's bytes. Raises ConfigError naming the place and the remedy."""

    def refuse(value: str, trouble: str, remedy: str) -> ConfigError:
        return _refusal(path, value, trouble, remedy)

    try:
        document = parse_yaml(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise refuse(f"(line {line})", "not UTF-8", "Save the file as UTF-8") from error
    except yaml.YAMLError as error:
        raise refuse(*explained(error)) from None
    except RecursionError:
        raise refuse("(the file)", "nested too deeply", "Mend the brackets") from None
    except (ValueError, LookupError, TypeError):
        trouble = "not YAML: a value does not fit the tag (`!!…`) before it"
        raise refuse("(the file)", trouble, "Remove the tag") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        trouble = "the top level is not a mapping"
        raise refuse("(the file)", trouble, "Begin with `kafka:`, `postgres:` …")
    return document


def explained(error: yaml.YAMLError) -> tuple[str, str, str]:
    """(place, trouble, remedy) of what `parse_yaml` raises, with nothing of the text itself."""
    mark = getattr(error, "problem_mark", None)
    place = f"(line {mark.line + 1}, column {mark.column + 1})" if mark else "(the file)"
    parts = [getattr(error, name, None) for name in ("problem", "reason", "context")]
    said = " ".join(str(part) for part in parts if part)
    words = next((words for begins, words in _WORDS if begins in said), "it cannot be parsed")
    remedy = next(
        (remedy for part, remedy in _REMEDIES.items() if part in words),
        "Check indentation, quotes and brackets there",
    )
    return place, f"not YAML: {words}", remedy


def broken_texts(document: dict[str, Any]) -> Iterator[ConfigProblem]:
    """Texts that neither Postgres nor UTF-8 can take: with NUL or half a character."""
    if _is_sound(document):
        return  # without a path for each of a million values
    waiting: list[tuple[str, Any]] = [("", document)]
    visited = set()
    while waiting:
        at, value = waiting.pop()
        if isinstance(value, str):
            if _is_broken(value):
                trouble = "it holds a NUL or half a character (a lone surrogate)"
                yield ConfigProblem(at or "(a key)", "(a text)", trouble, "Remove that escape")
        elif isinstance(value, (dict, list)) and id(value) not in visited:
            visited.add(id(value))  # an alias may stand for one value many times
            if isinstance(value, dict):
                waiting += [("", key) for key in value]
                waiting += [(f"{at}.{key}" if at else str(key), v) for key, v in value.items()]
            else:
                waiting += [(f"{at}[{i}]", item) for i, item in enumerate(value)]


def _is_sound(document: dict[str, Any]) -> bool:
    waiting: list[Any] = [document]
    visited = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if _is_broken(value):
                return False
        elif isinstance(value, (dict, list)) and id(value) not in visited:
            visited.add(id(value))
            waiting += value
            if isinstance(value, dict):
                waiting += value.values()
    return True


def _is_broken(text: str) -> bool:
    return "\0" in text or (not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text))
