"""Who may use the page: a browser on this host, on the page's own origin.

A page of any website can make a browser send requests to 127.0.0.1, and a name that resolves to it
can make them look like the page's own (DNS rebinding). So the Host must be a name of loopback, and
what changes something must come from the page's own origin. Invariant: pure. Leaves out: webhooks
themselves, which anybody may post.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str | None) -> bool:
    """Whether a host is this one by its name or literal address."""
    if host is None:
        return False
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def may_look(headers: Mapping[str, str]) -> bool:
    """Whether a request was sent to a name of loopback."""
    try:
        return is_loopback(urlsplit(f"//{headers.get('Host', '')}").hostname)
    except ValueError:
        return False


def may_change(headers: Mapping[str, str]) -> bool:
    """Whether a request comes from the page itself."""
    return may_look(headers) and headers.get("Origin") == f"http://{headers.get('Host')}"
