"""What a library's exception means: the Reason that goes into log, metric, row and API.

Invariant: every exception that aiohttp, ssl, the resolver or a socket is known to raise has one
reason; the text that goes along is one printable line and holds no header and no body. Leaves out:
whether a byte was sent (the exchange knows), and what the reason leads to (outcome).
"""

from __future__ import annotations

import errno
import ssl

import aiohttp

from dispatcherd.delivery import Reason, Response
from dispatcherd.pool import ForbiddenConnect

_OUT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_MOST_DETAIL = 200


def failed(error: BaseException, status: int, sent: bool) -> Response:
    """The failure as a value; `status` is that of an answer which broke off, else 0."""
    cause = _named_cause(error)
    detail = printable(f"{type(cause).__name__}: {cause}")
    return Response(status, _reason(error, cause), detail, sent=sent)


def printable(text: str) -> str:
    """One line of at most 200 characters."""
    return "".join(c if c.isprintable() else " " for c in text[: _MOST_DETAIL * 2])[:_MOST_DETAIL]


def _named_cause(error: BaseException) -> BaseException:
    """The cause within that has a name of its own and says more than what is wrapped around it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (ForbiddenConnect, ssl.SSLCertVerificationError)):
            return seen
        nested = getattr(seen, "os_error", None)
        seen = nested if isinstance(nested, BaseException) else seen.__cause__
    return error


def _reason(error: BaseException, cause: BaseException) -> Reason:
    if isinstance(cause, ForbiddenConnect):
        return Reason.ADDRESS_FORBIDDEN
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Reason.TLS_CERTIFICATE
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, ssl.CertificateError)):
        return Reason.TLS_CERTIFICATE
    if isinstance(error, OSError) and error.errno in _OUT_OF:  # the resolver too needs a socket
        return Reason.RESOURCES
    # Ports are counted for each destination: another one may have some. (It is also said of an
    # address of a family that this host does not have.)
    if isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL:
        return Reason.NO_PORT
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Reason.DNS_FAILED
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)):
        return Reason.TLS_FAILED
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.InvalidURL, UnicodeError)):
        return Reason.CONNECT_FAILED
    # A payload error is a body that ended too early.
    if isinstance(error, (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, OSError)):
        return Reason.DISCONNECTED
    return Reason.BAD_RESPONSE
