"""The effective configuration for a person's eyes: everything but secrets.

Invariant: what is printed holds no secret: passwords in DSNs, inline secrets and the values of
static headers are masked, and of a secret its place is shown. Leaves out: where a value came from.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml
from pydantic import BaseModel

from dispatcherd.config.model import Config

RELOADED = ("endpoints", "catalogue", "facts", "log")
"""Sections that a reload takes over."""

_MASK = "***"
# libyaml's where it is there: ten times as fast.
_DUMPER = yaml.CSafeDumper if yaml.__with_libyaml__ else yaml.SafeDumper
# Greedy on purpose: of a DSN that was written wrongly rather too much is masked than too little.
_USERINFO = re.compile(r"(://[^:@]*):.*@", re.DOTALL)
_NAMED = re.compile(r"(?i)(\w*passw(?:or)?d\s*=\s*)('(?:[^'\\]|\\.)*'?|[^\s&]+)")


def effective(config: Config) -> str:
    """YAML of every key as it is in force."""
    document = _mask(config.model_dump(mode="json"))
    return str(yaml.dump(document, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=100))


def mask_dsn(dsn: str) -> str:
    """A DSN without its passwords, as URL or as key=value."""
    return _USERINFO.sub(rf"\1:{_MASK}@", _NAMED.sub(rf"\1{_MASK}", dsn))


def has_password(dsn: str) -> bool:
    """Whether a DSN, one that can be parsed, carries a password."""
    split = urlsplit(dsn)
    names = [name.lower() for name, _ in parse_qsl(split.query)]
    return bool(split.password) or any(name.endswith("password") for name in names)


def _mask(value: Any, key: str = "") -> Any:
    if value is None:
        return None
    if key == "inline":
        return _MASK
    if key in ("dsn", "listen_dsn"):
        return mask_dsn(value)
    if isinstance(value, dict):
        if key == "headers":
            return {k: _mask(v) if isinstance(v, dict) else _MASK for k, v in value.items()}
        return {k: _mask(v, k) for k, v in value.items() if not (k == "inline" and v is None)}
    if isinstance(value, list):
        return [_mask(item) for item in value]
    return value


def changed(old: Config, new: Config) -> list[str]:
    """Keys that differ and need a restart (all but `RELOADED`)."""
    found = []
    for section in Config.model_fields:
        before, after = getattr(old, section), getattr(new, section)
        if section in RELOADED or before == after:
            continue
        if not isinstance(after, BaseModel):
            found.append(section)
            continue
        names = type(after).model_fields
        found += [f"{section}.{k}" for k in names if getattr(before, k) != getattr(after, k)]
    return found
