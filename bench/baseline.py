"""What a competent Python user writes in a day to do the daemon's work, for comparison.

    python -m bench.baseline BOOTSTRAP TOPIC DSN URL SECRET

aiokafka in batches, one ClientSession, a semaphore, retries with a pause, an INSERT per outcome
through a pool, offsets committed once a batch is done; on uvloop, with orjson. Written to be fast
by its author's lights, and to be as careful as such scripts are: an event that fails three times is
recorded as failed and passed over, a slow receiver holds up all others.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import signal
import sys
import time

import aiohttp
import asyncpg
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, ConsumerRecord

CONCURRENCY = 50
ATTEMPTS = 3
TABLE = """
CREATE TABLE IF NOT EXISTS outcomes (
    id bigserial PRIMARY KEY, webhook_id text NOT NULL, url text NOT NULL, attempt int NOT NULL,
    status int NOT NULL, ok boolean NOT NULL, duration_ms int NOT NULL,
    at timestamptz NOT NULL DEFAULT now());
CREATE INDEX IF NOT EXISTS outcomes_webhook_id ON outcomes (webhook_id);
"""
INSERT = (
    "INSERT INTO outcomes (webhook_id, url, attempt, status, ok, duration_ms) "
    "VALUES ($1, $2, $3, $4, $5, $6)"
)


class Dispatcher:
    """Sends one event, and records what it came to."""

    def __init__(
        self, session: aiohttp.ClientSession, pool: asyncpg.Pool, url: str, secret: str
    ) -> None:
        self.session, self.pool, self.url = session, pool, url
        self.key = base64.b64decode(secret.removeprefix("whsec_"))
        self.semaphore = asyncio.Semaphore(CONCURRENCY)

    def headers(self, webhook_id: str, body: bytes) -> dict[str, str]:
        timestamp = str(int(time.time()))
        signed = f"{webhook_id}.{timestamp}.".encode() + body
        digest = hmac.new(self.key, signed, hashlib.sha256).digest()
        return {
            "Content-Type": "application/json",
            "webhook-id": webhook_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": "v1," + base64.b64encode(digest).decode(),
        }

    async def deliver(self, record: ConsumerRecord) -> None:
        body = record.value
        webhook_id = orjson.loads(body)["id"]
        async with self.semaphore:
            for attempt in range(1, ATTEMPTS + 1):
                started = time.monotonic()
                status = 0
                try:
                    async with self.session.post(
                        self.url, data=body, headers=self.headers(webhook_id, body)
                    ) as response:
                        await response.read()
                        status = response.status
                except (aiohttp.ClientError, TimeoutError):
                    pass  # no status: a failed attempt below, as any of these is
                ok = 200 <= status < 300
                took = int((time.monotonic() - started) * 1000)
                await self.pool.execute(INSERT, webhook_id, self.url, attempt, status, ok, took)
                if ok:
                    return
                await asyncio.sleep(attempt)


async def main(bootstrap: str, topic: str, dsn: str, url: str, secret: str) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=f"baseline-{dsn.rsplit('/', 1)[1]}",
        auto_offset_reset="earliest", enable_auto_commit=False,
    )  # fmt: skip
    await consumer.start()
    timeout = aiohttp.ClientTimeout(total=15)
    async with (
        asyncpg.create_pool(dsn, min_size=10, max_size=10) as pool,
        aiohttp.ClientSession(timeout=timeout) as session,
    ):
        await pool.execute(TABLE)
        dispatcher = Dispatcher(session, pool, url, secret)
        while not stopping.is_set():
            batches = await consumer.getmany(timeout_ms=200, max_records=1_000)
            records = [record for batch in batches.values() for record in batch]
            if records:
                await asyncio.gather(*(dispatcher.deliver(record) for record in records))
                await consumer.commit()
    await consumer.stop()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:6]))
