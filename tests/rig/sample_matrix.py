"""examples/MATRIX.md: which sample passes which check, as a table that a test run writes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from tests.rig.sample_checks import CHECKS
from tests.rig.samples import ROOT, Sample

PATH = ROOT / "examples" / "MATRIX.md"
FROM_THE_DAEMON = {"events": "single events from the daemon", "batches": "batches from the daemon"}
SLOW_BODY = "slow body"
_RAN_ON = "ran on"
_HEAD = """\
# What the sample receivers were seen to do

Written by `make matrix`, from a run of
[test_sample_receivers.py](../tests/acceptance/test_sample_receivers.py): each sample built and
started by the commands of its README, sent to by the daemon from a real Kafka, and sent forged
requests.

"""


def rows() -> dict[str, str]:
    """Check → what it means."""
    found = {
        FROM_THE_DAEMON["events"]: "Each is accepted in its first attempt and handled once.",
        FROM_THE_DAEMON["batches"]: "The same, signed with two secrets of which it knows one.",
    }
    for name, check in CHECKS.items():
        assert check.__doc__ is not None
        found[name] = check.__doc__
    found[SLOW_BODY] = "A request whose body does not come is given up, and holds up no other."
    return found


def cell(sample: Sample, check: str, passed: Collection[tuple[str, str]]) -> str:
    """What stands in the table."""
    if check in sample.lacks:
        return "no"
    return "✓" if (sample.folder, check) in passed else "✗"


def render(samples: Iterable[Sample], passed: Collection[tuple[str, str]]) -> str:
    """The document."""
    samples = [sample for sample in samples if sample.missing() is None]
    lines = [
        ["check", *(f"[{s.language}](receivers/{s.folder}/README.md)" for s in samples), "meaning"],
        ["---"] + [":-:"] * len(samples) + ["---"],
        [_RAN_ON, *(sample.toolchain() for sample in samples), ""],
    ]
    for check, meaning in rows().items():
        lines.append([check, *(cell(sample, check, passed) for sample in samples), meaning])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    reasons = [
        f"- {s.language}, {check}: {why}." for s in samples for check, why in s.lacks.items()
    ]
    return f"{_HEAD}{table}\n\nWhere it says no:\n\n" + "\n".join(reasons) + "\n"


def committed() -> Mapping[str, Mapping[str, str]]:
    """Check → folder → cell, as the file has it; the versions are under `ran on`."""
    lines = [line for line in PATH.read_text().splitlines() if line.startswith("|")]
    head, _, *body = [[part.strip() for part in line.strip("|").split(" | ")] for line in lines]
    folders = [re.findall(r"receivers/(\w+)/", title)[0] for title in head[1:-1]]
    return {row[0]: dict(zip(folders, row[1:-1], strict=True)) for row in body}


def expected(samples: Iterable[Sample]) -> Mapping[str, Mapping[str, str]]:
    """What the file must have, without the versions: a sample passes what it does not lack."""
    samples = list(samples)
    passed = {(sample.folder, check) for sample in samples for check in rows()}
    return {check: {s.folder: cell(s, check, passed) for s in samples} for check in rows()}
