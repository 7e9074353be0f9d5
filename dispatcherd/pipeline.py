"""The one place where the stages meet: construction in the order of an event's way, then running.

    consume → decode → route → (lane) → batch → send → outcome → record; due retries re-enter at
    the lane.

Invariant: every task runs in one group, so that a fault that nobody foresaw stops the daemon, and
every stage is bounded, so that full means backpressure to Kafka. Leaves out: what each stage does.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

from dispatcherd import log
from dispatcherd.address import AddressGuard
from dispatcherd.adopt import Adoption
from dispatcherd.caps import OwedCaps
from dispatcherd.claim import Ownership
from dispatcherd.commit import Committer
from dispatcherd.concurrency import ConcurrencyLimit
from dispatcherd.config.model import Config
from dispatcherd.config.secrets import Secrets
from dispatcherd.conformity import Conformity, Rules
from dispatcherd.consume import Consumer
from dispatcherd.endpoints import Endpoints
from dispatcherd.errors import StoreUnavailable
from dispatcherd.exchange import FastExchange
from dispatcherd.fetch import FetchLoop
from dispatcherd.handover import Handover
from dispatcherd.intake import Intake
from dispatcherd.metrics import Metrics
from dispatcherd.parking import Parking
from dispatcherd.pool import connector, own_addresses
from dispatcherd.quota import Quota
from dispatcherd.record import deployment, listen, migrate
from dispatcherd.record.buffer import Buffer
from dispatcherd.record.catalogue import Catalogue
from dispatcherd.record.connection import Database
from dispatcherd.record.gathering import Gathering
from dispatcherd.record.recorder import Recorder
from dispatcherd.registrations import Registrations
from dispatcherd.reread import Rereader
from dispatcherd.retry import Retries
from dispatcherd.send import Sender
from dispatcherd.slots import HostSlots
from dispatcherd.startup import Startup
from dispatcherd.timers import Timers, set_within

logger = log.get(__name__)


class Pipeline:
    """The daemon's stages, built once and run until stopped."""

    def __init__(self, config: Config, secrets: Secrets, rules: Rules | None = None) -> None:
        self._config = config
        self._secrets = secrets
        self.metrics = Metrics()
        self.conformity = Conformity(rules, self.metrics)
        self.timers = Timers(self.metrics)
        self.timers.gap_seconds = config.kafka.session_timeout_seconds / 2
        self.database = Database(config.postgres, secrets.postgres_password)
        self.consumer = Consumer(
            config.kafka, config.limits.batch_inflated_bytes, secrets.sasl_password
        )
        self.catalogue = Catalogue(self.database, config.decode.max_types)
        self.quota = Quota(config.limits.owed_per_endpoint, config.limits.owed_total)
        self.incarnation = 0
        self.built = False
        """The stages exist: before that there is nothing to look at."""
        self._startup: Startup | None = None
        self._stopping = asyncio.Event()
        self._verify = asyncio.Event()

    # --- construction, in the order of an event's way ---------------------------------------

    async def start(self) -> None:
        """Wait for the parts (bounded, logged), register, reconcile, join. Raises when refused."""
        self._startup = startup = Startup(self._config.start_timeout_seconds)
        await startup.until("postgres", self._check_schema)
        cluster_id = await startup.until("kafka", self.consumer.cluster_id)
        await startup.until("postgres", partial(self._register, cluster_id))
        self._build()
        await startup.until("postgres", self.registrations.apply)
        await startup.until("kafka", self.consumer.start)

    async def abandon(self) -> None:
        """Leave the group and close, without draining: after a start that did not end in `run`, or
        a failure. What was in memory stays owed by Kafka or Postgres."""
        await self.consumer.stop(3.0)
        if self.built:
            await self.recorder.close()
            await self.exchange.close()
        await self.database.close()

    def _build(self) -> None:
        self._build_way()
        self._build_around()
        self._connect()
        self.built = True

    def _build_way(self) -> None:
        """From Kafka to the receivers and to Postgres."""
        config, metrics, timers = self._config, self.metrics, self.timers
        postgres = config.postgres
        buffer = Buffer(self.catalogue, config.limits, postgres.flush_max_rows)
        self.recorder = Recorder(
            buffer, self.database, self.catalogue, self.incarnation, postgres, metrics
        )
        self.ownership = Ownership(
            self.database, self.consumer, buffer, config.kafka, self.incarnation, metrics
        )
        guard = AddressGuard(config.network.allowed_networks, own_addresses())
        pool = connector(config.network, guard, proxy_password=self._secrets.proxy_password)
        self.exchange = FastExchange(config.network, timers.wheel, timers.now, pool)
        self.endpoints = Endpoints(config, self.exchange.target)
        slots = HostSlots(config.network.max_connections_per_host, config.network.max_connections)
        concurrency = ConcurrencyLimit(config.network.max_connections)
        self.sender = Sender(
            self.endpoints,
            self.exchange,
            slots,
            buffer,
            timers,
            metrics,
            self.incarnation,
            concurrency,
        )
        self.parking = Parking(self.endpoints, buffer, config.limits, metrics)
        self.intake = Intake(
            config,
            self.endpoints,
            self.catalogue,
            self.conformity,
            buffer,
            self.parking,
            self.quota,
            metrics,
            concurrency,
            self.sender.poke,
        )
        self.fetching = FetchLoop(
            self.consumer,
            self.intake,
            self.ownership,
            self.catalogue,
            self.parking,
            buffer,
            timers,
            metrics,
            skip_unreadable=config.kafka.on_unreadable == "skip",
            most_waiting_bytes=config.limits.batch_inflated_bytes,
        )

    def _build_around(self) -> None:
        """What brings back, looks after and keeps up."""
        config, metrics, timers = self._config, self.metrics, self.timers
        self.rereader = Rereader(
            config,
            self._secrets.sasl_password,
            self.database,
            self.ownership,
            self.endpoints,
            self.quota,
            self.recorder,
            self.parking,
            metrics,
            timers.now,
        )
        self.retries = Retries(
            self.database,
            self.endpoints,
            self.ownership,
            self.recorder,
            timers,
            config.limits,
            self.sender.poke,
            config.postgres.poll_interval_seconds,
        )
        self.caps = OwedCaps(
            self.database,
            self.endpoints,
            self.ownership,
            self.recorder,
            self.quota,
            config.limits,
            config.postgres.poll_interval_seconds,
        )
        self.committer = Committer(self.consumer, self.ownership, metrics)
        self.adoption = Adoption(self.database, self.ownership, self.retries, metrics)
        self.registrations = Registrations(
            self.database,
            self.endpoints,
            self.sender,
            self.retries,
            config.endpoints,
            self._secrets.endpoint_keys,
            self._secrets.access,
        )

    def _connect(self) -> None:
        """Who tells whom."""
        timers = self.timers
        timers.on_lag = self.sender.keep_pace
        self.sender.completion.on_retry = self.retries.schedule
        self.recorder.on_room = self.sender.unblock
        self.recorder.on_committed = self._committed
        handover = Handover(
            self.endpoints, self.intake, self.sender, self.retries, self.recorder.buffer, timers
        )
        self.ownership.on_begun = handover.begun
        self.ownership.on_suspended = handover.suspended
        self.ownership.on_dropped = handover.dropped
        self.intake.on_recreated = self.fetching.doubted.append
        timers.on_gap = self._gap

    async def _check_schema(self) -> None:
        async with self.database.session() as connection:
            await migrate.check_schema(connection, self._config.postgres.schema_name)

    async def _register(self, cluster_id: str) -> None:
        config = self._config
        async with self.database.session() as connection:
            self.incarnation = await deployment.register(
                connection, config.kafka.group_id, cluster_id
            )
            await self.catalogue.load(connection)
            await migrate.make_day_partitions(connection, config.postgres.partitions_ahead_days)

    # --- running ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until `stop` is called; then drain in order. Raises what nobody foresaw."""
        tasks: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            for name, stage in {
                "timers": self.timers.run(),
                "record": self.recorder.run(),
                "claim": self.ownership.run(),
                "consume": self.fetching.run(self._stopping),
                "quota": self.caps.run(),
                "reread": self.rereader.run(),
                "send": self._keep_sending(),
                "retry": self.retries.run(),
                "commit": self.committer.run(),
                "listen": listen.listen(
                    self.database, self._heard, self._config.postgres.poll_interval_seconds
                ),
                "reconcile": self.registrations.run(),
                "adopt": self.adoption.run(),
                "verify": self._keep_verified(),
                "partitions": self._keep_partitions(),
            }.items():
                tasks[name] = group.create_task(stage, name=name)
            self.sender.start()
            await self._stopping.wait()
            await self._drain(tasks)
            for task in tasks.values():
                task.cancel()

    def stop(self) -> None:
        """Begin to stop: no more intake, attempts finish in time, then flush, commit, leave."""
        self._stopping.set()

    async def _drain(self, tasks: dict[str, asyncio.Task[None]]) -> None:
        started = time.monotonic()
        budget = self._config.shutdown_timeout_seconds

        def left(keep: float) -> float:
            return max(0.1, started + budget - keep - time.monotonic())

        for name in (
            "claim",
            "commit",
            "reconcile",
            "listen",
            "verify",
            "quota",
            "reread",
            "adopt",
        ):
            tasks[name].cancel()
        interrupted = await self._land(left(keep=min(8.0, budget / 2)))
        recorded = await self.recorder.drained(left(keep=min(5.0, budget / 3)))
        committed = await self.committer.once(min(2.0, left(keep=2.0)))
        # A poll under way ends by itself when the client closes; it must not be cancelled.
        in_order = await self.consumer.stop(min(3.0, left(keep=0.5)))
        if recorded:
            try:
                async with asyncio.timeout(min(1.0, left(keep=0.2))):
                    async with self.database.session() as connection:
                        await deployment.farewell(connection, self.incarnation)
            except (StoreUnavailable, TimeoutError):
                pass  # only a note for the operator
        await self.recorder.close()
        await self.exchange.close()
        await self.database.close()
        logger.info(
            "stopped",
            interrupted=interrupted,
            recorded=recorded,
            committed=committed,
            left_group=in_order,
            seconds=round(time.monotonic() - started, 2),
        )

    async def _keep_sending(self) -> None:
        await self.sender.failed

    async def _land(self, timeout_seconds: float) -> int:
        """Send nothing new; let exchanges finish, then interrupt the rest. Returns how many."""
        self.sender.open = False
        if self.sender.at_rest:
            return 0
        self.sender.landed.clear()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.sender.landed.wait()
            return 0
        except TimeoutError:
            return self.sender.interrupt()

    # --- what one stage tells another --------------------------------------------------------

    def _committed(self, contents: Gathering) -> None:
        self.retries.committed(contents)
        self.caps.count(contents)
        if contents.fenced:
            self.ownership.lost(contents.fenced)

    def _gap(self, seconds: float) -> None:
        logger.warning("process_was_frozen", seconds=round(seconds, 1))
        self.sender.open = False
        self._verify.set()

    async def _keep_verified(self) -> None:
        """Are the epochs still ours? After a gap, and regularly for suspended partitions."""
        while True:
            await set_within(self._verify, 5)
            try:
                if self._verify.is_set():
                    await self.ownership.verify()
                    self._verify.clear()
                    self.sender.start()
                else:
                    await self.ownership.verify([t.tp for t in self.ownership.suspended()])
                    async with self.database.session() as connection:
                        await deployment.heartbeat(connection, self.incarnation)
            except StoreUnavailable:
                await asyncio.sleep(0.5)

    # --- what is to be seen ------------------------------------------------------------------

    def missing(self) -> dict[str, str]:
        """What stands in the way of being ready: part → reason; empty when ready."""
        found = {}
        if self._stopping.is_set():
            found["process"] = "stopping"
        if not self.built:
            part, why = self._startup.waiting_for if self._startup else ("process", "starting")
            return found | {part: why}
        if not self.recorder.healthy:
            found["postgres"] = f"outcomes cannot be recorded: {self.recorder.trouble}"
        if not self.ownership.joined:
            found["kafka"] = "no assignment from the group yet, or its claim is under way"
        elif not self.fetching.healthy:
            found["kafka"] = "not reachable"
        return found

    def _heard(self, what: str) -> None:
        if what in ("endpoints", "poll"):
            self.registrations.look_again()
        if what in ("requests", "poll"):
            self.retries.look_for_requests()
        if what == "adopt":
            self.adoption.look_again()

    async def reload(self, config: Config, secrets: Secrets, rules: Rules | None) -> None:
        """Take over the endpoints and the catalogue of a new configuration; nothing that waits is
        lost.

        Raises StoreUnavailable; then the old registrations and catalogue stay in force.
        """
        await self.registrations.take_over(config.endpoints, secrets.endpoint_keys, secrets.access)
        self.conformity.rules = rules

    async def _keep_partitions(self) -> None:
        """Make the day partitions of `attempts` ahead of time."""
        while True:
            await asyncio.sleep(3_600)
            try:
                async with self.database.session() as connection:
                    await migrate.make_day_partitions(
                        connection, self._config.postgres.partitions_ahead_days
                    )
            except StoreUnavailable as error:
                logger.warning("partitions_not_made", error=str(error))
