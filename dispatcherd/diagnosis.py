"""Why the client could not connect to Kafka, in words that name the key to look at.

aiokafka's error says no more than "unable to bootstrap"; what each broker said it writes to its log
only. Invariant: no text holds a secret. Leaves out: connecting (consume).
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka import errors as kafka_errors

from dispatcherd.config.model import KafkaConfig


@contextmanager
def overheard() -> Iterator[list[BaseException]]:
    """The errors that aiokafka writes to its log within the block, instead of writing them."""
    errors: list[BaseException] = []

    def take(record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else ()
        errors.extend(each for each in arguments if isinstance(each, BaseException))
        return False

    log = logging.getLogger("aiokafka")
    before = log.level
    log.addFilter(take)
    log.setLevel(logging.WARNING)
    try:
        yield errors
    finally:
        log.setLevel(before)
        log.removeFilter(take)


def in_words(error: BaseException, heard: list[BaseException], config: KafkaConfig) -> str:
    """What to tell the operator. `heard`: what was overheard before `error`."""
    cause = next((each for each in reversed(heard) if _says_more(each)), None)
    if cause is None:
        cause = heard[-1] if heard else error
    hint = _hint(cause, config)
    said = f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
    return f"{hint} ({said})" if hint else said


def _says_more(error: BaseException) -> bool:
    return isinstance(error, (ssl.SSLError, *_REFUSED, kafka_errors.UnsupportedSaslMechanismError))


_REFUSED = (kafka_errors.AuthenticationFailedError, kafka_errors.SaslAuthenticationFailed)


def _hint(error: BaseException, config: KafkaConfig) -> str | None:
    if isinstance(error, _REFUSED):
        return "the broker does not accept kafka.sasl.username and kafka.sasl.password"
    if isinstance(error, kafka_errors.UnsupportedSaslMechanismError):
        return "the broker has not enabled kafka.sasl.mechanism"
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in (62, 64):
            return (
                "the broker's certificate is for another name: write that name in "
                "kafka.bootstrap_servers (and in the broker's advertised.listeners)"
            )
        if error.verify_code == 10:
            return "the broker's certificate has expired"
        where = "kafka.tls.ca_file" if config.tls and config.tls.ca_file else "the system's"
        return f"the broker's certificate is of no authority in {where}: see kafka.tls.ca_file"
    if isinstance(error, ssl.SSLError) or (config.tls and isinstance(error, ConnectionResetError)):
        return "TLS with the broker failed: is this its TLS port, and kafka.tls.cert_file accepted?"
    if isinstance(error, kafka_errors.KafkaConnectionError) and "closed" in str(error):
        if config.tls is None:
            return "the broker closed the connection: does this port want kafka.tls?"
        if config.sasl is None:
            return (
                "the broker closed the connection: does it want kafka.sasl, or a certificate in "
                "kafka.tls.cert_file that it knows?"
            )
    return None
