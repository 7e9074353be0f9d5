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
from dispatcherd.proxy import ProxyCouldNotConnect, ProxyFailed, ProxyRefused

_OUT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_MOST_DETAIL = 200
_VERIFICATION = {
    # OpenSSL's x509_vfy.h
    10: Reason.TLS_EXPIRED,
    2: Reason.TLS_UNKNOWN_ISSUER,
    18: Reason.TLS_UNKNOWN_ISSUER,
    19: Reason.TLS_UNKNOWN_ISSUER,
    20: Reason.TLS_UNKNOWN_ISSUER,
    21: Reason.TLS_UNKNOWN_ISSUER,
    62: Reason.TLS_WRONG_HOST,
    64: Reason.TLS_WRONG_HOST,
}
_VERSION = {
    "UNSUPPORTED_PROTOCOL",
    "WRONG_SSL_VERSION",
    "VERSION_TOO_LOW",
    "NO_PROTOCOLS_AVAILABLE",
    "TLSV1_ALERT_PROTOCOL_VERSION",
}
_CLIENT_CERTIFICATE = {
    # Alerts about the certificate that we showed, or did not show (RFC 8446, 6.2). Under TLS 1.2
    # one that is missing is a plain handshake_failure, which may mean anything.
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "TLSV1_ALERT_UNKNOWN_CA",
    "TLSV1_ALERT_ACCESS_DENIED",
}


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
        # (aiohttp's own errors of TLS derive from ssl's too, and hold less.)
        if isinstance(seen, ForbiddenConnect) or (
            isinstance(seen, ssl.SSLError) and not isinstance(seen, aiohttp.ClientError)
        ):
            return seen
        nested = getattr(seen, "os_error", None)
        seen = nested if isinstance(nested, BaseException) else seen.__cause__
    return error


def _reason(error: BaseException, cause: BaseException) -> Reason:
    if isinstance(cause, ForbiddenConnect):
        return Reason.ADDRESS_FORBIDDEN
    if isinstance(error, ProxyRefused):
        return Reason.PROXY_REFUSED
    if isinstance(error, ProxyFailed):
        return Reason.PROXY_FAILED
    if isinstance(error, ProxyCouldNotConnect):
        return Reason.CONNECT_FAILED
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _VERIFICATION.get(getattr(cause, "verify_code", 0), Reason.TLS_CERTIFICATE)
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
    if isinstance(cause, ssl.SSLError):
        if cause.reason in _VERSION:
            return Reason.TLS_VERSION
        if cause.reason in _CLIENT_CERTIFICATE:
            return Reason.TLS_CLIENT_CERTIFICATE
        return Reason.TLS_FAILED
    if isinstance(error, aiohttp.ClientSSLError):
        return Reason.TLS_FAILED
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.InvalidURL, UnicodeError)):
        return Reason.CONNECT_FAILED
    # A payload error is a body that ended too early.
    if isinstance(error, (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, OSError)):
        return Reason.DISCONNECTED
    return Reason.BAD_RESPONSE
