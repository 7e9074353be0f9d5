"""Who sent this, over what: the sender's address and scheme, and whether both are allowed.

`X-Forwarded-For` and `X-Forwarded-Proto` are text that anyone can send: they count only as far as
the proxies that wrote them are trusted. The address is the first one, read from the right, that no
trusted proxy has; what a client wrote further left is never looked at.

Invariant: an entry that cannot be read, or one missing, is no address and therefore not allowed.
Leaves out: `Forwarded` (RFC 7239), which few proxies write; where the networks come from
(published).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dispatcherd.receiver.errors import NotHttps, SenderNotAllowed
from dispatcherd.receiver.headers import Headers, find_all

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAX_HOPS = 32
_MAX_NETWORKS = 10_000


def parse_networks(networks: Iterable[str]) -> tuple[Network, ...]:
    """`192.0.2.0/24` or a single address each. Raises ValueError naming the one that is neither."""
    parsed = tuple(ipaddress.ip_network(text.strip()) for text in networks)
    if len(parsed) > _MAX_NETWORKS:
        raise ValueError(f"{len(parsed)} networks; {_MAX_NETWORKS} are the most")
    return parsed


def parse_address(text: str | None) -> Address | None:
    """One entry as proxies write it, perhaps with a port; None for anything else.

    A v4-mapped IPv6 address (a dual-stack socket's view of IPv4) is the IPv4 address.
    """
    entry = (text or "").strip().strip('"')
    if entry.startswith("["):
        entry = entry[1:].partition("]")[0]
    elif entry.count(":") == 1:
        entry = entry.partition(":")[0]
    try:
        address = ipaddress.ip_address(entry.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == net.version and address in net for net in networks)


class Proxies:
    """The reverse proxies before this application."""

    def __init__(self, trusted: int | Iterable[str] = ()) -> None:
        """Their networks, or how many they are.

        A count is for load balancers whose addresses are unknown. It is only safe where nobody can
        reach this application around them.
        """
        if isinstance(trusted, str):
            trusted = [trusted]
        self._hops = trusted if isinstance(trusted, int) else 0
        if not 0 <= self._hops <= _MAX_HOPS:
            raise ValueError(f"trusted_proxies is {trusted}; 0 to {_MAX_HOPS} hops are possible")
        self._networks = () if isinstance(trusted, int) else parse_networks(trusted)

    def client(self, peer: str | None, headers: Headers) -> Address | None:
        """The address of whoever spoke to the outermost trusted proxy."""
        chain = [*_entries(headers, "x-forwarded-for"), peer or ""]
        if len(chain) > _MAX_HOPS:
            chain = chain[-_MAX_HOPS:]
        if self._hops:
            place = len(chain) - 1 - self._hops
            return parse_address(chain[place]) if place >= 0 else None
        for entry in reversed(chain):
            address = parse_address(entry)
            if address is None or not _within(address, self._networks):
                return address
        return None  # proxies all the way: the client is not named

    def scheme(self, peer: str | None, scheme: str, headers: Headers) -> str:
        """`https` only if every hop that is known was: the server's, or all that a proxy says."""
        address = parse_address(peer)
        trusted = self._hops > 0 or (address is not None and _within(address, self._networks))
        said = _entries(headers, "x-forwarded-proto") if trusted else []
        if not said:
            return scheme.lower()
        return "https" if all(entry.lower() == "https" for entry in said) else "http"


def _entries(headers: Headers, name: str) -> list[str]:
    """The comma-separated entries of every header of that name, in order (RFC 9110, 5.3)."""
    return [entry.strip() for value in find_all(headers, name) for entry in value.split(",")]


class AllowList:
    """The addresses that may send. Replaced as a whole, so that any thread sees one list."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = parse_networks(networks)

    def replace(self, networks: Iterable[str]) -> None:
        """From now on these; an empty list would shut everybody out and raises ValueError."""
        parsed = parse_networks(networks)
        if not parsed:
            raise ValueError("an empty list would refuse every sender; the old one stays")
        self._networks = parsed

    def __contains__(self, address: Address | None) -> bool:
        return address is not None and _within(address, self._networks)

    def __len__(self) -> int:
        return len(self._networks)


@dataclass(frozen=True, slots=True)
class Guard:
    """What a request must satisfy before its signature is looked at."""

    proxies: Proxies
    allowed: AllowList | None
    https_only: bool

    def check(self, peer: str | None, scheme: str, headers: Headers) -> None:
        """Raises NotHttps or SenderNotAllowed."""
        if self.https_only and self.proxies.scheme(peer, scheme, headers) != "https":
            raise NotHttps
        if self.allowed is not None:
            client = self.proxies.client(peer, headers)
            if client not in self.allowed:
                raise SenderNotAllowed(
                    f"{client or 'an address that cannot be told'} is not among the"
                    f" {len(self.allowed)} networks of the sender; if it is a proxy of yours,"
                    " name it in trusted_proxies"
                )
