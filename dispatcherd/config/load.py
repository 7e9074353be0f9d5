"""From a YAML file and the environment to a `Config`, or to every mistake at once.

Invariant: a mistake is reported with its key, its value (never a secret) and a remedy. Leaves out:
reading YAML (document), the words of a mistake (explain), rules between keys (check), reading
secrets (secrets).
"""

from __future__ import annotations

import hashlib
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from dispatcherd.config.check import check
from dispatcherd.config.document import broken_texts, parse_document, parse_yaml, read_file
from dispatcherd.config.explain import explain, model_below, suggestion
from dispatcherd.config.model import Config
from dispatcherd.errors import ConfigError, ConfigProblem

PREFIX = "DISPATCHERD_"
_RESERVED = {"DISPATCHERD_CONFIG"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and what it was made from."""

    config: Config
    digest: bytes
    """Of the file and of our variables."""


def load_config(path: str | None, environ: Mapping[str, str]) -> Config:
    """Read, override, validate. Raises ConfigError with all problems."""
    return load_again(path, environ, None).config


def load_again(path: str | None, environ: Mapping[str, str], before: Loaded | None) -> Loaded:
    """The same; it is `before` itself where neither file nor variables have changed since."""
    raw = read_file(path) if path is not None else b""
    mine = sorted((k, v) for k, v in environ.items() if k.startswith(PREFIX))
    digest = hashlib.sha256(repr(mine).encode() + b"\0" + raw).digest()
    if before is not None and before.digest == digest:
        return before
    document = parse_document(path, raw) if path is not None else {}
    del raw  # as large as the document
    return Loaded(_made(document, environ), digest)


def _made(document: dict[str, Any], environ: Mapping[str, str]) -> Config:
    overridden, problems = _override(document, environ)
    try:
        config = parse_config(document, overridden)
    except ConfigError as error:
        for problem in error.problems:
            variable = next((v for k, v in overridden.items() if _within(problem.key, k)), None)
            if variable is not None:
                problem.key += f" (from {variable})"
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    return config


def parse_config(document: dict[str, Any], from_environment: Collection[str] = ()) -> Config:
    """Validate a document; raises ConfigError with all problems.

    `from_environment`: the keys that the environment set (`kafka.group_id`); a secret may stand
    in those.
    """
    problems = list(broken_texts(document))
    if problems:
        raise ConfigError(problems)
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        raise ConfigError(explain(document, error.errors())) from None
    problems = check(config, from_environment)
    if problems:
        raise ConfigError(problems)
    return config


def _within(key: str, of: str) -> bool:
    return key == of or key.startswith((f"{of}.", f"{of}["))


def _override(
    document: dict[str, Any], environ: Mapping[str, str]
) -> tuple[dict[str, str], list[ConfigProblem]]:
    """Apply DISPATCHERD_KAFKA__GROUP_ID=… to the document. Key → variable of those applied."""
    applied: dict[str, str] = {}
    problems = []
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable in _RESERVED:
            continue
        path = variable.removeprefix(PREFIX).lower().split("__")
        field = _field(variable, path)
        if isinstance(field, ConfigProblem):
            problems.append(field)
        elif _assign(document, path, _value(field, text)):
            applied[".".join(path)] = variable
    return applied, problems


def _field(variable: str, path: list[str]) -> FieldInfo | ConfigProblem:
    """The model's field that a variable names. Its value is never shown: it may be a secret whose
    name happens to begin like ours."""
    fields = Config.model_fields
    found: FieldInfo | None = None
    for depth, step in enumerate(path):
        if found is not None and typing.get_origin(found.annotation) is list:
            whole = PREFIX + "__".join(path[:depth]).upper()
            remedy = f"Set all of it as YAML: {whole}='[…]'"
            return ConfigProblem(variable, "***", "it points into a list", remedy)
        found = fields.get(step)
        if found is None:
            near = suggestion(step, list(fields))
            meant = PREFIX + "__".join([*path[:depth], near or ""]).upper()
            remedy = f"Did you mean {meant}?" if near else "Unset it"
            remedy += f" (a secret's own variable must not begin with {PREFIX})"
            return ConfigProblem(variable, "***", "no such setting", remedy)
        below = model_below(found.annotation)
        fields = below.model_fields if below is not None else {}
    assert found is not None
    return found


def _value(field: FieldInfo, text: str) -> Any:
    """A text key takes the text as it stands (nothing: unset, where that is possible); any other
    key takes the value that the text is in YAML."""
    kinds = _members(field.annotation)
    if kinds & {str, SecretStr}:
        return None if not text and types.NoneType in kinds else text
    try:
        return parse_yaml(text)
    except (yaml.YAMLError, ConfigError, ValueError, LookupError, TypeError, RecursionError):
        return text  # no list, number or mapping: the validation says so


def _members(annotation: Any) -> set[Any]:
    """The types of a union, without their constraints."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return {kind for member in typing.get_args(annotation) for kind in _members(member)}
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    return {annotation}


def _assign(document: dict[str, Any], path: list[str], value: Any) -> bool:
    """False where something else stands in the place of a section: the validation says so."""
    for step in path[:-1]:
        below = document.get(step)
        if below is None:
            below = document[step] = {}
        if not isinstance(below, dict):
            return False
        document = below
    document[path[-1]] = value
    return True
