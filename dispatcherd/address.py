"""Which addresses and URLs must not be connected to: one explicit table, each line with its source.

Invariant: what is checked is a concrete address; a name is judged by what it resolves to, at every
connect (pool). `ipaddress.is_global` is not used: it says True for multicast, the 6to4 relay,
NAT64, site-local and SRv6 ranges. Leaves out: resolving and connecting (pool).

Sources: the IANA special-purpose registries for IPv4 and IPv6 (RFC 6890 and the RFCs below), and
the deny lists of two egress proxies for webhooks (Stripe Smokescreen, Svix), joined.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urlsplit

from dispatcherd.errors import AddressForbidden

_FORBIDDEN = [
    ("0.0.0.0/8", "this network, RFC 791"),
    ("10.0.0.0/8", "private, RFC 1918"),
    ("100.64.0.0/10", "shared by carriers, RFC 6598"),
    ("127.0.0.0/8", "loopback, RFC 1122"),
    ("169.254.0.0/16", "link-local and cloud metadata, RFC 3927"),
    ("172.16.0.0/12", "private, RFC 1918"),
    ("192.0.0.0/24", "protocol assignments, RFC 6890"),
    ("192.0.2.0/24", "documentation, RFC 5737"),
    ("192.31.196.0/24", "AS112, RFC 7535"),
    ("192.52.193.0/24", "AMT relays, RFC 7450"),
    ("192.88.99.0/24", "6to4 relays, RFC 7526"),
    ("192.168.0.0/16", "private, RFC 1918"),
    ("192.175.48.0/24", "AS112, RFC 7534"),
    ("198.18.0.0/15", "benchmarks, RFC 2544"),
    ("198.51.100.0/24", "documentation, RFC 5737"),
    ("203.0.113.0/24", "documentation, RFC 5737"),
    ("224.0.0.0/4", "multicast, RFC 5771"),
    ("240.0.0.0/4", "reserved and broadcast, RFC 1112"),
    ("::/96", "unspecified, loopback and v4-compatible, RFC 4291"),
    ("::ffff:0:0:0/96", "v4-translated, RFC 2765"),
    ("64:ff9b::/96", "NAT64, RFC 6052"),
    ("64:ff9b:1::/48", "local NAT64, RFC 8215"),
    ("100::/64", "discard only, RFC 6666"),
    ("100:0:0:1::/64", "dummy prefix, RFC 9780"),
    ("2001::/23", "protocol assignments with Teredo, RFC 2928"),
    ("2001:db8::/32", "documentation, RFC 3849"),
    ("2002::/16", "6to4, RFC 3056"),
    ("2620:4f:8000::/48", "AS112, RFC 7534"),
    ("3fff::/20", "documentation, RFC 9637"),
    ("5f00::/16", "SRv6 SIDs, RFC 9602"),
    ("fc00::/7", "unique local, RFC 4193"),
    ("fe80::/10", "link-local, RFC 4291"),
    ("fec0::/10", "site-local, RFC 3879"),
    ("ff00::/8", "multicast, RFC 4291"),
]

_TABLE: list[tuple[IPv4Network | IPv6Network, str]] = [
    (ip_network(network), why) for network, why in _FORBIDDEN
]
_MOST_REMEMBERED = 10_000
_REMEDY = "add its network to network.allowed_networks if it is meant to receive webhooks"


class AddressGuard:
    """Judges concrete addresses, and URLs early and kindly."""

    def __init__(
        self, allowed_networks: Sequence[str], own_addresses: Collection[str] = ()
    ) -> None:
        self._allowed = [ip_network(network) for network in allowed_networks]
        self._own = {ip_address(address.split("%")[0]) for address in own_addresses}
        self._verdicts: dict[str, str | None] = {}

    def check(self, address: str) -> None:
        """Raise AddressForbidden, with the rule and the remedy, unless it may be connected to."""
        if address not in self._verdicts:
            if len(self._verdicts) >= _MOST_REMEMBERED:
                self._verdicts.clear()
            self._verdicts[address] = self._judge(address)
        why = self._verdicts[address]
        if why is not None:
            raise AddressForbidden(f"address {address[:64]} is forbidden ({why}); {_REMEDY}")

    def _judge(self, address: str) -> str | None:
        try:
            parsed = ip_address(address.split("%")[0])
        except ValueError:
            return "not an IP address"
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        if any(parsed in network for network in self._allowed):
            return None
        for network, why in _TABLE:
            if parsed in network:
                return why
        if parsed in self._own:
            return "this host's own address"
        return None

    def allows_literal(self, host: str) -> bool:
        """Whether a host is an IP literal (or localhost) inside the allowed networks."""
        literal = as_literal(host)
        if literal is None:
            if _is_localhost(host):
                return any(IPv4Address("127.0.0.1") in n for n in self._allowed)
            return False
        return any(literal in network for network in self._allowed)

    def check_url(self, url: str, allow_http: bool) -> None:
        """Raise AddressForbidden for a URL that could never be sent to; a name passes here and is
        judged by its addresses at every connect. The message does not repeat the URL, which may
        hold a password: the caller names it."""
        host, scheme = _parts(url)
        literal = as_literal(host)
        if scheme == "http" and not allow_http and not self.allows_literal(host):
            raise AddressForbidden(
                "plain http is not allowed; use https, or set network.allow_http: true"
            )
        if literal is not None:
            self.check(str(literal))
        elif _is_localhost(host) and not self.allows_literal(host):
            raise AddressForbidden(f"{host[:64]} is this host (loopback); {_REMEDY}")


def _parts(url: str) -> tuple[str, str]:
    """(host, scheme) of a URL that has no other fault than perhaps its address."""
    refuse = AddressForbidden
    if any(c <= " " or c == "\x7f" for c in url) or not url.isprintable():
        raise refuse("it holds a space or a control character; remove it")
    if "\\" in url:
        raise refuse("it holds a backslash; write %5C or remove it")
    try:
        split = urlsplit(url)
    except ValueError:
        raise refuse("it cannot be parsed; write https://host[:port]/path") from None
    if split.scheme not in ("https", "http"):
        raise refuse("the scheme is not https")
    if "@" in split.netloc:
        raise refuse("it holds a user name or password; use endpoint headers for credentials")
    host = split.hostname
    if not host:
        raise refuse("it names no host")
    try:
        port = split.port
    except ValueError:  # its text repeats what stands there
        port = 0
    if port == 0:
        raise refuse("the port is no number from 1 to 65535; mend or remove it")
    if as_literal(host) is None:
        _check_name(_ascii_dots(host).rstrip("."))
    return host, split.scheme


def _check_name(name: str) -> None:
    refuse = AddressForbidden
    if not name or len(name) > 253:
        raise refuse("the host name is empty or longer than 253 characters")
    try:
        labels = name.encode("idna").split(b".")
    except UnicodeError:
        remedy = "write 1 to 63 characters between two dots"
        raise refuse(f"the host is no valid name; {remedy}") from None
    for label in labels:
        if label[:4].lower() == b"xn--":
            try:
                label[4:].decode("punycode").encode("utf-8")
            except UnicodeError:
                raise refuse("the host holds broken punycode; mend what follows xn--") from None
        if label in (b"", b"xn--"):
            raise refuse("the host holds an empty label; remove it")


def _ascii_dots(host: str) -> str:
    """The host in the compatibility form that IDNA gives it, its dots ASCII."""
    return unicodedata.normalize("NFKC", host).replace("。", ".")


def as_literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host spells, in any of the spellings that resolvers accept; None for a
    name. (inet_aton: 127.1, 0x7f.0.0.1, 0177.0.0.1, 2130706433; NFKC: circled digits.)"""
    text = _ascii_dots(host).rstrip(".")
    text = text.strip("[]").split("%")[0]
    try:
        parsed = ip_address(text)
        mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
        return mapped if mapped is not None else parsed
    except ValueError:
        pass
    parts = text.split(".")
    if not 1 <= len(parts) <= 4:
        return None
    numbers = []
    for part in parts:
        number = _number(part)
        if number is None:
            return None
        numbers.append(number)
    *leading, last = numbers
    if any(n > 255 for n in leading) or last >= 1 << (8 * (4 - len(leading))):
        return IPv4Address("0.0.0.0")  # spells no address; forbidden all the same
    value = last
    for position, number in enumerate(leading):
        value |= number << (8 * (3 - position))
    return IPv4Address(value)


def _number(part: str) -> int | None:
    if not part or not part.isascii():
        return None
    text = part.lower()
    try:
        if text.startswith("0x"):
            return int(text[2:] or "0", 16)
        if len(text) > 1 and text.startswith("0"):
            return int(text, 8)
        return int(text) if text.isdigit() else None
    except ValueError:
        return None


def _is_localhost(host: str) -> bool:
    name = _ascii_dots(host).lower().rstrip(".")
    return name == "localhost" or name.endswith(".localhost")
