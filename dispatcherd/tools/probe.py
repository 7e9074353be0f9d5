"""Asks a receiver: genuine requests, each with an event of its own, and what it has processed.

Invariant: what is asked of a receiver is bounded in number, bytes and time. Leaves out: what its
answers say about it (conformance).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from dispatcherd.delivery import Response
from dispatcherd.sign import Signer
from dispatcherd.tools import compose
from dispatcherd.tools.client import Client, Exchanged
from dispatcherd.tools.compose import Outgoing

_LOOK_EVERY_SECONDS = 0.05


class NotListed(Exception):
    """The list of processed ids cannot be had; why."""


class Probe:
    """One receiver, and who sends to it."""

    def __init__(
        self,
        client: Client,
        url: str,
        signers: tuple[Signer, Signer],
        template: dict[str, Any],
        processed_url: str | None = None,
        settle_seconds: float = 5.0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`signers`: with the receiver's secret, and with one that it does not know. `template`: an
        event, of which each request gets a copy with an id of its own. `settle_seconds`: how long
        work in the background may take."""
        self._client = client
        self._url = url
        self.signer, self.stranger = signers
        self._template = template
        self._processed_url = processed_url
        self._settle_seconds = settle_seconds
        self._wall = wall

    @property
    def looks(self) -> bool:
        """Whether it can be seen what was processed."""
        return self._processed_url is not None

    def event(self, **changes: Any) -> dict[str, Any]:
        """An event that was never sent."""
        return {**self._template, "id": compose.new_id(), **changes}

    def request(
        self,
        *events: dict[str, Any],
        signer: Signer | None = None,
        late_seconds: float = 0.0,
        attempt: int = 1,
        as_batch: bool = False,
    ) -> Outgoing:
        """A request with these events, or with a new one; genuine unless `signer` is a stranger."""
        now = self._wall()
        bodies = [orjson.dumps(event) for event in events or (self.event(),)]
        return compose.compose(
            compose.decode(bodies, now), signer or self.signer, now - late_seconds,
            as_batch=as_batch, attempt=attempt,
        )  # fmt: skip

    async def send(self, request: Outgoing) -> Exchanged:
        """One exchange."""
        return await self._client.post(self._url, request.headers, request.body)

    async def answer(self, request: Outgoing) -> Response:
        """What came back, without how long it took."""
        return (await self.send(request)).response

    async def processed(self) -> Counter[str]:
        """How often each id has been processed. Raises NotListed."""
        assert self._processed_url is not None
        response = (await self._client.get(self._processed_url)).response
        if response.failure is not None:
            raise NotListed(f"{self._processed_url}: {response.failure.word}: {response.detail}")
        if response.status != 200:
            raise NotListed(f"{self._processed_url} answers {response.status}")
        try:
            ids = orjson.loads(response.body)["processed"]
            return Counter([str(id_) for id_ in ids])
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise NotListed(
                f'{self._processed_url} does not answer {{"processed": [ids]}}'
            ) from error

    async def until_processed(self, ids: Sequence[str]) -> Counter[str]:
        """The counts, once every one of the ids is there, or when the time for it is over."""
        deadline = time.monotonic() + self._settle_seconds
        while True:
            counts = await self.processed()
            if all(counts[id_] for id_ in ids) or time.monotonic() > deadline:
                return counts
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
