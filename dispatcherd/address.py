"""Which addresses and URLs must not be connected to: one explicit table, each line with its source.

Invariant: what is checked is a concrete address; a name is judged by what it resolves to, at every
connect (pool). `ipaddress.is_global` is not used: it says True for multicast, the 6to4 relay,
NAT64, site-local and SRv6 ranges. Leaves out: resolving and connecting (pool).

Sources: the IANA special-purpose registries for IPv4 and IPv6 (RFC 6890 and the RFCs below), and
the deny lists of two egress proxies for webhooks (Stripe Smokescreen, Svix), joined.
"""

from __future__ import annotations

import re
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
        return self._allows(host, as_literal(host))

    def _allows(self, host: str, literal: IPv4Address | IPv6Address | None) -> bool:
        if literal is None:
            if _is_localhost(host):
                return any(IPv4Address("127.0.0.1") in n for n in self._allowed)
            return False
        return any(literal in network for network in self._allowed)

    def check_url(self, url: str, allow_http: bool) -> None:
        """Raise AddressForbidden for a URL that could never be sent to; a name passes here and is
        judged by its addresses at every connect."""
        host, scheme, literal = _parts(url)
        if scheme == "http" and not allow_http and not self._allows(host, literal):
            raise AddressForbidden(
                f"{_cut(url)}: plain http is not allowed; use https, or set network.allow_http"
            )
        if literal is not None:
            self.check(str(literal))
        elif _is_localhost(host) and not self._allows(host, literal):
            raise AddressForbidden(f"{_cut(url)}: {host} is this host (loopback); {_REMEDY}")
        if not url.isascii():
            raise AddressForbidden(
                f"URL {_cut(url)}: it holds a character outside ASCII; write it percent-encoded"
            )


def _parts(url: str) -> tuple[str, str, IPv4Address | IPv6Address | None]:
    """(host, scheme, the address that the host spells) of a URL that has no other fault than
    perhaps its address."""

    def refuse(why: str) -> AddressForbidden:
        return AddressForbidden(f"URL {_cut(url)}: {why}")

    if " " in url or not url.isprintable():
        raise refuse("it holds a space or a control character; remove it")
    if "\\" in url:
        raise refuse("it holds a backslash; write %5C or remove it")
    try:
        split = urlsplit(url)
        host, port = split.hostname, split.port
    except ValueError:  # its text may hold a part of a password
        raise refuse("it or its port cannot be read; write https://host[:port]/path") from None
    if split.scheme not in ("https", "http"):
        raise refuse("the scheme is not https")
    if split.username is not None or "@" in split.netloc:
        raise refuse("it holds a user name or password; use endpoint headers for credentials")
    if not host:
        raise refuse("it names no host")
    if port == 0:
        raise refuse("port 0 cannot be connected to")
    literal = as_literal(host)
    if literal is None and not _is_localhost(host):
        fault = _name_fault(host)
        if fault is not None:
            raise refuse(fault)
    return host, split.scheme, literal


def _name_fault(host: str) -> str | None:
    """Why a host that is no address could never be resolved, with the remedy; None: it may be."""
    name = _plain(host)
    try:
        encoded = name.encode("idna").decode("ascii")
    except UnicodeError as error:
        return f"the host is no valid name ({error}); write labels of 1 to 63 characters"
    if len(encoded) > 253:
        return "the host name is longer than 253 characters"
    if not host.isascii():
        return f"the host name is not ASCII; write {encoded}"
    if not _LABELS(name):
        return "the host is no valid name; write letters, digits, - and dots"
    for label in name.split("."):
        # (IDNA itself is not enforced: registries let through what no version of it allows.)
        if label.startswith("xn--") and not _is_punycode(label[4:]):
            return f"the label {label} is no valid punycode; write the name as registered"
    return None


_LABELS = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*").fullmatch


def _is_punycode(text: str) -> bool:
    """Whether it decodes (RFC 3492), and to something that needed encoding."""
    try:
        return not text.encode("ascii").decode("punycode").isascii()
    except UnicodeError:
        return False


def as_literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host spells, in any of the spellings that resolvers accept; None for a
    name. (inet_aton: 127.1, 0x7f.0.0.1, 0177.0.0.1, 2130706433; NFKC: circled digits.)"""
    text = _plain(host).strip("[]").split("%")[0]
    try:
        parsed = ip_address(text)
        mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
        return mapped if mapped is not None else parsed
    except ValueError:
        pass  # a name, or one of inet_aton's spellings
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
    """As inet_aton reads one part: decimal, octal or hexadecimal."""
    if len(part) > 80 or _NUMBER(part) is None:
        return None
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    return int(part, 8 if part.startswith("0") else 10)


_NUMBER = re.compile("0x[0-9a-f]*|0[0-7]*|[1-9][0-9]*").fullmatch


def _plain(host: str) -> str:
    """The host as resolvers come to read it: circled digits, wide letters, ideographic stops."""
    return unicodedata.normalize("NFKC", host).replace("。", ".").lower().rstrip(".")


def _is_localhost(host: str) -> bool:
    name = _plain(host)
    return name == "localhost" or name.endswith(".localhost")


def _cut(url: str) -> str:
    """The URL as it may stand in an error: short, and without what may be a password."""
    url = re.sub(r"(^|//)[^/?#]*@", r"\1***@", url)
    return repr(url if len(url) <= 100 else url[:97] + "...")
