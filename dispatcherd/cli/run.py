"""`dispatcherd run`: uvloop, signals, systemd, and one pipeline.

Invariant: SIGTERM (or SIGINT) stops in order, a second one exits at once; SIGHUP reloads; every
task is in one group, so that a fault in any of them ends the process with its reason. Leaves out:
everything the pipeline does, and what systemd is told when (supervision).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import os
import signal
from collections.abc import Iterator

import uvloop

from dispatcherd import __version__, log
from dispatcherd.admin.exposition import Exposition
from dispatcherd.admin.gauges import gauges
from dispatcherd.admin.server import AdminServer
from dispatcherd.cli.status import StatusLine
from dispatcherd.cli.supervision import Supervision
from dispatcherd.config.check import check_runnable
from dispatcherd.config.load import Loaded, load_again
from dispatcherd.config.secrets import Secrets, load_secrets
from dispatcherd.config.show import RELOADED, changed
from dispatcherd.conformity import Rules
from dispatcherd.errors import AdminUnavailable, ConfigError, DispatcherdError
from dispatcherd.notify import Notifier
from dispatcherd.pipeline import Pipeline

logger = log.get("dispatcherd.run")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_BYTES = 16_777_216
_KEPT_BYTES = 33_554_432


def run_daemon(path: str | None) -> int:
    """Run until stopped; the exit code. Raises ConfigError or CatalogueError before anything has
    been started."""
    gc.disable()  # what is made from here on stays
    loaded = load_again(path, os.environ, None)
    config = loaded.config
    problems = check_runnable(config)
    if problems:
        raise ConfigError(problems)
    secrets = load_secrets(config, os.environ)
    rules = Rules.of(config.catalogue)
    log.configure(config.log)
    # The watchdog kills with SIGABRT: the log then shows where the loop stood still.
    faulthandler.enable()
    _give_large_blocks_back()
    _settle_memory()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()
    daemon = Daemon(path, loaded, secrets, rules)
    return uvloop.run(daemon.run())


def _settle_memory(generation: int = 2) -> None:
    """What is there now will stay: no later collection needs to look at it."""
    gc.collect(generation)
    gc.freeze()


def _give_large_blocks_back() -> None:
    """Blocks beyond a usual fetch (a compressed batch, inflated) go back to the system when they
    are freed; smaller ones are kept for the next fetch, up to a bound: the kernel would have to
    give their pages anew each time, one for every second delivery or so. Left alone, glibc moves
    these bounds with what is freed, and keeps several times what is in use (mallopt(3))."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


class Daemon:
    """One process: pipeline, admin surface, signals, service manager."""

    def __init__(
        self, path: str | None, loaded: Loaded, secrets: Secrets, rules: Rules | None
    ) -> None:
        self._rules = rules
        self._path = path
        self._loaded = loaded
        """What was read last."""
        self._config = loaded.config
        """What is in force."""
        self._secrets = secrets
        self._stopping = False
        self._reload = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Start, work, stop in order. 0 after a stop that was asked for, 1 after a failure."""
        pipeline = Pipeline(self._config, self._secrets, self._rules)
        supervision = Supervision(
            Notifier.from_environ(os.environ),
            pipeline.missing,
            lambda: pipeline.timers.last_beat,
            StatusLine(pipeline).text,
        )
        self._handle_signals(pipeline, supervision)
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(supervision.run())
                summing_up = group.create_task(_sum_up_the_log())
                await self._work(pipeline, supervision)
                watching.cancel()
                summing_up.cancel()
            return 0
        except BaseExceptionGroup as failures:
            causes = list(_leaves(failures))
            for cause in causes:
                _log_failure(cause)
            supervision.failed(str(causes[0]) or type(causes[0]).__name__)
            return 1

    async def _work(self, pipeline: Pipeline, supervision: Supervision) -> None:
        admin = AdminServer(
            lambda: self._config,
            Exposition(pipeline.metrics, lambda: gauges(pipeline)),
            pipeline.missing,
        )
        try:
            port = await self._listen(admin)
            logger.info(
                "starting", version=__version__, pid=os.getpid(), admin=f"{port}", config=self._path
            )
            if await self._start(pipeline):
                async with asyncio.TaskGroup() as group:
                    reloads = group.create_task(self._reloads(pipeline, supervision))
                    await pipeline.run()
                    reloads.cancel()
        finally:
            await pipeline.abandon()  # after a drain there is nothing left for it to do
            await admin.stop()

    async def _listen(self, admin: AdminServer) -> int:
        config = self._config.admin
        try:
            return await admin.start()
        except OSError as error:
            raise AdminUnavailable(
                f"admin: cannot listen on {config.host}:{config.port}: {error.strerror or error}. "
                "Choose another admin.port, or end what listens there"
            ) from error

    async def _start(self, pipeline: Pipeline) -> bool:
        """False when a stop came first: nothing was taken in, there is nothing to drain."""
        self._starting = asyncio.create_task(pipeline.start())
        if self._stopping:
            self._starting.cancel()
        try:
            await self._starting
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            return False
        _settle_memory()
        return True

    def _handle_signals(self, pipeline: Pipeline, supervision: Supervision) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop, pipeline, supervision)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)

    def _asked_to_stop(self, pipeline: Pipeline, supervision: Supervision) -> None:
        if self._stopping:
            logger.warning("exiting_at_once", reason="a second signal")
            os._exit(1)
        self._stopping = True
        supervision.stopping(self._config.shutdown_timeout_seconds)
        logger.info("stopping", deadline_seconds=self._config.shutdown_timeout_seconds)
        pipeline.stop()
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()

    async def _reloads(self, pipeline: Pipeline, supervision: Supervision) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            supervision.reload_begun()
            supervision.reload_ended(await self._reload_once(pipeline))

    async def _reload_once(self, pipeline: Pipeline) -> str:
        """What is wrong after it, for the status line; empty when it took."""
        try:
            # Many endpoints or event types take seconds to read, and the loop must turn meanwhile.
            loaded, secrets, rules = await asyncio.to_thread(self._read)
            config = loaded.config
            await pipeline.reload(config, secrets, rules)
        except DispatcherdError as error:
            logger.error("reload_refused", error=str(error))
            return f"the last reload was REFUSED: {error}"
        if loaded is not self._loaded:
            self._loaded = loaded
            _settle_memory(1)  # all of it would hold the loop, with very many endpoints
        stale = changed(self._config, config)
        if stale:
            logger.warning("restart_needed", reason=f"these take effect at a restart: {stale}")
        if config.log != self._config.log:
            log.configure(config.log)
        self._config = self._config.model_copy(
            update={section: getattr(config, section) for section in RELOADED}
        )
        logger.info(
            "reloaded", endpoints=len(config.endpoints), event_types=rules.types if rules else 0
        )
        return f"a restart is needed for {', '.join(stale)}" if stale else ""

    def _read(self) -> tuple[Loaded, Secrets, Rules | None]:
        loaded = load_again(self._path, os.environ, self._loaded)
        secrets = load_secrets(loaded.config, os.environ)
        return loaded, secrets, Rules.of(loaded.config.catalogue)


async def _sum_up_the_log() -> None:
    while True:
        await asyncio.sleep(60)
        log.sum_up()


def _log_failure(cause: BaseException) -> None:
    if isinstance(cause, DispatcherdError):
        logger.error("failed", error=str(cause))
    else:
        logger.error("failed", error=f"{type(cause).__name__}: {cause}", exc_info=cause)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
