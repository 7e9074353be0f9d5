"""The ranges of offsets that are being held: one for each claim and endpoint at its cap, growing.

Invariant: between a range's start and its end every record that routes to the endpoint is held, for
a range ends when the endpoint has room again, and the next one begins anew. Leaves out: rows
(backlog), and reading ranges again (reread).
"""

from __future__ import annotations

from dataclasses import replace

from dispatcherd.delivery import Claim
from dispatcherd.record.gathering import HeldRange


class Holding:
    """Open ranges in memory."""

    def __init__(self) -> None:
        self._open: dict[tuple[Claim, int], HeldRange] = {}

    def extend(self, claim: Claim, endpoint_id: int, offset: int) -> HeldRange:
        """The range with this offset in it, as a copy for the flush."""
        found = self._open.get((claim, endpoint_id))
        if found is None:
            found = HeldRange(claim, endpoint_id, offset, offset + 1)
            self._open[(claim, endpoint_id)] = found
        found.end = offset + 1
        return replace(found)

    def end(self, endpoint_ids: set[int]) -> None:
        """These endpoints have room again: what comes for them is no longer held."""
        for key in [key for key in self._open if key[1] in endpoint_ids]:
            del self._open[key]

    def forget(self, claim: Claim) -> None:
        """The claim is somebody else's."""
        for key in [key for key in self._open if key[0] is claim]:
            del self._open[key]
