"""The faults, each a small function: what is done to the stand, and how it is undone.

Each returns when the part works again (a member is ready, a broker answers); whether dispatcherd
goes on is for the scenario to wait for. `chance` draws durations and victims.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from confluent_kafka import KafkaException

from tests.faults.ledger import FROZEN
from tests.faults.sampling import AWAY
from tests.faults.stand import MOODY, Stand
from tests.rig.waiting import wait_for

Tool = Callable[[Stand, random.Random], None]

_MOST_PARTITIONS_ADDED = 4
MANNERS: tuple[tuple[str, dict[str, object]], ...] = (
    ("prompt", {"do": "ok"}),
    ("slow", {"do": "slow", "seconds": 0.4}),
    ("answers 503", {"do": "status", "status": 503}),
    ("hangs", {"do": "hang"}),
    ("resets", {"do": "drop"}),
)


def _one(stand: Stand, chance: random.Random) -> str:
    """A member that runs (one of the permanent ones)."""
    running = [name for name in stand.setting.members if stand.members[name].running()]
    return chance.choice(running or list(stand.setting.members))


# --- members -----------------------------------------------------------------------------------


def kill(stand: Stand, chance: random.Random) -> None:
    """SIGKILL to a member, which is started again at once."""
    name = _one(stand, chance)
    with stand.fault("kill -9", "member", name):
        stand.members[name].kill()
        stand.members[name].start()


def kill_all(stand: Stand, chance: random.Random) -> None:
    """SIGKILL to every member at once."""
    with stand.fault("kill -9", "member", "all"):
        for name in stand.setting.members:
            stand.members[name].kill()
        for name in stand.setting.members:
            stand.members[name].start(wait=False)
        for name in stand.setting.members:
            stand.members[name].wait_ready()


def stop(stand: Stand, chance: random.Random) -> None:
    """SIGTERM to a member under load; it drains, and is started again."""
    name = _one(stand, chance)
    with stand.fault("SIGTERM", "member", name):
        stand.members[name].stop()
        stand.members[name].start()


def freeze(stand: Stand, chance: random.Random) -> None:
    """SIGSTOP past the session: another member claims its partitions; then SIGCONT."""
    name = _one(stand, chance)
    with stand.fault(FROZEN, "member", name):
        stand.members[name].freeze()
        time.sleep(stand.setting.session_seconds * chance.uniform(1.5, 3.0))
        stand.members[name].thaw()


def freeze_briefly(stand: Stand, chance: random.Random) -> None:
    """SIGSTOP for less than the session: nobody else may notice."""
    name = _one(stand, chance)
    with stand.fault(FROZEN, "member", name):
        stand.members[name].freeze()
        time.sleep(stand.setting.session_seconds * chance.uniform(0.1, 0.7))
        stand.members[name].thaw()


def newcomer(stand: Stand, chance: random.Random) -> None:
    """One more member joins, works for a while, and leaves in order."""
    with stand.fault("joins and leaves", "member", "newcomer"):
        stand.members["newcomer"].start()
        time.sleep(chance.uniform(0.0, 3.0))
        stand.members["newcomer"].stop()


def newcomer_killed(stand: Stand, chance: random.Random) -> None:
    """One more member is killed while it joins."""
    with stand.fault("killed as it joins", "member", "newcomer"):
        stand.members["newcomer"].start(wait=False)
        time.sleep(chance.uniform(0.5, 3.0))
        stand.members["newcomer"].kill()


def frozen_as_it_joins(stand: Stand, chance: random.Random) -> None:
    """One more member stalls between start and claim, past its session, then goes on."""
    with stand.fault(FROZEN, "member", "newcomer"):
        one = stand.members["newcomer"]
        one.start(wait=False)
        time.sleep(chance.uniform(0.5, 2.5))
        one.freeze()
        time.sleep(stand.setting.session_seconds * chance.uniform(1.5, 3.0))
        one.thaw()
        one.wait_ready()
        one.stop()


def forget_group(stand: Stand, chance: random.Random) -> None:
    """Everybody stops, the group's offsets are deleted, everybody starts."""
    with stand.fault("offsets deleted", "group"):
        stand.stop_members()
        wait_for(lambda: _group_deleted(stand), 30, "the group to be deleted")
        for name in stand.setting.members:
            stand.members[name].start(wait=False)
        for name in stand.setting.members:
            stand.members[name].wait_ready()


def _group_deleted(stand: Stand) -> bool:
    try:
        with stand.parts.broker_needed:
            stand.parts.kafka.delete_group(stand.group)
    except KafkaException:  # not empty yet, or the coordinator is not loaded yet
        return False
    return True


