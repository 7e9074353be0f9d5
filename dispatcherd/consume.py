"""Kafka: a group member that reads where it is told to, and never decides what is settled.

Invariant: a partition is read only after its claim was accepted (until then it is paused at
offset 0 and nothing of it is handed on); every call to the client has a bound. Leaves out: claims
(claim), decoding, and what to do with a record.

Traps of aiokafka 0.14 that shape this module are in its comments; each was seen in its source.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import AIOKafkaConnection, CloseReason

from dispatcherd import diagnosis, inflate, log
from dispatcherd.config.model import KafkaConfig
from dispatcherd.errors import LogError, LogUnavailable

logger = log.get(__name__)

Record = Any
"""aiokafka's ConsumerRecord: offset, timestamp (ms), key, value, headers."""

_send = AIOKafkaConnection.send


def _send_or_break(
    connection: AIOKafkaConnection, request: Any, expect_response: bool = True
) -> Awaitable[Any]:
    """uvloop raises RuntimeError for a transport that was closed under the connection; aiokafka
    foresees an OSError there, and any other error ends its task that fetches, without a word."""
    try:
        return cast(Awaitable[Any], _send(connection, request, expect_response))
    except RuntimeError as error:
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise kafka_errors.KafkaConnectionError(f"connection lost: {error}") from error


AIOKafkaConnection.send = _send_or_break


class MembershipLost(Exception):
    """The broker refused a commit: this member or its generation is not current."""


class OutOfRange(Exception):
    """A fetch position that the log does not hold (any more)."""

    def __init__(self, partitions: Sequence[TopicPartition]) -> None:
        self.partitions = partitions
        super().__init__(f"fetch position out of range: {partitions}")


class Unreadable(Exception):
    """The client failed while it read a batch: bad checksum, unknown codec, a header that is not
    UTF-8. What it had read of other partitions in the same call is gone: read them again."""


class Crowded(Exception):
    """The batches of one poll would be too large together; the next one asks for fewer records.
    What had been read in this one is gone: read it again."""


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Only hands the news on: the poll loop must never wait for a lock that a callback holds."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._consumer.on_revoked(set(revoked))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        tps = set(assigned)
        self._consumer.hold(tps)
        self._consumer.on_assigned(tps)


_REFUSED = (
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
)
UNREADABLE = (
    kafka_errors.CorruptRecordException,
    kafka_errors.InvalidMessageError,
    kafka_errors.RecordTooLargeError,
    kafka_errors.UnsupportedCodecError,
)


def connection_options(config: KafkaConfig, sasl_password: str | None) -> dict[str, Any]:
    """The options that every aiokafka client takes: servers, TLS, SASL, timeouts."""
    options: dict[str, Any] = {
        "bootstrap_servers": config.bootstrap_servers,
        "client_id": config.client_id,
        "request_timeout_ms": int(config.request_timeout_seconds * 1000),
        "metadata_max_age_ms": int(config.metadata_max_age_seconds * 1000),
    }
    context = None
    if config.tls is not None:
        context = ssl.create_default_context(cafile=config.tls.ca_file)
        context.check_hostname = config.tls.verify_hostname
        if config.tls.cert_file:
            context.load_cert_chain(config.tls.cert_file, config.tls.key_file)
        options["ssl_context"] = context
    if config.sasl is not None:
        options |= {
            "sasl_mechanism": config.sasl.mechanism,
            "sasl_plain_username": config.sasl.username,
            "sasl_plain_password": sasl_password,
        }
    protocol = ("SASL_" if config.sasl else "") + ("SSL" if context else "PLAINTEXT")
    return options | {"security_protocol": protocol}


