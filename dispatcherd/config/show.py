"""The effective configuration for a person's eyes: everything but secrets.

Invariant: what is printed holds no secret: DSN passwords, inline secrets and header values are
masked. Leaves out: where a value came from.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from dispatcherd.config.model import Config

_DSN_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@\s]*@|(?i:\bpassword=)\S+")
_OPEN_HEADERS = {"accept", "accept-language", "x-environment"}


def effective(config: Config) -> str:
    """YAML of every key as it is in force."""
    document = config.model_dump(mode="json")
    for key in ("dsn", "listen_dsn"):
        text = document["postgres"][key]
        if text:
            document["postgres"][key] = _DSN_PASSWORD.sub(_hide, text)
    return str(yaml.safe_dump(_mask(document), sort_keys=False, allow_unicode=True, width=100))


def _hide(match: re.Match[str]) -> str:
    return f"{match[1]}:***@" if match[1] is not None else "password=***"


def _mask(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        if key == "headers":
            return {n: v if n.lower() in _OPEN_HEADERS else "***" for n, v in value.items()}
        return {k: _mask(v, k) for k, v in value.items() if not (k == "inline" and v is None)}
    if isinstance(value, list):
        return [_mask(item) for item in value]
    return "***" if key == "inline" else value


def changed(old: Config, new: Config) -> list[str]:
    """Keys that differ and need a restart (all but `endpoints` and `log.level`)."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    found = []
    for section, value in after.items():
        if section == "endpoints" or value == before[section]:
            continue
        if not isinstance(value, dict):
            found.append(section)
            continue
        names = [k for k, v in value.items() if v != before[section].get(k)]
        found += [f"{section}.{k}" for k in names if (section, k) != ("log", "level")]
    return found
