"""Where a secret is said to come from: one source, allowed, and not the secret itself.

Invariant: pure; no problem shows what may be a secret. Leaves out: reading it (secrets).
"""

from __future__ import annotations

from collections.abc import Iterator

from dispatcherd.config.model import SecretSource
from dispatcherd.errors import ConfigProblem

SOURCES = ("file", "credential", "env", "inline")
_LOOKS_SECRET = ("whsec_", "whsk_", "whpk_", "-----BEGIN")


def check_secret(
    key: str, source: SecretSource | None, allow_inline: bool
) -> Iterator[ConfigProblem]:
    """The mistakes in one source."""
    if source is None:
        return
    given = [kind for kind in SOURCES if getattr(source, kind) is not None]
    if len(given) != 1:
        yield ConfigProblem(
            key,
            "{" + ", ".join(given) + "}",
            "a secret has exactly one source",
            "Give one of file, credential and env",
        )
    elif given == ["inline"] and not allow_inline:
        yield ConfigProblem(
            f"{key}.inline",
            "***",
            "secrets are not written into the configuration",
            "Use file, credential or env; for a try-out set allow_inline_secrets: true",
        )
    elif given != ["inline"] and str(getattr(source, given[0])).startswith(_LOOKS_SECRET):
        yield ConfigProblem(
            f"{key}.{given[0]}",
            "***",
            "this looks like the secret itself, and not like the place where it is kept",
            "Write it to a file, name that file, and replace the secret: it has been exposed",
        )