class Consumer:
    """One member of the consumer group."""

    def __init__(
        self, config: KafkaConfig, most_inflated_bytes: int, sasl_password: str | None = None
    ) -> None:
        """`most_inflated_bytes`: what one batch, and what is read at once, may be in memory."""
        self._config = config
        self._password = sasl_password
        self._most_inflated = most_inflated_bytes
        inflate.Inflation(most_inflated_bytes).install()
        self.at_once = config.max_poll_records
        """Records that the next poll asks for, unless told otherwise."""
        self.last_inflated = 0
        """Bytes that the last poll has inflated."""
        self._client: AIOKafkaConsumer | None = None
        self.on_assigned: Callable[[set[TopicPartition]], None] = lambda tps: None
        self.on_revoked: Callable[[set[TopicPartition]], None] = lambda tps: None

    async def cluster_id(self) -> str:
        """The cluster's id; raises LogUnavailable."""
        admin = AIOKafkaAdminClient(**connection_options(self._config, self._password))
        with diagnosis.overheard() as heard:
            try:
                await admin.start()
                described = await admin.describe_cluster()
                return str(described["cluster_id"])
            except (kafka_errors.KafkaError, OSError) as error:
                why = diagnosis.in_words(error, heard, self._config)
                raise LogUnavailable(f"Kafka: {why}") from error
            finally:
                # It has answered or failed already: how its connections end is no news.
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(admin.close(), 5)

    async def start(self) -> None:
        """Join the group; raises LogUnavailable. Assignments arrive through `on_assigned`."""
        config = self._config
        client = AIOKafkaConsumer(
            **connection_options(self._config, self._password),
            group_id=config.group_id,
            enable_auto_commit=False,
            # Explicit: the default skips to the end. "none" makes a position that the log does
            # not hold an error, for the configured policy to decide, instead of a silent jump.
            auto_offset_reset="none",
            isolation_level=config.isolation_level,
            session_timeout_ms=int(config.session_timeout_seconds * 1000),
            heartbeat_interval_ms=int(config.heartbeat_interval_seconds * 1000),
            rebalance_timeout_ms=int(config.rebalance_timeout_seconds * 1000),
            max_poll_records=config.max_poll_records,
            fetch_max_bytes=config.fetch_max_bytes,
            max_partition_fetch_bytes=config.fetch_max_bytes_per_partition,
            fetch_max_wait_ms=int(config.fetch_max_wait_seconds * 1000),
        )
        listener = _Listener(self)
        if config.topic_patterns:
            patterns = [re.escape(topic) for topic in config.topics]
            patterns += [f"(?:{pattern})" for pattern in config.topic_patterns]
            client.subscribe(pattern=f"^(?:{'|'.join(patterns)})$", listener=listener)
        else:
            client.subscribe(topics=config.topics, listener=listener)
        self._client = client
        try:
            await client.start()
        except (kafka_errors.KafkaError, OSError) as error:
            await self.stop(5)
            raise LogUnavailable(f"Kafka: {_text(error)}") from error
        except asyncio.CancelledError:
            await self.stop(3)  # half in: the group would wait for this member's session to end
            raise

    @property
    def client(self) -> AIOKafkaConsumer:
        assert self._client is not None, "the consumer has not been started"
        return self._client

    def hold(self, tps: Iterable[TopicPartition]) -> None:
        """Read nothing of these partitions until `begin`. A rebalance forgets pauses: call again.

        The position 0 keeps the client from asking for one by itself; nothing is fetched from it.
        """
        for tp in tps:
            self.client.pause(tp)
            self.client.seek(tp, 0)

    def begin(self, tp: TopicPartition, offset: int) -> None:
        """Read this partition from `offset` on; the client drops what it had fetched before."""
        self.client.seek(tp, offset)
        self.client.resume(tp)

    def assigned(self) -> set[TopicPartition]:
        """What this member is assigned now."""
        return set(self.client.assignment())

    def partition_count(self, topic: str) -> int:
        """How many partitions the topic has, by the metadata at hand."""
        return len(self.client.partitions_for_topic(topic) or ())

    def highwater(self, tp: TopicPartition) -> int | None:
        """The end of the partition as of the last fetch."""
        # The client's own assertion, or a None, where a rebalance has just taken the partition.
        with contextlib.suppress(kafka_errors.KafkaError, AssertionError, AttributeError):
            mark = self.client.highwater(tp)
            return None if mark is None else int(mark)
        return None

    async def fetched_to(self, tp: TopicPartition) -> int | None:
        """The next offset to fetch: past what was handed out, and past gaps behind it."""
        try:
            async with asyncio.timeout(1):
                return int(await self.client.position(tp))
        except (kafka_errors.KafkaError, TimeoutError):
            return None

    async def poll(
        self,
        tps: Sequence[TopicPartition],
        timeout_seconds: float,
        max_records: int | None = None,
    ) -> dict[TopicPartition, list[Record]]:
        """Records of these partitions; {} when none came in time.

        With no partition it only tells the client that we are alive: one that is not asked for
        long leaves the group. Must not be cancelled: an interrupted `getmany` leaks its fetch
        context. It may wait longer than asked while a rebalance is under way. Raises OutOfRange,
        Unreadable, Crowded, LogUnavailable, LogError.
        """
        self._check_reader()
        try:
            with inflate.turn(self._most_inflated) as spent:
                found: dict[TopicPartition, list[Record]] = await self.client.getmany(
                    *(tps or [TopicPartition("", 0)]),
                    timeout_ms=int(timeout_seconds * 1000),
                    max_records=max_records or self.at_once,
                )
            self.last_inflated = spent.bytes
            if self.at_once < self._config.max_poll_records and (
                4 * _value_bytes(found) < self._most_inflated
            ):
                self.at_once = min(self.at_once * 2, self._config.max_poll_records)
            return found
        except inflate.PollTooLarge:
            self.at_once = max(1, self.at_once // 8)
            unreadable = None
        except kafka_errors.OffsetOutOfRangeError as error:
            raise OutOfRange(list(error.args[0])) from error
        except kafka_errors.NoOffsetForPartitionError:
            return {}  # of a partition that is being assigned: its claim will seek
        except kafka_errors.ConsumerStoppedError:
            return {}
        except inflate.BatchTooLarge as error:
            unreadable = str(error)
        except UNREADABLE as error:
            unreadable = _text(error)
        except kafka_errors.KafkaError as error:
            if isinstance(error, _REFUSED):
                raise LogError(f"Kafka refuses this consumer: {_text(error)}") from error
            raise LogUnavailable(f"Kafka: {_text(error)}") from error
        except Exception as error:  # a codec's or the parser's own, on bytes that are no batch
            unreadable = _text(error)
        # Only here, and not `from error`: its frames hold all that was read and inflated.
        raise Crowded if unreadable is None else Unreadable(unreadable)

    def _check_reader(self) -> None:
        """`getmany` does not look at the client's task that fetches: once that has ended, nothing
        would come again, while the heartbeats keep the partitions. Nobody foresaw it, so it stops
        the daemon."""
        reader = self.client._fetcher.error_future
        if reader.done():
            error = None if reader.cancelled() else reader.exception()
            cause = None if error is None else error.__cause__
            raise LogError(
                f"the Kafka client has stopped fetching ({_text(cause or error or reader)}); a "
                "restart joins the group again"
            ) from error

    async def bounds(
        self, tps: Sequence[TopicPartition], timeout_seconds: float
    ) -> dict[TopicPartition, tuple[int, int]]:
        """First offset and end of each partition; raises LogUnavailable."""
        try:
            async with asyncio.timeout(timeout_seconds):
                first = await self.client.beginning_offsets(list(tps))
                end = await self.client.end_offsets(list(tps))
        except (kafka_errors.KafkaError, TimeoutError) as error:
            raise LogUnavailable(
                f"Kafka: offsets of {len(tps)} partitions: {_text(error)}"
            ) from error
        return {tp: (int(first[tp]), int(end[tp])) for tp in tps}

    async def commit(self, offsets: dict[TopicPartition, int], timeout_seconds: float) -> None:
        """Commit; returns only if the broker accepted it from a current member and generation.

        Raises MembershipLost when it did not, LogUnavailable when it did not answer in time. With
        brokers gone the client would wait without bound: hence the timeout.
        """
        if not offsets:
            return
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.client.commit(offsets)
        except (kafka_errors.CommitFailedError, kafka_errors.IllegalStateError) as error:
            raise MembershipLost(_text(error)) from error
        except (kafka_errors.KafkaError, TimeoutError) as error:
            raise LogUnavailable(f"Kafka: commit: {_text(error)}") from error

    async def stop(self, timeout_seconds: float) -> bool:
        """Leave the group and close; False when the broker did not answer within the bound."""
        if self._client is None:
            return True
        client, self._client = self._client, None
        return await self._abandon(client, timeout_seconds)

    async def _abandon(self, client: AIOKafkaConsumer, timeout_seconds: float) -> bool:
        # stop() can hang with brokers gone, and can raise CancelledError of a task of its own.
        stopping = asyncio.ensure_future(client.stop())
        done, _ = await asyncio.wait({stopping}, timeout=timeout_seconds)
        if not done:
            stopping.cancel()
            await asyncio.wait({stopping}, timeout=1)
            return False
        return not stopping.cancelled() and stopping.exception() is None


def _value_bytes(found: dict[TopicPartition, list[Record]]) -> int:
    return sum(len(record.value or b"") for records in found.values() for record in records)


def _text(error: object) -> str:
    if isinstance(error, kafka_errors.UnknownTopicOrPartitionError):
        return "a topic of kafka.topics does not exist: create it, or mend its name"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
