"""libyaml's events, read at once, against the full loader: the same values, or left to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.config.document import _Loader, parse_yaml
from dispatcherd.config.plain import NotPlain, parse_plain
from dispatcherd.errors import ConfigError

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "tests/config").rglob("*.yaml"), *(ROOT / "dispatcherd").rglob("*.yaml")])

TEXTS = st.text(st.sampled_from("ab01.-+:_~=<# {}[]'\"\n"), max_size=8) | st.text(max_size=6)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def full(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def kinds(value: Any) -> Any:
    """With the type of each value, and keys in order: 1, 1.0 and true are not the same."""
    if isinstance(value, dict):
        return [(kinds(key), kinds(below)) for key, below in value.items()]
    if isinstance(value, list):
        return [kinds(below) for below in value]
    return type(value), repr(value)


def test_each_of_our_files_is_read_the_same() -> None:
    read = 0
    for path in FILES:
        text = path.read_text("utf-8", "replace")
        try:
            found = parse_plain(text)
        except NotPlain:
            continue
        read += 1
        assert kinds(found) == kinds(full(text)), path
    assert read > 200


@given(VALUES, st.sampled_from([None, False, True]), st.sampled_from([None, '"', "'", "|", ">"]))
def test_what_was_dumped_is_read_the_same(value: Any, flow: bool | None, style: str | None) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, default_style=style)
    try:
        found = parse_plain(text)
    except NotPlain:
        return
    assert kinds(found) == kinds(full(text))


@pytest.mark.parametrize(
    "text",
    [
        "a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: [*x, *x]\n",
        "d: &d\n  q: 1\n  r: 1\nx:\n  p: 0\n  <<: *d\n  q: 2\n",
        "a: &a {p: 1, q: 1}\nb: &b {q: 2, r: 2}\nc: {<<: [*a, *b], s: 3}\n",
        "a: &a {p: 1}\nb: &b {<<: *a, q: 2}\nc: {<<: *b}\n",
        "- 0x1F\n- 0o7\n- 1_000\n- 1:30\n- -.inf\n"
        "- 1e3\n- 1.5e+3\n- ~\n- yes\n- Off\n- 2020-01-01\n",
        "a: |\n  x\n  y\nb: >-\n  z\n  w\n",
        "2: a\ntrue: b\n~: c\n",
        "a: 'it''s'\nb: \"x\\ty\\u0041\"\n",
        "%YAML 1.1\n---\na: 1\n...\n",
        "&k key: &v value\nother: *v\n",
        "",
        "# nothing\n",
    ],
)
def test_what_yaml_offers_is_read_the_same(text: str) -> None:
    assert kinds(parse_plain(text)) == kinds(full(text))


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2\n",
        "a: !!str 1\n",
        "a: ! x\n",
        "[a]: 1\n",
        "? {a: 1}\n: 2\n",
        "a: *nowhere\n",
        "a: &x [*x]\n",
        "a: &x 1\nb: &x 2\n",
        "a: {<<: 1}\n",
        "a: [<<]\n",
        "a: =\n",
        "a: [1\n",
        "a: 1\n---\nb: 2\n",
        "a:\n\tb: 1\n",
        "a: 0x\x00\n",
        "[" * 65 + "]" * 65,
        "\ufeffa: 1\n",
    ],
)
def test_a_mistake_or_a_rare_thing_is_left_to_the_loader_with_the_words(text: str) -> None:
    with pytest.raises(NotPlain):
        parse_plain(text)


def test_the_mistake_is_the_loaders_own() -> None:
    with pytest.raises(ConfigError, match=r"it stands twice \(first on line 1\)"):
        parse_yaml("a: 1\nb: 2\na: 3\n")
    with pytest.raises(yaml.YAMLError) as caught:
        parse_yaml("a: 1\nb: [1\n")
    assert caught.value.problem_mark.line == 2  # type: ignore[attr-defined]
