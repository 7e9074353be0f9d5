"""Plain YAML, read event by event by libyaml: fast, and without a tree of nodes.

A file with a hundred thousand endpoints is two million nodes for PyYAML's own loaders, a gigabyte
of them. Here each event of the parser becomes its value at once.

Invariant: what comes out is what the loader of `document` makes of the same text, if it takes it:
libyaml is laxer with a `?` within brackets and a `#` right behind a `|`. Whatever is not plain
raises `NotPlain`, and that loader is asked: a tab, a tag, a key that is no single value, and any
mistake, for which it has the words. Leaves out: files and mistakes (document).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

import yaml

_DEEPEST = 64
_AWAITED: Final = object()
_MERGED: Final = object()
_NUMBERS_AND_WORDS = {
    f"tag:yaml.org,2002:{kind}": getattr(yaml.SafeLoader, f"construct_yaml_{kind}")
    for kind in ("bool", "int", "float", "null")
}
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"

RESOLVERS = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
"""First character → what a text without quotes may be. A date is a text: nothing here is a date."""


class NotPlain(Exception):
    """There is something in it that the full loader has to look at, maybe a mistake."""


def parse_plain(text: str) -> Any:
    """The value of a text. Raises NotPlain."""
    # The two differ in where they let a tab or a byte order mark pass.
    if "\t" in text or "\ufeff" in text or not yaml.__with_libyaml__:
        raise NotPlain
    loader = yaml.CSafeLoader(text)
    try:
        return _Reading().document(iter(loader.get_event, None))
    except (yaml.YAMLError, ValueError) as error:
        raise NotPlain from error
    finally:
        loader.dispose()


class _Open:
    """A mapping or list whose end has not come: where it belongs, and under which key."""

    __slots__ = ("anchor", "key", "merged", "within")

    def __init__(self, within: Any, key: Any, merged: dict[Any, Any] | None, anchor: Any) -> None:
        self.within = within
        self.key = key
        self.merged = merged
        self.anchor = anchor


class _Reading:
    """One document, as far as it has been read."""

    def __init__(self) -> None:
        self._within: Any = []
        """The mapping or list that is being filled; at the top a list of the documents."""
        self._key: Any = _AWAITED
        """Of a mapping: the key whose value comes next."""
        self._merged: dict[Any, Any] | None = None
        """What `<<` has brought into the mapping."""
        self._open: list[_Open] = []
        self._anchors: dict[str, Any] = {}
        self._resolved: dict[str, Any] = {}
        self._constructor = yaml.SafeLoader("")

    def document(self, events: Iterator[Any]) -> Any:
        """The one document; None where there is none."""
        top = self._within
        for event in events:
            kind = type(event)
            if kind is yaml.ScalarEvent:
                if event.tag is not None:
                    raise NotPlain
                value = event.value
                if event.implicit[0]:
                    value = self._plain(value)
                self._add(value, event.anchor)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                self._begin({} if kind is yaml.MappingStartEvent else [], event)
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                self._end()
            elif kind is yaml.AliasEvent:
                if event.anchor not in self._anchors:
                    raise NotPlain
                self._add(self._anchors[event.anchor], None)
            elif kind is yaml.DocumentStartEvent and top:
                raise NotPlain
        return top[0] if top else None

    def _begin(self, made: dict[Any, Any] | list[Any], event: Any) -> None:
        a_key = self._key is _AWAITED and type(self._within) is dict
        if event.tag is not None or a_key or len(self._open) >= _DEEPEST:
            raise NotPlain
        self._open.append(_Open(self._within, self._key, self._merged, event.anchor))
        self._within, self._key, self._merged = made, _AWAITED, None

    def _end(self) -> None:
        made = self._within if self._merged is None else {**self._merged, **self._within}
        opened = self._open.pop()
        self._within, self._key, self._merged = opened.within, opened.key, opened.merged
        self._add(made, opened.anchor)

    def _add(self, value: Any, anchor: str | None) -> None:
        if anchor is not None:
            if anchor in self._anchors or value is _MERGED:
                raise NotPlain
            self._anchors[anchor] = value
        within = self._within
        if type(within) is list:
            if value is _MERGED:
                raise NotPlain
            within.append(value)
        elif self._key is _AWAITED:
            if type(value) is str:
                value = sys.intern(value)  # the same few in every endpoint
            elif isinstance(value, (dict, list)):
                raise NotPlain
            if value in within:
                raise NotPlain
            self._key = value
        elif self._key is _MERGED:
            self._merge(value)
            self._key = _AWAITED
        else:
            if value is _MERGED:
                raise NotPlain
            within[self._key] = value
            self._key = _AWAITED

    def _merge(self, value: Any) -> None:
        """`<<: *defaults`, or a list of mappings, of which the first wins."""
        found = self._merged = {} if self._merged is None else self._merged
        for mapping in reversed(value) if type(value) is list else [value]:
            if type(mapping) is not dict:
                raise NotPlain
            found.update(mapping)

    def _plain(self, text: str) -> Any:
        """What a text without quotes is: a number, true, nothing, … or a text."""
        candidates = RESOLVERS.get(text[:1])
        if candidates is None:
            return text
        if text in self._resolved:
            return self._resolved[text]
        for tag, pattern in candidates:
            if not pattern.match(text):
                continue
            if tag == _MERGE:
                return _MERGED
            construct = _NUMBERS_AND_WORDS.get(tag)
            if construct is None:
                raise NotPlain
            value = construct(self._constructor, yaml.ScalarNode(tag, text))
            self._resolved[text] = value
            return value
        return text
