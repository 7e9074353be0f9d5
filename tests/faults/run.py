"""One scenario from start to verdict: build, strike, settle, gather, check."""

from __future__ import annotations

import random
import shutil
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.check import Isolation, check, isolation, not_isolated
from tests.faults.gathering import gather
from tests.faults.ledger import End, Ledger
from tests.faults.matching import match
from tests.faults.repeats import repeats
from tests.faults.scenarios import Scenario
from tests.faults.stand import Parts, Stand
from tests.faults.story import tell

Say = Callable[[str], None]
_EVERY_SECONDS = 5.0


@dataclass
class Result:
    """What a scenario came to: figures as they were counted, and what did not hold."""

    name: str
    seed: int
    seconds: float = 0.0
    """Of the run with its faults, without building and settling."""
    published: int = 0
    bad: int = 0
    """Of these, records that are no events."""
    unsure: int = 0
    deliveries: int = 0
    """Accepted by receivers, each once."""
    lost: int = 0
    """Not accepted by an endpoint when everything should have arrived."""
    requests: int = 0
    rows: int = 0
    kills: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    """Why → how often a receiver got again what it had accepted."""
    snapshots: int = 0
    memory_bytes: int = 0
    isolation: Isolation | None = None
    figures: dict[str, float] = field(default_factory=dict)
    """What the scenario itself has measured: name with unit → value."""
    violations: list[str] = field(default_factory=list)
    story: str = ""
    """Of the first violation."""
    failure: str = ""
    """The bench itself could not go on."""
    folder: str = ""
    """Where the logs of a run that did not hold are kept."""

    @property
    def held(self) -> bool:
        return not self.violations and not self.failure

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {"held": self.held, **asdict(self)}

    @classmethod
    def of(cls, document: dict[str, Any]) -> Result:
        """From what `document` made."""
        values = {key: value for key, value in document.items() if key != "held"}
        if values["isolation"] is not None:
            values["isolation"] = Isolation(**values["isolation"])
        return cls(**values)


def run(
    scenario: Scenario,
    parts: Parts,
    folder: Path,
    seed: int,
    seconds: float,
    most_ratio: float | None,
    say: Say,
) -> Result:
    """Run it; whatever goes wrong is in the result."""
    result = Result(scenario.name, seed)
    topic = f"{scenario.name}-{seed}-{time.time_ns() % 10**9}"
    stand: Stand | None = None
    try:
        stand = Stand(parts, folder / topic, topic, scenario.setting)
        stand.start()
        began = time.monotonic()
        _strike(scenario, stand, seed, began + seconds, say, result)
        result.seconds = round(time.monotonic() - began, 1)
        say(f"{scenario.name}: no more faults; waiting until everything has arrived")
        stand.settle()
        stand.stop_members()
        stand.sampler.stop()
        _judge(result, stand, scenario, most_ratio)
    except Exception as error:
        result.failure += f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-4)}"
    finally:
        if stand is not None:
            stand.parts.heal()
            stand.close()
            if result.held:
                shutil.rmtree(stand.folder, ignore_errors=True)
            else:
                result.folder = str(stand.folder)
    return result


def _strike(
    scenario: Scenario, stand: Stand, seed: int, end: float, say: Say, result: Result
) -> None:
    over = threading.Event()
    progress = threading.Thread(
        target=_report, args=(scenario, stand, end, over, say), daemon=True, name="progress"
    )
    progress.start()
    try:
        scenario.act(stand, random.Random(seed), end)
    except Exception as error:  # the ledger may say more: it is judged all the same
        limited = traceback.format_exc(limit=-3)
        result.failure += f"the faults ended early: {type(error).__name__}: {error}\n{limited}"
    finally:
        over.set()
        progress.join(30)


def _report(scenario: Scenario, stand: Stand, end: float, over: threading.Event, say: Say) -> None:
    while not over.wait(_EVERY_SECONDS):
        left = max(0.0, end - time.monotonic())
        now = ", ".join(str(fault) for fault in stand.current()) or "nothing"
        try:
            accepted = f"{stand.accepted():,}"
        except OSError:
            accepted = "?"
        say(
            f"{scenario.name}: {left:4.0f} s to go, {len(stand.publisher.published):,} published, "
            f"{accepted} at {stand.bystander}, {len(stand.faults)} faults; now: {now}"
        )


def _judge(result: Result, stand: Stand, scenario: Scenario, most_ratio: float | None) -> None:
    stand.sampler.snapshot()
    ledger = gather(stand)
    matched = match(ledger)
    repeated = repeats(ledger, matched)
    violations = check(ledger, matched, repeated)
    if scenario.compared:
        result.isolation = isolation(ledger, stand.bystander)
    if result.isolation is not None and most_ratio is not None and scenario.judged:
        slow = not_isolated(result.isolation, most_ratio, ledger.ended)
        violations += [slow] if slow is not None else []
    _count(result, ledger)
    result.figures = dict(stand.figures)
    result.repeated = dict(Counter(repeat.cause.value for repeat in repeated))
    result.violations = [f"{v.invariant}: {v.text}" for v in violations]
    if violations:
        result.story = tell(ledger, matched, violations[0])


def _count(result: Result, ledger: Ledger) -> None:
    wanted = {record.id for record in ledger.published if not record.bad}
    accepted = {
        (arrival.endpoint, id_)
        for arrival in ledger.arrivals
        if arrival.accepted
        for id_ in arrival.ids
        if id_ in wanted
    }
    result.published = len(ledger.published)
    result.bad = result.published - len(wanted)
    result.unsure = len(ledger.unsure)
    result.deliveries = len(accepted)
    if ledger.complete:
        result.lost = len(wanted) * len(ledger.endpoints) - len(accepted)
    result.requests = len(ledger.arrivals)
    result.rows = len(ledger.recorded)
    result.kills = sum(life.end is End.KILLED for life in ledger.lives)
    result.faults = dict(Counter(f"{fault.part}: {fault.name}" for fault in ledger.faults))
    result.snapshots = ledger.snapshots
    result.memory_bytes = max((sample.bytes for sample in ledger.memory), default=0)
