"""Every way in which a request can be refused: one exception type per cause.

Invariant: no message holds a secret, a signature that would be right, or a body. `cause` is the
word for logs, metrics and answers; `status` is what the sender is told. Leaves out: what a handler
raises (running).
"""

from __future__ import annotations


class ReceiverError(Exception):
    """Root of everything this package raises on purpose."""

    cause = "error"


class SecretFormatError(ReceiverError, ValueError):
    """A secret or key that cannot be one. Raised when a receiver is made, never per request."""

    cause = "secret_format"


class MissingDependency(ReceiverError, ImportError):
    """Something optional was asked for and its package is not installed."""

    cause = "missing_dependency"


class Refusal(ReceiverError):
    """A request that is turned away before any handler sees it."""

    cause = "refused"
    status = 400
    retry_after_seconds: float | None = None


class VerificationError(Refusal):
    """The request does not prove that it comes from the sender, now."""

    cause = "unverified"
    status = 401


class BodyNotRaw(VerificationError, TypeError):
    """The body was handed over as something else than bytes. A fault of the calling code."""

    cause = "body_not_raw"
    status = 500

    def __init__(self, body: object) -> None:
        super().__init__(
            f"the body is a {type(body).__name__}; hand over the request's raw bytes. Parsing and"
            " re-serialising JSON (or decoding text) changes what was signed"
        )


class MissingHeader(VerificationError):
    """A header that the signature scheme needs is not there."""

    cause = "missing_header"

    def __init__(self, name: str) -> None:
        super().__init__(f"the header {name} is missing; an unsigned request, or a proxy drops it")
        self.name = name


class MalformedHeader(VerificationError):
    """A header is there and cannot be read."""

    cause = "malformed_header"
    status = 400

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"the header {name} {why}")
        self.name = name


class StaleTimestamp(VerificationError):
    """Signed too long ago: a replay, a slow proxy, or a clock that is wrong."""

    cause = "stale_timestamp"

    def __init__(self, age_seconds: float, tolerance_seconds: float) -> None:
        super().__init__(
            f"signed {age_seconds:.0f} s ago; {tolerance_seconds:.0f} s are tolerated."
            " A replayed request, or this machine's clock is ahead"
        )
        self.age_seconds = age_seconds


class FutureTimestamp(VerificationError):
    """Signed in the future: a clock is wrong."""

    cause = "future_timestamp"

    def __init__(self, ahead_seconds: float, tolerance_seconds: float) -> None:
        super().__init__(
            f"signed {ahead_seconds:.0f} s in the future; {tolerance_seconds:.0f} s are tolerated."
            " This machine's clock is behind, or the sender's is ahead"
        )
        self.ahead_seconds = ahead_seconds


class NoMatchingSignature(VerificationError):
    """No signature of the request was made with any of the secrets."""

    cause = "no_matching_signature"


class UnexpectedBatch(Refusal):
    """`verify` was asked for one event and the request is a batch."""

    cause = "unexpected_batch"

    def __init__(self, count: int) -> None:
        super().__init__(
            f"the request is a batch of {count} events; use verify_message(...).events"
        )


class SenderNotAllowed(Refusal):
    """The request comes from an address that is not on the allow-list."""

    cause = "unknown_sender"
    status = 403


class NotHttps(Refusal):
    """The request came over plain HTTP."""

    cause = "not_https"
    status = 403

    def __init__(self) -> None:
        super().__init__(
            "the request came over plain HTTP; register an https:// URL. Behind a proxy that ends"
            " TLS, name it in trusted_proxies and let it set X-Forwarded-Proto"
        )


class MethodNotAllowed(Refusal):
    """Webhooks are POSTs."""

    cause = "method"
    status = 405


class BodyTooLarge(Refusal):
    """The body is larger than this receiver reads."""

    cause = "body_too_large"
    status = 413

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is larger than max_body_bytes ({limit_bytes})")


class UnknownEvent(Refusal):
    """No handler for this type and version, and the policy is to refuse such."""

    cause = "unknown_event"
    status = 422


class Behind(Refusal):
    """Too much is waiting here: the sender shall come back later."""

    cause = "shed"
    status = 503

    def __init__(self, why: str, retry_after_seconds: float) -> None:
        super().__init__(why)
        self.retry_after_seconds = retry_after_seconds
