"""Known vulnerabilities in what constraints.txt pins, by a list on this machine.

    make audit ADVISORIES=/path/to/advisory-database     (a folder, or a zip of files)

The list is one of advisories in the OSV form, as JSON or YAML: a clone of PyPA's advisory-database,
or the export for PyPI of osv.dev. Nothing is asked of any server, so that the answer is the same
wherever it is given. Without a list, or with one too old to know better, it says that it could not
look, which is not the same as having found nothing.

Exit codes: 0 nothing known, 1 something is, 2 wrong usage, 3 could not look.
"""

from __future__ import annotations

import argparse
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

CLEAN, FOUND, COULD_NOT_LOOK = 0, 1, 3
_FORMS = (".json", ".yaml", ".yml")
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)")
_NAMED = re.compile(r"\bname\"?:\s*[\"']?([A-Za-z0-9._-]+)")
_MODIFIED = re.compile(r"\bmodified\"?:\s*[\"']?(\d{4}-\d{2}-\d{2})")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Finding(NamedTuple):
    """An advisory that a pin falls under."""

    name: str
    version: str
    id: str
    summary: str
    fixed: str


def pins(text: str) -> dict[str, str]:
    """Name (canonical) → version, of a file of exact requirements."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    found = (match for line in lines if (match := _PIN.match(line)))
    return {canonicalize_name(match[1]): match[2] for match in found}


class Advisories:
    """A list read through: what it finds, how many it holds, and when it was last added to."""

    def __init__(self, path: Path, pinned: Mapping[str, str]) -> None:
        """Raises OSError, zipfile.BadZipFile or ValueError where it cannot be read."""
        self.count = 0
        self.newest = ""
        self.findings: list[Finding] = []
        for name, text in _texts(path):
            modified = _MODIFIED.findall(text)
            if not modified:
                continue  # no advisory
            self.count += 1
            self.newest = max(self.newest, *modified)
            if any(canonicalize_name(said) in pinned for said in _NAMED.findall(text)):
                self.findings += _findings(_parsed(name, text), pinned)
        self.findings.sort()


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix in _FORMS and file.is_file():
                yield str(file), file.read_text("utf-8")
        return
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(_FORMS):
                yield name, archive.read(name).decode("utf-8")


def _parsed(name: str, text: str) -> dict[str, Any]:
    try:
        parsed = yaml.load(text, Loader=_Loader)  # JSON is YAML
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is neither JSON nor YAML") from error
    if not isinstance(parsed, dict) or "id" not in parsed:
        raise ValueError(f"{name} is no advisory in the OSV form")
    return parsed


def _findings(advisory: dict[str, Any], pinned: Mapping[str, str]) -> Iterator[Finding]:
    if advisory.get("withdrawn"):
        return
    for affected in advisory.get("affected", ()):
        package = affected.get("package", {})
        name = canonicalize_name(str(package.get("name", "")))
        if package.get("ecosystem") != "PyPI" or name not in pinned:
            continue
        version = Version(pinned[name])
        ranges = [r for r in affected.get("ranges", ()) if r.get("type") == "ECOSYSTEM"]
        listed = (_version(listed) for listed in affected.get("versions", ()))
        if version in listed or any(_within(version, r["events"]) for r in ranges):
            fixed = [str(e["fixed"]) for r in ranges for e in r["events"] if "fixed" in e]
            said = advisory.get("summary") or advisory.get("details") or "no description"
            summary = " ".join(str(said).split())[:120]
            yield Finding(
                name, pinned[name], str(advisory["id"]), summary, ", ".join(fixed) or "nowhere yet"
            )


def _within(version: Version, events: list[dict[str, Any]]) -> bool:
    """OSV's rule: the last event at or before the version decides."""
    within = False
    for event in sorted(events, key=lambda e: _version(next(iter(e.values()))) or Version("0")):
        at = _version(next(iter(event.values())))
        if at is None:
            continue
        if "introduced" in event and version >= at:
            within = True
        elif ("fixed" in event and version >= at) or ("last_affected" in event and version > at):
            within = False
    return within


def _version(text: object) -> Version | None:
    try:
        return Version(str(text))
    except InvalidVersion:  # of a time before versions had a form
        return None


def main(arguments: list[str] | None = None, today: datetime | None = None) -> int:
    """Print the answer; the exit code."""
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--advisories", type=Path, help="folder or zip of OSV files")
    parser.add_argument("--pins", type=Path, default=root / "constraints.txt")
    parser.add_argument("--max-age-days", type=int, default=30)
    options = parser.parse_args(arguments)
    pinned = pins(options.pins.read_text())
    if options.advisories is None:
        return _could_not(
            "no list of advisories was given. Clone PyPA's advisory-database, and say "
            "make audit ADVISORIES=/path/to/it"
        )
    try:
        advisories = Advisories(options.advisories, pinned)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        return _could_not(f"the list cannot be read: {error}")
    if not advisories.count:
        return _could_not(f"there is no advisory in {options.advisories}")
    for finding in advisories.findings:
        print(f"{finding.name} {finding.version}: {finding.id}: {finding.summary}")
        print(f"    fixed in: {finding.fixed}")
    of = f"{advisories.count:,} advisories, the newest of {advisories.newest}"
    if advisories.findings:
        print(f"audit: {len(advisories.findings)} known for {len(pinned)} pins, by {of}")
        return FOUND
    newest = datetime.fromisoformat(advisories.newest).replace(tzinfo=UTC)
    age = ((today or datetime.now(UTC)) - newest).days
    if age > options.max_age_days:
        return _could_not(
            f"nothing is known for {len(pinned)} pins by {of}, but that list is {age} days old. "
            "Bring a newer one"
        )
    print(f"audit: nothing known for {len(pinned)} pins, by {of}")
    return CLEAN


def _could_not(why: str) -> int:
    print(f"audit: COULD NOT LOOK: {why}", file=sys.stderr)
    return COULD_NOT_LOOK


if __name__ == "__main__":
    sys.exit(main())
