"""Whether a text is a network.

Invariant: pure. Leaves out: what the network is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from dispatcherd.errors import ConfigProblem


def check_network(key: str, text: str, example: str) -> Iterator[ConfigProblem]:
    """The mistake in one network (CIDR), if there is one."""
    try:
        ip_network(text)
    except ValueError:
        trouble, remedy = "not a network", f"Write a network such as {example}"
        try:
            remedy = f"Write {ip_network(text, strict=False)}"
            trouble = "not a network: it has bits set behind its prefix"
        except ValueError:
            pass  # not even that: the example says it
        yield ConfigProblem(key, repr(text[:80]), trouble, remedy)
