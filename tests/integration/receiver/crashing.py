"""A process that receives into a backlog and writes down what it handled: to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import ExitStack
from typing import Any

from dispatcherd.receiver import AsyncReceiver, Backlog
from tests.integration.receiver.serving import SERVERS


def main(server: str, secret: str, path: str) -> None:
    kind, serve = SERVERS[server]
    log = os.open(f"{path}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    receiver = kind([secret], backlog=Backlog(f"{path}.db"), timeout_seconds=5.0, lease_seconds=0.5)

    def write(event: Any) -> None:
        os.write(log, f"{event.id}\n".encode())

    async def write_async(event: Any) -> None:
        await asyncio.sleep(0)
        write(event)

    receiver.on("*")(write_async if isinstance(receiver, AsyncReceiver) else write)
    with ExitStack() as stack:
        port = stack.enter_context(serve(receiver))
        receiver.start() if kind is not AsyncReceiver else None
        print(json.dumps({"port": port}), flush=True)
        signal.sigwait({signal.SIGTERM})
        if kind is not AsyncReceiver:
            receiver.close()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main(*sys.argv[1:])
