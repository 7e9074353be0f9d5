"""A validation error of pydantic in words: which key, which value, what to write instead.

Invariant: one problem per key, and no value that may be a secret: where a key is secret or unknown,
or a text stands where a section belongs, only its kind is shown. Leaves out: rules between keys
(check).
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from dispatcherd.config.model import Config
from dispatcherd.errors import ConfigProblem

_SECRET_KEYS = {
    "inline",
    "dsn",
    "listen_dsn",
    "password",
    "secret",
    "secrets",
    "headers",
}
_USERINFO = re.compile(r"(://)[^/\s]*@")
_MOST_SHOWN = 80

_SAYS = {
    # pydantic's error type → (trouble, remedy); braces are filled from the error's context
    "greater_than": ("it is not above {gt}", "Write a number above {gt}"),
    "greater_than_equal": ("it is below {ge}", "Write {ge} or more"),
    "less_than": ("it is too large", "Write less than {lt}"),
    "less_than_equal": ("it is above {le}", "Write {le} or less"),
    "finite_number": ("not a finite number", "Write a number"),
    "literal_error": ("not one of the words for this", "Write one of {expected}"),
    "string_too_short": ("it is empty", "Write a text, or remove the line"),
    "string_too_long": ("longer than {max_length} characters", "Write a shorter one"),
    "too_short": ("it is empty", "Write at least {min_length}"),
    "too_long": ("it has more than {max_length} items", "Write fewer"),
    "int_type": ("not a whole number", "Write a whole number"),
    "int_from_float": ("not a whole number", "Write a whole number"),
    "float_type": ("not a number", "Write a number"),
    "bool_type": ("not true or false", "Write true or false"),
    "string_type": ("not a text", "Write a text, in quotes if it looks like something else"),
    "list_type": ("not a list", "Write a list: [a, b], or lines that begin with `- `"),
    "dict_type": ("not a mapping", "Write lines of `key: value` below it"),
    "model_type": ("not a mapping", "Write lines of `key: value` below it"),
    "invalid_key": ("the key is not a text", "Put the key in quotes, or remove the line"),
}
_EITHER = ("not a single value", "Write a text, a number, true or false")
_PATTERNS = {
    # model's pattern → what it asks for
    r"^/.+": "Write an absolute path: a service has no directory of its own",
    r"^[A-Za-z0-9._-]{1,249}$": "A topic's name has 1 to 249 letters, digits, . _ -; "
    "a pattern belongs into kafka.topic_patterns",
    r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$": "Write 1 to 64 letters, digits, _ . -, "
    "the first a letter or a digit",
    r"^[a-z_][a-z0-9_]{0,62}$": "Write 1 to 63 small letters, digits and _, no digit first",
    r"^[A-Za-z_][A-Za-z0-9_]{0,255}$": "Write the name of an environment variable",
    r"^[A-Za-z0-9_.-]{1,255}$": "Write the name that LoadCredential= gives it, without a slash",
    r"^[A-Za-z0-9_.-]{1,32}$": "Write 1 to 32 letters, digits, _ . -",
    r"^http://[^/?#@\s]+/?$": "Write http://host:port; name and password are keys of their own",
    r"^[!-~]([ -~]{0,254}[!-~])?$": "Write one line of printable ASCII",
}


def explain(document: Any, errors: Sequence[ErrorDetails]) -> list[ConfigProblem]:
    """One problem for each key that pydantic complains of."""
    by_path: dict[tuple[Any, ...], list[tuple[ErrorDetails, Any]]] = {}
    for error in errors:
        path, value = _found(document, error)
        by_path.setdefault(path, []).append((error, value))
    return [
        _problem(document, path, *found[0], several=len(found) > 1)
        for path, found in by_path.items()
    ]


def model_below(annotation: Any) -> type[BaseModel] | None:
    """The section inside `X | None`, `list[X]` and the like; None where there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        found = model_below(argument)
        if found is not None:
            return found
    return None


def suggestion(wrong: str, known: Sequence[str]) -> str | None:
    """The known key that is meant, if one is near."""
    near = difflib.get_close_matches(wrong.lower().replace("-", "_"), known, 1, 0.6)
    return near[0] if near else None


def _found(document: Any, error: ErrorDetails) -> tuple[tuple[Any, ...], Any]:
    """The path of what the error is about, and what stands there. What pydantic adds for itself
    (the member of a union, `[key]`) leads nowhere in the document and is left out."""
    value, path = document, []
    for step in error["loc"]:
        try:
            value = value[step]
        except (LookupError, TypeError):
            if error["type"] == "missing" and step == error["loc"][-1]:
                path.append(step)
            continue
        path.append(step)
    return tuple(path), value


