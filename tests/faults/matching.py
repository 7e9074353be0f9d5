"""Which row of `attempts` speaks of which request: both sides of each exchange, brought together.

Pure. A request is known by who sent it, to which endpoint, for which record; of several such, the
rows take the requests in the order of time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.faults.ledger import Arrival, Ledger, Place, Recorded

_CLOCK_SECONDS = 0.05
"""A row's time is cut to the millisecond; the journal's is taken after the body was read."""


@dataclass(slots=True)
class Exchange:
    """One request for one record, seen from both sides: at least one of them is there."""

    endpoint: str
    place: Place
    process: str
    arrival: Arrival | None = None
    row: Recorded | None = None

    @property
    def at(self) -> float:
        """When it was begun, as far as is known: what a frozen process began may arrive late."""
        if self.row is not None:
            return self.row.begun
        assert self.arrival is not None
        return self.arrival.at


@dataclass(slots=True)
class Matched:
    """All exchanges of a run."""

    exchanges: list[Exchange] = field(default_factory=list)
    strangers: list[Arrival] = field(default_factory=list)
    """Requests for an id that nobody published."""

    def deliveries(self) -> Iterator[tuple[tuple[str, Place], list[Exchange]]]:
        """(endpoint, place) → its exchanges, in the order of time."""
        found: dict[tuple[str, Place], list[Exchange]] = defaultdict(list)
        for exchange in self.exchanges:
            found[exchange.endpoint, exchange.place].append(exchange)
        for key, exchanges in found.items():
            yield key, sorted(exchanges, key=lambda exchange: exchange.at)


_Key = tuple[str, str, Place]
"""(process, endpoint, place)"""


def match(ledger: Ledger) -> Matched:
    """Bring rows and requests together."""
    matched = Matched()
    places = {record.id: record.place for record in ledger.published}
    arrivals: dict[_Key, list[Arrival]] = defaultdict(list)
    rows: dict[_Key, list[Recorded]] = defaultdict(list)
    for arrival in ledger.arrivals:
        for id_ in arrival.ids:
            place = places.get(id_)
            if place is None:
                matched.strangers.append(arrival)
                continue
            arrivals[arrival.process, arrival.endpoint, place].append(arrival)
    for row in ledger.recorded:
        rows[row.process, row.endpoint, row.place].append(row)
    for key in arrivals.keys() | rows.keys():
        matched.exchanges += _match(key, arrivals.get(key, []), rows.get(key, []))
    return matched


def _match(key: _Key, arrivals: list[Arrival], rows: list[Recorded]) -> Iterator[Exchange]:
    process, endpoint, place = key
    waiting = sorted(arrivals, key=lambda arrival: arrival.at)
    # Rows that know an answer first: one without may be of a request that never arrived.
    for row in sorted(rows, key=lambda row: (row.status == 0, row.at)):
        found = _first(waiting, row)
        if found is not None:
            waiting.remove(found)
        yield Exchange(endpoint, place, process, found, row)
    for arrival in waiting:
        yield Exchange(endpoint, place, process, arrival)


def _first(waiting: list[Arrival], row: Recorded) -> Arrival | None:
    """The earliest request that this row can speak of: not before it, and answered as it says."""
    for arrival in waiting:
        if arrival.at >= row.at - _CLOCK_SECONDS and row.status in (0, arrival.status):
            return arrival
    return None
