"""How the local endpoint answers: as a receiver should, or as a test of the sender wants it.

Invariant: pure; whatever a page or an option asks for is checked before it is in force. Leaves out:
answering (server).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dispatcherd.errors import DispatcherdError


class BadManner(DispatcherdError):
    """A way to answer that there is not."""


class Manner(BaseModel):
    """What happens to requests that verify; the others are refused with 401."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    status: Annotated[int, Field(ge=200, le=599)] = 200
    retry_after: Annotated[str, Field(max_length=64, pattern=r"^[ -~]*$")] = ""
    """The header `Retry-After`: seconds or a date; empty: none."""
    delay_seconds: Annotated[float, Field(ge=0, le=300)] = 0.0
    """Before the answer."""
    drop: bool = False
    """Close the connection instead of answering."""
    first: Annotated[int, Field(ge=0, le=1_000)] = 0
    """All of this only for so many attempts of each id, then 200 at once; 0: always."""
    fail_members: Annotated[int, Field(ge=0, le=1_000)] = 0
    """Of a batch, name every n-th member as failed; 0: none."""
    check: Literal["refuse", "accept"] = "refuse"
    """What becomes of a request that does not verify: 401, or the same as of any other."""


class Reply(BaseModel):
    """One answer."""

    status: int
    headers: dict[str, str] = {}
    body: bytes = b""
    delay_seconds: float = 0.0
    drop: bool = False


def parse_manner(content: bytes) -> Manner:
    """A manner from JSON. Raises BadManner with what is wrong."""
    try:
        return Manner.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "it"
        raise BadManner(f"{where}: {first['msg']}") from error


def reply(
    manner: Manner, verified: bool, causes: Sequence[str], seen: int, members: Sequence[str]
) -> Reply:
    """The answer to a request whose id has come `seen` times, this one included; `members` are the
    ids of a batch."""
    if not verified and manner.check == "refuse":
        return Reply(status=401, body=_json({"error": causes[0] if causes else "unverified"}))
    if manner.first and seen > manner.first:
        return Reply(status=200, body=b"{}\n")
    headers = {"retry-after": manner.retry_after} if manner.retry_after else {}
    content: dict[str, object] = {}
    if manner.fail_members and 200 <= manner.status < 300:
        failed = members[manner.fail_members - 1 :: manner.fail_members]
        if failed:
            content["batchItemFailures"] = [{"itemIdentifier": member} for member in failed]
    return Reply(
        status=manner.status,
        headers=headers,
        body=b"" if manner.status == 204 else _json(content),
        delay_seconds=manner.delay_seconds,
        drop=manner.drop,
    )


def _json(content: dict[str, object]) -> bytes:
    return orjson.dumps(content) + b"\n"