def _problem(
    document: Any, path: tuple[Any, ...], error: ErrorDetails, value: Any, several: bool
) -> ConfigProblem:
    key, kind = _key(document, path), error["type"]
    if kind == "missing":
        return ConfigProblem(key, "(missing)", "it must be given", f"Add `{path[-1]}:`")
    if kind == "extra_forbidden":
        return ConfigProblem(key, _kind(value), "unknown key", _known(path))
    if kind == "invalid_key" or error["loc"][-1] == "[key]":
        return ConfigProblem(key, _kind(value), *_SAYS["invalid_key"])
    trouble, remedy = _says(error, several, value)
    opaque = _holds_sections(path) or any(step in _SECRET_KEYS for step in path)
    return ConfigProblem(key, _kind(value) if opaque else _shown(value), trouble, remedy)


def _says(error: ErrorDetails, several: bool, value: Any) -> tuple[str, str]:
    kind, context = error["type"], error.get("ctx", {})
    if several:
        return _EITHER
    if kind == "string_pattern_mismatch":
        remedy = _PATTERNS.get(context["pattern"], f"It must match {context['pattern']}")
        return "not in the form that is needed", remedy
    if kind == "model_type" and context["class_name"] == "SecretSource":
        return "not the place where a secret is kept", "Write {file: /path} or {env: NAME} for it"
    trouble, remedy = _SAYS.get(kind, (error["msg"].lower(), "See the commented config.yaml"))
    if isinstance(value, str) and kind in ("int_type", "float_type", "bool_type"):
        remedy += ", without quotes"
    if kind.startswith(("greater", "less")):
        context = {k: f"{v:g}" if isinstance(v, float) else v for k, v in context.items()}
    return trouble.format(**context), remedy.format(**context)


def _key(document: Any, path: tuple[Any, ...]) -> str:
    """`endpoints[2] (billing).retry.jitter`"""
    text, value = "", document
    for step in path:
        if isinstance(step, int) and isinstance(value, list):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else str(step)
        try:
            value = value[step]
        except (LookupError, TypeError):
            value = None
        if isinstance(step, int) and isinstance(value, dict) and isinstance(value.get("id"), str):
            text += f" ({value['id'][:64]})"
    return text or "(top level)"


def _kind(value: Any) -> str:
    """What sort of thing stands there, and nothing of it."""
    if value is None:
        return "(nothing)"
    for kind, name in ((str, "text"), (bool, "true or false"), (dict, "mapping"), (list, "list")):
        if isinstance(value, kind):
            return f"({'a ' if name != 'true or false' else ''}{name})"
    return "(a number)" if isinstance(value, (int, float)) else "(something else)"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, (str, int, float)):
        return _kind(value)
    text = repr(_USERINFO.sub(r"\1***@", value) if isinstance(value, str) else value)
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


def _section(path: tuple[Any, ...]) -> dict[str, FieldInfo]:
    """The keys that may stand where a path leads."""
    model: type[BaseModel] | None = Config
    for step in path:
        if model is not None and isinstance(step, str) and step in model.model_fields:
            model = model_below(model.model_fields[step].annotation)
    return model.model_fields if model is not None else {}


def _holds_sections(path: tuple[Any, ...]) -> bool:
    """Whether a section, or a list of them, belongs there: a text in its place may be anything."""
    return bool(_section(path))


def _known(path: tuple[Any, ...]) -> str:
    """What may have been meant by the unknown key at the end of a path."""
    fields = _section(path[:-1])
    wrong = str(path[-1])
    near = suggestion(wrong, list(fields))
    if near is not None:
        return f"Did you mean `{near}`?"
    elsewhere = [name for name in _names(Config, "") if name.rpartition(".")[2] == wrong]
    if elsewhere:
        return f"Did you mean `{elsewhere[0]}`?"
    return f"Known keys here: {', '.join(sorted(fields))}"


def _names(model: type[BaseModel], at: str) -> Iterator[str]:
    """Every key below a section, with its path; lists as `endpoints[]`."""
    for name, field in model.model_fields.items():
        yield at + name
        below = model_below(field.annotation)
        if below is not None:
            many = "[]" if typing.get_origin(field.annotation) is list else ""
            yield from _names(below, f"{at}{name}{many}.")
