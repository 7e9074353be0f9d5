"""From a YAML file and the environment to a `Config`, or to every mistake at once.

Invariant: a mistake is reported with its key, its value (masked where secret) and a remedy; an
unknown key suggests the near one. Leaves out: rules that span keys (check), secrets (secrets).
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from dispatcherd.config.check import check
from dispatcherd.config.model import Config
from dispatcherd.errors import ConfigError, ConfigProblem

PREFIX = "DISPATCHERD_"
_RESERVED = {"DISPATCHERD_CONFIG"}
_MOST_BYTES = 64 * 1024 * 1024
_SECRET_KEYS = ("inline", "dsn", "listen_dsn", "password", "secret", "secrets", "headers")


def load_config(path: str | None, environ: Mapping[str, str]) -> Config:
    """Read, override, validate. Raises ConfigError with all problems."""
    document = _read(path) if path is not None else {}
    problems = _override(document, environ)
    if problems:
        raise ConfigError(problems)
    return parse_config(document)


def parse_config(document: dict[str, Any]) -> Config:
    """Validate a document; raises ConfigError with all problems."""
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        raise ConfigError([_problem(document, e) for e in error.errors()]) from None
    problems = check(config)
    if problems:
        raise ConfigError(problems)
    return config


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        line = key_node.start_mark.line + 1
        if isinstance(key, typing.Hashable) and key in seen:
            raise ConfigError(
                [
                    ConfigProblem(
                        str(key),
                        f"line {line}",
                        f"it stands twice (first on line {seen[key]})",
                        "Keep one of the two",
                    )
                ]
            )
        seen[key] = line
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _read(path: str) -> dict[str, Any]:
    def refuse(value: str, trouble: str, remedy: str) -> ConfigError:
        return ConfigError([ConfigProblem(path, value, trouble, remedy)])

    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise refuse("(the file)", f"cannot be read: {error.strerror}", "Check the path") from error
    if len(raw) > _MOST_BYTES:
        raise refuse(f"{len(raw)} bytes", "larger than 64 MiB", "Split the endpoints up")
    try:
        document = yaml.load(raw.decode("utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "(the file)"
        trouble = f"not YAML: {getattr(error, 'problem', None) or error}"
        raise refuse(where, trouble, "Check indentation, quotes and brackets there") from error
    except UnicodeDecodeError as error:
        raise refuse(f"byte {error.start}", "not UTF-8", "Save the file as UTF-8") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        trouble = "the top level is not a mapping"
        raise refuse(type(document).__name__, trouble, "Begin with `kafka:`, `postgres:` …")
    return document


def _override(document: dict[str, Any], environ: Mapping[str, str]) -> list[ConfigProblem]:
    """Apply DISPATCHERD_KAFKA__GROUP_ID=… to the document, values read as YAML."""
    problems = []
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in _RESERVED:
            continue
        path = name.removeprefix(PREFIX).lower().split("__")
        model: Any = Config
        for step in path:
            fields = model.model_fields if _is_model(model) else {}
            if step not in fields:
                near = difflib.get_close_matches(step, list(fields), 1, 0.5)
                wanted = PREFIX + "__".join([*path[: path.index(step)], *near]).upper()
                remedy = f"Did you mean {wanted}?" if near else "Unset it"
                problems.append(ConfigProblem(name, _masked(path, text), "no such setting", remedy))
                break
            model = _model_of(fields[step].annotation)
        else:
            _assign(document, path, text)
    return problems


def _assign(document: dict[str, Any], path: list[str], text: str) -> None:
    for step in path[:-1]:
        below = document.get(step)
        if not isinstance(below, dict):
            below = document[step] = {}
        document = below
    try:
        document[path[-1]] = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ConfigError):
        document[path[-1]] = text


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _model_of(annotation: Any) -> Any:
    """The model inside `X | None`, `list[X]` and the like; None where there is none."""
    if _is_model(annotation):
        return annotation
    for argument in typing.get_args(annotation):
        found = _model_of(argument)
        if found is not None:
            return found
    return None


def _problem(document: Any, error: Any) -> ConfigProblem:
    location: tuple[Any, ...] = error["loc"]
    key = _key(document, location)
    value = document
    model: Any = Config
    for step in location[:-1]:
        if isinstance(step, str) and _is_model(model) and step in model.model_fields:
            model = _model_of(model.model_fields[step].annotation)
    for step in location:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            value = "(missing)" if error["type"] == "missing" else value
            break
    shown = _masked(location, value)
    if error["type"] == "extra_forbidden":
        known = list(model.model_fields) if _is_model(model) else []
        near = difflib.get_close_matches(str(location[-1]), known, 1, 0.5)
        remedy = f"Did you mean `{near[0]}`?" if near else f"Known keys: {', '.join(sorted(known))}"
        return ConfigProblem(key, shown, "unknown key", remedy)
    if error["type"] == "missing":
        return ConfigProblem(key, "(missing)", "it must be given", f"Add `{location[-1]}:`")
    return ConfigProblem(key, shown, _trouble(error), _remedy(error, value))


def _key(document: Any, location: tuple[Any, ...]) -> str:
    """`endpoints[2] (billing).retry.jitter`"""
    text, value = "", document
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.isidentifier() or "." in step or "-" in step:
            text += f".{step}" if text else str(step)
        else:
            continue
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            value = None
        if isinstance(step, int) and isinstance(value, dict) and isinstance(value.get("id"), str):
            text += f" ({value['id'][:64]})"
    return text or "(top level)"


def _masked(location: typing.Iterable[Any], value: Any) -> str:
    if any(step in _SECRET_KEYS for step in location) and not isinstance(value, (dict, list)):
        return "***"
    if isinstance(value, (dict, list)) and any(step in _SECRET_KEYS for step in location):
        return f"({type(value).__name__})"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _trouble(error: Any) -> str:
    text = str(error["msg"]).removeprefix("Value error, ")
    return text[0].lower() + text[1:]


def _remedy(error: Any, value: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    bounds = {
        "greater_than": "Write a number above {gt}",
        "greater_than_equal": "Write {ge} or more",
        "less_than_equal": "Write {le} or less",
        "literal_error": "Write one of {expected}",
        "string_pattern_mismatch": "It must match {pattern}",
    }
    if kind in bounds:
        return bounds[kind].format(**context)
    if isinstance(value, str) and kind in ("int_type", "float_type", "bool_type"):
        return f"Write it without quotes: {value}"
    wanted = {
        "int_type": "Write a whole number",
        "float_type": "Write a number",
        "bool_type": "Write true or false",
        "string_type": "Write a text, in quotes if it looks like a number",
        "list_type": "Write a list: [a, b] or lines that begin with `- `",
        "dict_type": "Write a mapping: lines of `key: value`",
        "model_type": "Write a mapping: lines of `key: value`",
    }
    return wanted.get(kind, "See the commented config.yaml for what is allowed here")
