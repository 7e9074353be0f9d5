"""`dispatcherd run`: uvloop, signals, systemd, and one pipeline.

Invariant: SIGTERM (or SIGINT) stops in order, a second one exits at once; SIGHUP reloads; the
watchdog is fed by the loop that does the work. Leaves out: everything the pipeline does.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import Iterator

import uvloop

from dispatcherd import __version__, log
from dispatcherd.admin.exposition import Exposition
from dispatcherd.admin.gauges import gauges
from dispatcherd.admin.server import AdminServer
from dispatcherd.config.check import check_runnable
from dispatcherd.config.load import load_config
from dispatcherd.config.model import Config
from dispatcherd.config.secrets import Secrets, load_secrets
from dispatcherd.config.show import changed
from dispatcherd.errors import ConfigError, DispatcherdError
from dispatcherd.notify import Notifier
from dispatcherd.pipeline import Pipeline

logger = log.get("dispatcherd.run")


def run_daemon(path: str | None) -> int:
    """Run until stopped; the exit code. Raises ConfigError before anything has been started."""
    config = load_config(path, os.environ)
    problems = check_runnable(config)
    if problems:
        raise ConfigError(problems)
    secrets = load_secrets(config, os.environ)
    log.configure(config.log)
    # The long-lived objects of the imports need not be looked at by every collection.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    daemon = Daemon(path, config, secrets)
    return uvloop.run(daemon.run())


class Daemon:
    """One process: pipeline, admin surface, signals, service manager."""

    def __init__(self, path: str | None, config: Config, secrets: Secrets) -> None:
        self._path = path
        self._config = config
        self._secrets = secrets
        self._notifier = Notifier.from_environ(os.environ)
        self._stopping = False
        self._reload = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Start, work, stop in order. 0 after a stop that was asked for, 1 after a failure."""
        loop = asyncio.get_running_loop()
        pipeline = Pipeline(self._config, self._secrets)
        admin = AdminServer(
            self._config.admin,
            Exposition(pipeline.metrics, lambda: gauges(pipeline)),
            pipeline.missing,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop, pipeline)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        side = [asyncio.create_task(self._watch(pipeline))]
        try:
            port = await admin.start()
            logger.info(
                "starting", version=__version__, pid=os.getpid(), admin=f"{port}", config=self._path
            )
            self._starting = asyncio.create_task(self._start(pipeline))
            await self._starting
            side.append(asyncio.create_task(self._reloads(pipeline)))
            await pipeline.run()
            return 0
        except asyncio.CancelledError:
            return 0 if self._stopping else 1
        except DispatcherdError as error:
            logger.error("failed", error=str(error))
            return 1
        except OSError as error:
            logger.error("failed", error=f"admin {self._config.admin.host}: {error}")
            return 1
        except BaseExceptionGroup as group:
            for cause in _leaves(group):
                logger.error("failed", error=f"{type(cause).__name__}: {cause}", exc_info=cause)
            return 1
        finally:
            for task in side:
                task.cancel()
            await admin.stop()

    async def _start(self, pipeline: Pipeline) -> None:
        self._notifier.status("waiting for Postgres and Kafka")
        await pipeline.start()

    def _asked_to_stop(self, pipeline: Pipeline) -> None:
        if self._stopping:
            logger.warning("exiting_at_once", reason="a second signal")
            os._exit(1)
        self._stopping = True
        self._notifier.stopping()
        logger.info("stopping", deadline_seconds=self._config.shutdown_timeout_seconds)
        pipeline.stop()
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()  # nothing has been taken in yet: nothing to drain

    async def _watch(self, pipeline: Pipeline) -> None:
        """READY when it is so; watchdog pings while the ticker ticks."""
        interval = self._notifier.watchdog_interval_seconds
        pinged = 0.0
        ready = False
        while True:
            await asyncio.sleep(0.1)
            now = time.monotonic()
            # Until the ticker runs (waiting for parts), this loop itself is the sign of life.
            if interval is None or now - pinged < interval / 2:
                pass
            elif not ready or now - pipeline.timers.last_beat < interval:
                self._notifier.watchdog()
                pinged = now
            if not ready and not pipeline.missing():
                ready = True
                self._notifier.ready("running")
                logger.info("ready", partitions=len(pipeline.ownership.reading))

    async def _reloads(self, pipeline: Pipeline) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            self._notifier.reloading()
            await self._reload_once(pipeline)
            self._notifier.ready("running")

    async def _reload_once(self, pipeline: Pipeline) -> None:
        try:
            config = load_config(self._path, os.environ)
            secrets = load_secrets(config, os.environ)
            await pipeline.reload(config, secrets)
        except DispatcherdError as error:
            logger.error("reload_refused", error=str(error))
            return
        stale = changed(self._config, config)
        if stale:
            logger.warning("restart_needed", reason=f"these take effect at a restart: {stale}")
        if config.log != self._config.log:
            log.configure(config.log)
        self._config = self._config.model_copy(
            update={"endpoints": config.endpoints, "log": config.log}
        )
        logger.info("reloaded", endpoints=len(config.endpoints))


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
