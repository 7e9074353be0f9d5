"""Secrets as a person gives them to a tool: `env:NAME`, `file:PATH`, or a public key itself.

Invariant: a secret is not taken from the command line, where every process can read it, and no
error text shows one. Leaves out: whether the text is a good secret (diagnose, receiver.keys).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dispatcherd.errors import DispatcherdError
from dispatcherd.keys import PUBLIC_PREFIX

DEFAULT = "env:WEBHOOK_SECRET"
_MOST_BYTES = 65_536


class SourceError(DispatcherdError):
    """A secret cannot be had from where it is said to be. The command line is wrong."""


def read_secrets(sources: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """The texts, in order, each without the line break that ends a file; without a source, that of
    `DEFAULT`. Raises SourceError."""
    return [_read(source, environ) for source in sources or (DEFAULT,)]


def _read(source: str, environ: Mapping[str, str]) -> str:
    kind, colon, place = source.partition(":")
    if source.startswith(PUBLIC_PREFIX):
        return source
    if not colon or kind not in ("env", "file"):
        raise SourceError(
            "--secret says where the secret is: env:NAME or file:PATH (a public key, whpk_…, may "
            "stand there itself). If you typed the secret, it is in your shell's history now"
        )
    if kind == "env":
        if not environ.get(place):
            raise SourceError(f"{place} is not set. Set it, or name another place with --secret")
        return environ[place]
    try:
        with Path(place).open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise SourceError(f"{place} is larger than 64 KiB. Name the file of one secret")
        text = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise SourceError(f"{place} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{place} is not UTF-8 text") from error
    if not text:
        raise SourceError(f"{place} is empty. Write the secret into it")
    return text
