"""requirements.lock: exactly what constraints.txt pins, with hashes, whole, and naming no index."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from supply.audit import pins

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
BUILDS = {"setuptools"}
REMEDY = "run: make lock"


def test_the_lock_holds_the_versions_that_are_tested() -> None:
    pinned = pins(CONSTRAINTS)
    for name, version in pins(LOCK).items():
        assert pinned.get(name) == version, f"{name}: {REMEDY}"


def test_everything_in_the_lock_has_a_hash_and_nothing_else_stands_there() -> None:
    entry = re.compile(
        r"[A-Za-z0-9._-]+==\S+(?: ; [^\\\n]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+"
    )
    text = "\n".join(line for line in LOCK.splitlines() if not line.startswith("#"))
    assert entry.sub("", text).strip() == ""
    assert len(entry.findall(text)) == len(pins(LOCK)) > 20


def test_neither_file_names_a_host() -> None:
    for text in (LOCK, CONSTRAINTS):
        assert not re.search(r"://|--(extra-)?index|--find-links|-i ", text)


def test_the_lock_is_whole_so_that_it_installs_without_asking_for_more() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = list(project["dependencies"])
    locked, seen = pins(LOCK), set(BUILDS)
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        assert name in locked, f"{name}: {REMEDY}"
        assert requirement.specifier.contains(locked[name]), f"{requirement}: {REMEDY}"
        if name not in seen:
            seen.add(name)
            waiting += metadata.requires(name) or []
    assert seen >= {"aiohttp", "aiokafka", "asyncpg", "cryptography", "pydantic-core"}