# --- Kafka -------------------------------------------------------------------------------------


def broker_restarted(stand: Stand, chance: random.Random) -> None:
    """The broker stops in order and starts."""
    with stand.parts.broker_needed, stand.fault("restarted", "kafka"):
        stand.parts.kafka.restart()


def broker_killed(stand: Stand, chance: random.Random) -> None:
    """The broker is killed and starts."""
    with stand.parts.broker_needed, stand.fault("kill -9", "kafka"):
        stand.parts.kafka.kill()
        stand.parts.kafka.start()


def broker_frozen(stand: Stand, chance: random.Random) -> None:
    """The broker answers nothing and resets nothing, for up to two sessions."""
    with stand.parts.broker_needed, stand.fault("frozen", "kafka"):
        stand.parts.kafka.freeze()
        time.sleep(stand.setting.session_seconds * chance.uniform(0.5, 2.0))
        stand.parts.kafka.thaw()


def broker_dark(stand: Stand, chance: random.Random) -> None:
    """The way to the broker goes dark: no byte passes, no reset; then it is back, or cut."""
    with stand.fault("dark", "kafka"):
        proxy = stand.parts.kafka_proxy
        proxy.go_dark()
        time.sleep(stand.setting.session_seconds * chance.uniform(0.5, 3.0))
        if chance.random() < 0.5:
            proxy.cut()
        proxy.heal()


# --- Postgres ----------------------------------------------------------------------------------


def postgres_restarted(stand: Stand, chance: random.Random) -> None:
    """As a crash: every connection cut, no checkpoint."""
    with stand.fault("restarted at once", "postgres"):
        stand.parts.server.restart_immediately()
        wait_for(lambda: _answers(stand), 60, "Postgres to have recovered")  # pg_ctl is earlier


def _answers(stand: Stand) -> bool:
    try:
        return bool(stand.database.value("SELECT 1"))
    except AWAY:
        return False


def postgres_frozen(stand: Stand, chance: random.Random) -> None:
    """It answers nothing and resets nothing, for longer than a statement may take, or not."""
    with stand.fault("frozen", "postgres"):
        stand.parts.server.freeze()
        time.sleep(chance.uniform(1.0, stand.setting.longest_seconds))
        stand.parts.server.thaw()


def postgres_dark(stand: Stand, chance: random.Random) -> None:
    """The way to it goes dark, for longer than a statement may take, or not; then back, or cut."""
    with stand.fault("dark", "postgres"):
        proxy = stand.parts.postgres_proxy
        proxy.go_dark()
        time.sleep(chance.uniform(1.0, stand.setting.longest_seconds))
        if chance.random() < 0.5:
            proxy.cut()
        proxy.heal()


def commit_lost(stand: Stand, chance: random.Random) -> None:
    """A COMMIT arrives, and its answer does not."""
    with stand.fault("COMMIT's answer lost", "postgres"):
        proxy = stand.parts.postgres_proxy
        before = proxy.cuts
        proxy.cut_answer_to(b"COMMIT;")
        wait_for(lambda: proxy.cuts > before or stand.broken, 30, "an answer to be cut")


# --- receivers ---------------------------------------------------------------------------------


def moods(stand: Stand, chance: random.Random) -> None:
    """One receiver takes a manner for some seconds, then another, then is prompt again."""
    name = chance.choice(MOODY)
    for _ in range(2):
        says, manner = chance.choice(MANNERS[1:])
        mood(stand, name, says, manner, chance.uniform(1.0, stand.setting.longest_seconds))


def mood(stand: Stand, name: str, says: str, manner: dict[str, object], seconds: float) -> None:
    """One receiver takes a manner for so long."""
    with stand.fault(says, "receiver", name):
        stand.receivers.manner(name, **manner)  # type: ignore[arg-type]
        time.sleep(seconds)
        stand.receivers.manner(name, "ok")


# --- the topic ---------------------------------------------------------------------------------


def partitions_added(stand: Stand, chance: random.Random) -> None:
    """The topic gains a partition, to which events go at once."""
    if stand.partitions >= stand.setting.partitions + _MOST_PARTITIONS_ADDED:
        return
    with stand.parts.broker_needed, stand.fault("partition added", "topic"):
        stand.parts.kafka.add_partitions(stand.topic, stand.partitions + 1)
        stand.partitions += 1
        stand.publisher.partitions = stand.partitions


def bad_records(stand: Stand, chance: random.Random) -> None:
    """For some seconds one record in ten is no event."""
    with stand.fault("bad records", "topic"):
        stand.publisher.bad_one_in = 10
        time.sleep(chance.uniform(1.0, stand.setting.longest_seconds))
        stand.publisher.bad_one_in = 0
