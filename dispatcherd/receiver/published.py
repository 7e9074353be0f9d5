"""The facts that a sender publishes: addresses it sends from, public keys it signs with.

The document is JSON:

    {"egress": ["192.0.2.0/24", "2001:db8::/32"],
     "keys": [{"public_key": "whpk_…", "not_before": 1767225600, "not_after": 1798761600}],
     "signature_versions": ["v1", "v1a"]}

Invariant: a document that cannot be read or lists no address changes nothing. Leaves out: when to
look again (the application's own schedule).
"""

from __future__ import annotations

import json
import ssl
import time
import urllib.request
from dataclasses import dataclass
from typing import Any

from dispatcherd.receiver.errors import ReceiverError
from dispatcherd.receiver.network import parse_networks

MAX_DOCUMENT_BYTES = 1_048_576


class PublishedFactsError(ReceiverError):
    """The document could not be had, or does not say what it should."""

    cause = "published_facts"


@dataclass(frozen=True, slots=True)
class Facts:
    """One reading of the document."""

    egress: tuple[str, ...]
    """Networks; for AllowList."""
    public_keys: tuple[str, ...]
    """`whpk_` keys in force now; for Receiver(secrets=…)."""


def read_facts(document: Any, now: float | None = None) -> Facts:
    """The facts in a parsed document, `now` in Unix seconds. Raises PublishedFactsError."""
    now = time.time() if now is None else now
    if not isinstance(document, dict):
        raise PublishedFactsError("the document of published facts is not a JSON object")
    egress = document.get("egress")
    if not isinstance(egress, list) or not egress or not all(isinstance(n, str) for n in egress):
        raise PublishedFactsError('published facts: "egress" must be a list of networks, not empty')
    try:
        parse_networks(egress)
    except ValueError as error:
        raise PublishedFactsError(f'published facts: "egress": {error}') from error
    keys = document.get("keys", [])
    try:
        current = tuple(
            key["public_key"]
            for key in keys
            if key.get("not_before", 0) <= now <= key.get("not_after", float("inf"))
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise PublishedFactsError(
            'published facts: each of "keys" needs a "public_key", and Unix seconds in'
            ' "not_before" and "not_after" where they are given'
        ) from error
    return Facts(tuple(egress), current)


def fetch_facts(
    url: str, timeout_seconds: float = 10.0, context: ssl.SSLContext | None = None
) -> Facts:
    """The facts at an https:// URL; `context` for a CA of your own.

    Raises PublishedFactsError: keep what you have, try later.
    """
    if not url.startswith("https://"):
        raise PublishedFactsError("published facts are fetched over https:// only")
    try:
        with urllib.request.urlopen(url, timeout=timeout_seconds, context=context) as answer:
            if not answer.geturl().startswith("https://"):
                raise PublishedFactsError("redirected to something else than https://")
            content = answer.read(MAX_DOCUMENT_BYTES + 1)
    except (OSError, ValueError) as error:
        raise PublishedFactsError(f"cannot fetch the published facts: {error}") from error
    return parse_facts(content)


def parse_facts(content: bytes, now: float | None = None) -> Facts:
    """The facts in a document's bytes, such as a file's. Raises PublishedFactsError."""
    if len(content) > MAX_DOCUMENT_BYTES:
        raise PublishedFactsError(f"the document has more than {MAX_DOCUMENT_BYTES} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise PublishedFactsError("the document of published facts is not JSON") from error
    return read_facts(document, now)
