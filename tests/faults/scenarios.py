"""What can be run by name: each fault by itself, and the soak that mixes them all.

A scenario strikes until its time is up; after each stroke of a single fault, work has to go on
within a minute. Which row of HOSTILE.md it stands for, and what it strikes with, the table says.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults import stories, tools
from tests.faults.stand import Setting, Stand
from tests.faults.tools import Tool

Act = Callable[[Stand, random.Random, float], None]
"""Given the stand, the draws, and the monotonic time at which to end."""

_PAUSE_SECONDS = 1.5


@dataclass(frozen=True)
class Scenario:
    """One name of `--list`."""

    name: str
    rows: str
    """Of HOSTILE.md."""
    promises: str
    """The invariants that its rows name; all are checked in every scenario."""
    says: str
    act: Act
    seconds: float = 20.0
    setting: Setting = field(default_factory=Setting)
    judged: bool = False
    """The ratio of isolation counts here."""
    compared: bool = True
    """The load is the same under faults and in quiet times, so that there is such a ratio."""


def _going_on(stand: Stand, end: float) -> bool:
    return time.monotonic() < end and not stand.broken


def singly(*struck: Tool) -> Act:
    """These, in turn, until the time is up; work goes on after each."""

    def act(stand: Stand, chance: random.Random, end: float) -> None:
        number = 0
        while _going_on(stand, end):
            time.sleep(chance.uniform(0.0, _PAUSE_SECONDS))
            struck[number % len(struck)](stand, chance)
            stand.wait_work()
            number += 1

    return act


def times(struck: Tool, count: int) -> Act:
    """So many times (fewer where the time is up), at random moments, each once work has gone on
    after the last."""

    def act(stand: Stand, chance: random.Random, end: float) -> None:
        for _ in range(count):
            if not _going_on(stand, end):
                return
            stand.wait_work()
            time.sleep(chance.random())
            struck(stand, chance)

    return act


def _one_hangs(stand: Stand, chance: random.Random, end: float) -> None:
    while _going_on(stand, end):
        time.sleep(5.0)
        tools.mood(stand, "moody", "hangs", {"do": "hang"}, 5.0)


def _all_fail_then_recover(stand: Stand, chance: random.Random, end: float) -> None:
    seconds = max(1.0, end - time.monotonic() - 5.0)
    tools.mood(stand, "moody", "answers 503", {"do": "status", "status": 503}, seconds)


SLOTS: dict[str, Sequence[Tool]] = {
    "members": (
        tools.kill, tools.kill, tools.kill_all, tools.stop, tools.freeze, tools.freeze_briefly,
        tools.newcomer, tools.newcomer_killed, tools.frozen_as_it_joins, tools.forget_group,
    ),
    "kafka": (
        tools.broker_restarted, tools.broker_killed, tools.broker_frozen, tools.broker_dark,
        tools.partitions_added,
    ),
    "postgres": (
        tools.postgres_restarted, tools.postgres_frozen, tools.postgres_dark, tools.commit_lost,
        tools.commit_lost,
    ),
    "receivers": (tools.moods, tools.moods, tools.bad_records),
}  # fmt: skip
"""What the soak draws from: one fault at a time of each slot, the slots at once."""

QUICK_SLOTS: dict[str, Sequence[Tool]] = {
    "members": (tools.kill, tools.freeze, tools.stop),
    "kafka": (tools.broker_dark,),
    "postgres": (tools.postgres_restarted, tools.postgres_dark, tools.commit_lost),
    "receivers": (tools.moods, tools.bad_records),
}
"""Those that are undone within seconds, and leave the broker itself alone."""


def mixed(pause_seconds: float = 8.0, slots: Mapping[str, Sequence[Tool]] = SLOTS) -> Act:
    """Faults of every slot, in threads of their own, with random pauses between them."""

    def act(stand: Stand, chance: random.Random, end: float) -> None:
        failed: list[BaseException] = []
        seeds = {name: chance.getrandbits(64) for name in sorted(slots)}

        def strike(name: str) -> None:
            own = random.Random(seeds[name])
            try:
                while _going_on(stand, end) and not failed:
                    time.sleep(min(own.uniform(0.2, pause_seconds), max(0, end - time.monotonic())))
                    if time.monotonic() < end:
                        own.choice(slots[name])(stand, own)
            except BaseException as error:  # told by the thread that waits for all of them
                failed.append(error)

        threads = [threading.Thread(target=strike, args=(name,), daemon=True) for name in slots]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(end - time.monotonic() + 180.0)
            assert not thread.is_alive(), "a fault was not undone within three minutes"
        if failed:
            raise failed[0]

    return act


def _kills(stand: Stand, chance: random.Random, end: float) -> None:
    # Slow, so that at a kill some endpoints of a record are recorded and others in the air.
    stand.receivers.manner("moody", "slow", seconds=0.2)
    times(tools.kill, 100)(stand, chance, end)


_KILLS = Setting(session_seconds=2.0)

SCENARIOS: dict[str, Scenario] = {
    one.name: one
    for one in (
        Scenario("kills", "1 35", "LWO", "kill -9 a hundred times at random moments under load",
                 _kills, 900.0, _KILLS),
        Scenario("sigterm", "2", "LO", "SIGTERM under load: drained, nothing repeated",
                 singly(tools.stop)),
        Scenario("frozen", "3", "LWO", "SIGSTOP past the session, two members",
                 singly(tools.freeze), 30.0),
        Scenario("broker-dark", "5", "L", "the broker unreachable without a reset",
                 singly(tools.broker_dark, tools.broker_frozen), 30.0),
        Scenario("broker-restarted", "7", "LW", "the broker restarted in order, and killed",
                 singly(tools.broker_restarted, tools.broker_killed), 30.0),
        Scenario("group-forgotten", "7", "LW", "the group's offsets deleted",
                 singly(tools.forget_group), 30.0),
        Scenario("members", "8 33 34", "LWO", "members join, leave, die and freeze as they join",
                 singly(tools.newcomer, tools.newcomer_killed, tools.frozen_as_it_joins), 45.0),
        Scenario("backpressure", "9", "LM", "members come and go while Postgres answers nothing",
                 mixed(2.0, {"members": (tools.newcomer,), "postgres": (tools.postgres_frozen,)}),
                 30.0),
        Scenario("revoked-while-slow", "10", "L", "a member joins while POSTs take 30 s",
                 stories.revoked_while_slow, 100.0, stories.SLOW),
        Scenario("partitions-added", "11", "LW", "the topic gains partitions",
                 singly(tools.partitions_added)),
        Scenario("bad-records", "12", "L", "one record in ten is no event",
                 singly(tools.bad_records)),
        Scenario("postgres-frozen", "15", "LM", "Postgres answers nothing and resets nothing",
                 singly(tools.postgres_frozen), 30.0),
        Scenario("postgres-restarted", "16", "LO", "Postgres restarted at once, again and again",
                 singly(tools.postgres_restarted)),
        Scenario("postgres-dark", "18", "LO", "Postgres unreachable without a reset",
                 singly(tools.postgres_dark), 30.0),
        Scenario("commit-lost", "19", "O", "the answer to COMMIT lost, again and again",
                 singly(tools.commit_lost)),
        Scenario("one-hangs", "20", "I", "one endpoint hangs, then does not, in turn",
                 _one_hangs, 60.0, judged=True),
        Scenario("moods", "10 23 25 31", "LO", "receivers slow, failing, hanging, resetting",
                 singly(tools.moods), 30.0),
        Scenario("all-503", "31", "L", "a receiver answers 503 to all, then recovers",
                 _all_fail_then_recover, 30.0),
        Scenario("hour-of-503", "31", "LMI", "503 to all for 360,000 events, then recovery",
                 stories.hour_of_503, 300.0, stories.HOUR, compared=False),
        Scenario("soak", "all of these, mixed", "LWMIO", "random faults of every kind at once",
                 mixed(), 600.0),
    )
}  # fmt: skip
