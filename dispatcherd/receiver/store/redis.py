"""Ids in Redis, or whatever speaks its protocol and runs Lua (Valkey, KeyDB, Dragonfly).

Hand over the client you have: of it only `eval(script, numkeys, *keys_and_args)` is used, which
redis-py, valkey-py and their asyncio forms have. Every operation is one script, so the server
decides alone; leases and retention are the server's own expiry (PX), so no clock of ours counts.

Invariant: as for every store, as long as the server keeps what it was told. With no persistence, or
with an eviction policy that drops keys, a restart or a full memory forgets ids: repeats get through
(never a loss). Leaves out: making connections.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

from dispatcherd.receiver.store import DEFAULT_RETENTION_SECONDS, Claim, State, new_token

# The value is the claim's token, and `done:` before it once completed. A client that repeats a
# command whose answer was lost gets the same answer again.
_CLAIM = """
local held = redis.call('GET', KEYS[1])
if held == false or held == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return {1, 0}
end
if string.sub(held, 1, 5) == 'done:' then return {2, 0} end
return {3, redis.call('PTTL', KEYS[1])}
"""
_COMPLETE = """
local held = redis.call('GET', KEYS[1])
local done = 'done:' .. ARGV[1]
if held ~= false and held ~= ARGV[1] and held ~= done then return 0 end
redis.call('SET', KEYS[1], done, 'PX', ARGV[2])
return 1
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
_STATES = {1: State.GRANTED, 2: State.DONE, 3: State.BUSY}


class RedisClient(Protocol):
    """What is asked of a client."""

    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any: ...


class AsyncRedisClient(Protocol):
    """What is asked of an asyncio client."""

    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Awaitable[Any] | Any: ...


class _Keys:
    def __init__(self, prefix: str, retention_seconds: float) -> None:
        self.prefix = prefix
        self.retention_ms = _milliseconds(retention_seconds)

    def claim(self, key: str, token: str, lease_seconds: float) -> tuple[Any, ...]:
        return _CLAIM, 1, self.prefix + key, token, _milliseconds(lease_seconds)

    def complete(self, claim: Claim) -> tuple[Any, ...]:
        return _COMPLETE, 1, self.prefix + claim.key, claim.token, self.retention_ms

    def release(self, claim: Claim) -> tuple[Any, ...]:
        return _RELEASE, 1, self.prefix + claim.key, claim.token


class RedisStore:
    """A Store in Redis, through a client such as `redis.Redis(...)`."""

    def __init__(
        self,
        client: RedisClient,
        *,
        prefix: str = "webhook:",
        retention_seconds: float = DEFAULT_RETENTION_SECONDS,
    ) -> None:
        self._client = client
        self._keys = _Keys(prefix, retention_seconds)

    def claim(self, key: str, lease_seconds: float) -> Claim:
        """See Store. Raises the client's errors."""
        token = new_token()
        return _read(key, token, self._client.eval(*self._keys.claim(key, token, lease_seconds)))

    def complete(self, claim: Claim) -> bool:
        """See Store. A lease that ran out and that nobody took still completes."""
        return bool(self._client.eval(*self._keys.complete(claim)))

    def release(self, claim: Claim) -> bool:
        """See Store."""
        return bool(self._client.eval(*self._keys.release(claim)))


class AsyncRedisStore:
    """An AsyncStore in Redis, through a client such as `redis.asyncio.Redis(...)`."""

    def __init__(
        self,
        client: AsyncRedisClient,
        *,
        prefix: str = "webhook:",
        retention_seconds: float = DEFAULT_RETENTION_SECONDS,
    ) -> None:
        self._client = client
        self._keys = _Keys(prefix, retention_seconds)

    async def claim(self, key: str, lease_seconds: float) -> Claim:
        """See Store. Raises the client's errors."""
        token = new_token()
        answer = await self._client.eval(*self._keys.claim(key, token, lease_seconds))
        return _read(key, token, answer)

    async def complete(self, claim: Claim) -> bool:
        """See RedisStore."""
        return bool(await self._client.eval(*self._keys.complete(claim)))

    async def release(self, claim: Claim) -> bool:
        """See Store."""
        return bool(await self._client.eval(*self._keys.release(claim)))


def _read(key: str, token: str, answer: Any) -> Claim:
    state = _STATES[int(answer[0])]
    wait = max(0, int(answer[1])) / 1000
    return Claim(key, state, token if state is State.GRANTED else "", wait)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
