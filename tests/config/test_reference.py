"""config.yaml, the commented reference: valid, complete, and true to the model's defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dispatcherd.cli.main import cli
from dispatcherd.config.explain import model_below
from dispatcherd.config.load import load_config
from dispatcherd.config.model import Config

REFERENCE = Path(__file__).parents[2] / "config.yaml"
TEXT = REFERENCE.read_text("utf-8")
LIVE = {"kafka.bootstrap_servers", "kafka.topics", "postgres.dsn", "endpoints", "facts.keys"}
"""What a person changes: these need not stand at their defaults."""


def uncommented() -> dict[str, Any]:
    """The reference with every `#key: value` made live."""
    found: dict[str, Any] = yaml.safe_load(_uncommented_text())
    return found


def _uncommented_text() -> str:
    return re.sub(r"(?m)^( *)#(?=[-a-z])", r"\1", TEXT)


def written(model: type[BaseModel], document: dict[str, Any], at: str = "") -> Iterator[Any]:
    """(model, key, path, value) of each key in the document, depth first."""
    for key, value in document.items():
        path = f"{at}.{key}" if at else key
        yield model, key, path, value
        field = model.model_fields.get(key)
        below = model_below(field.annotation) if field is not None else None
        for part in value if isinstance(value, list) else [value]:
            if below is not None and isinstance(part, dict):
                yield from written(below, part, path)


def of_the_model(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """(section, key) of each key that there is."""
    for name, field in model.model_fields.items():
        yield model.__name__, name
        below = model_below(field.annotation)
        if below is not None:
            yield from of_the_model(below)


def test_the_reference_is_valid_as_it_stands() -> None:
    result = CliRunner().invoke(cli, ["check-config", "--no-secrets", "--config", str(REFERENCE)])
    assert result.exit_code == 0, result.output
    assert "ok: 1 endpoint" in result.stderr


def test_the_reference_as_it_stands_lacks_its_secret_and_nothing_else() -> None:
    secret = Path("/etc/dispatcherd/secrets/billing")
    if secret.exists():
        pytest.skip(f"{secret} exists on this machine")
    result = CliRunner().invoke(cli, ["check-config", "--config", str(REFERENCE)])
    assert result.exit_code == 2
    assert result.stderr == (
        "config: endpoints[0] (billing).secret = {file: /etc/dispatcherd/secrets/billing}: cannot "
        "read it: No such file or directory. Create the file, readable by the service\n"
    )


def test_the_reference_changes_no_default_but_those_to_be_filled_in() -> None:
    mine = load_config(str(REFERENCE), {}).model_dump()
    defaults = Config().model_dump()
    for section, values in defaults.items():
        if section == "endpoints":
            continue
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            if f"{section}.{key}" not in LIVE:
                assert (mine[section][key] if key else mine[section]) == value, (section, key)


def test_every_key_of_the_model_stands_in_the_reference_and_no_other() -> None:
    found = {(model.__name__, key) for model, key, _, _ in written(Config, uncommented())}
    assert found == set(of_the_model(Config))


def test_every_default_in_the_reference_is_the_models() -> None:
    checked = 0
    for model, key, path, value in written(Config, uncommented()):
        field = model.model_fields[key]
        default = field.get_default(call_default_factory=True)
        if path in LIVE or default is None or default is PydanticUndefined:
            continue  # an example stands there
        if model.__name__ == "FilterConfig":
            continue  # an example of a section that has no default
        if isinstance(default, BaseModel):
            continue  # its keys are looked at one by one
        assert value == default, path
        assert type(value) is type(default) or isinstance(default, float), path
        checked += 1
    assert checked > 60


def test_every_example_in_the_reference_is_of_the_right_form() -> None:
    Config.model_validate(uncommented())


def comments() -> Iterator[tuple[str, str]]:
    """(path, comment) of each key: the lines of text above it, or above the keys just before it
    in the same section."""
    lines = TEXT.splitlines()
    for path, node in _nodes(yaml.compose(_uncommented_text()), ""):
        row, column = node.start_mark.line, node.start_mark.column
        while row > 0 and re.match(rf" {{{column}}}#?[a-z]| {{{column - 2}}}#?- ", lines[row]):
            row -= 1
        block = []
        while row >= 0 and re.match(r" *# ", lines[row]):
            block.insert(0, lines[row].strip(" #"))
            row -= 1
        yield path, " ".join(block)


def _nodes(node: yaml.Node, at: str) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = f"{at}.{key.value}" if at else key.value
            yield path, key
            yield from _nodes(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for part in node.value:
            yield from _nodes(part, at)


def test_every_key_has_a_comment() -> None:
    told_together = ("endpoints.filter.", "endpoints.batch.", "password.file", "client_key.file")
    for path, comment in comments():
        if path not in Config.model_fields and not any(part in path for part in told_together):
            assert len(comment) > 10, path


def test_a_key_without_a_default_is_said_to_have_none() -> None:
    said = dict(comments())
    count = 0
    for model, key, path, _ in written(Config, uncommented()):
        default = model.model_fields[key].get_default(call_default_factory=True)
        if default is not None and default is not PydanticUndefined:
            continue
        if model.__name__ not in ("SecretSource", "FilterCondition"):  # said once for all of them
            assert "o default" in said[path], path
            count += 1
    assert count >= 10


def test_the_reference_is_in_the_order_of_the_model() -> None:
    document = uncommented()
    assert list(document) == list(Config.model_fields)
    for section, values in document.items():
        below = model_below(Config.model_fields[section].annotation)
        if below is not None and isinstance(values, dict):
            assert list(values) == list(below.model_fields), section
