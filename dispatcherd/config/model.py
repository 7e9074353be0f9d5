"""The configuration as the rest of the program sees it: strict, frozen, every key with its default.

Invariant: every key has a type, a bound and (but for `required` ones) a default that can be run.
Leaves out: where the values come from (`load`), rules between keys (`check`) and the words of a
mistake (`explain`). Durations are seconds, sizes are bytes, unless the name says else. What a key
is for stands in config.yaml.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    StringConstraints,
    Tag,
    model_validator,
)

Seconds = Annotated[float, Field(gt=0, le=31_536_000)]
Timeout = Annotated[float, Field(ge=0.01, le=86_400)]
"""One that Kafka or Postgres is given: whole milliseconds, 32 bits, and 0 would mean none."""
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Bytes = Annotated[int, Field(ge=1, le=16 * 1024**3)]
FetchBytes = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""Kafka's protocol has 32 bits for it."""
Text = Annotated[str, StringConstraints(min_length=1, max_length=1_000)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
FilePath = Annotated[str, StringConstraints(pattern=r"^/.+")]
Topic = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
EventVersion = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,32}$")]

STANDARD_SCHEDULE_SECONDS = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""The example of Standard Webhooks 1.0, "Deliverability and reliability"."""


_GIVEN: dict[frozenset[str], set[str]] = {}


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    def model_post_init(self, context: Any, /) -> None:
        """Which keys were given is one set for all sections that were given the same: a hundred
        thousand endpoints would have a hundred megabytes of them."""
        given = self.__pydantic_fields_set__
        shared = _GIVEN.setdefault(frozenset(given), given)
        object.__setattr__(self, "__pydantic_fields_set__", shared)

    @model_validator(mode="before")
    @classmethod
    def _nothing_means_defaults(cls, value: Any) -> Any:
        """`kafka:` with every line below it commented out is not a mistake."""
        return {} if value is None else value


class SecretSource(Section):
    """Where a secret is read from. Exactly one; `inline` only with `allow_inline_secrets: true`."""

    file: FilePath | None = None
    credential: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,255}$")] | None = None
    """Name of a systemd credential, read from `$CREDENTIALS_DIRECTORY`."""
    env: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,255}$")] | None = None
    inline: SecretStr | None = None


def _form(value: Any) -> str:
    return "place" if isinstance(value, (dict, SecretSource)) else "text"


HeaderValue = Annotated[
    Annotated[str, Tag("text")] | Annotated[SecretSource, Tag("place")], Discriminator(_form)
]
"""A text as it stands, or where it is read from."""


class KafkaTls(Section):
    ca_file: FilePath | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None
    verify_hostname: bool = True


class KafkaSasl(Section):
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: Text
    password: SecretSource


class KafkaConfig(Section):
    bootstrap_servers: list[str] = ["127.0.0.1:9092"]
    topics: list[Topic] = []
    topic_patterns: list[Text] = []
    """Regular expressions, matched against whole topic names."""
    group_id: Text = "dispatcherd"
    client_id: Text = "dispatcherd"
    start: Literal["earliest", "latest"] = "earliest"
    """Where a partition never claimed before starts; one added to a known topic: earliest."""
    on_out_of_range: Literal["stop", "earliest", "latest"] = "stop"
    on_topic_recreated: Literal["stop", "continue"] = "stop"
    on_unreadable: Literal["stop", "skip"] = "stop"
    """What cannot be read as a batch of records at all: skip leaves a row in the quarantine."""
    session_timeout_seconds: Timeout = 30.0
    heartbeat_interval_seconds: Timeout = 3.0
    rebalance_timeout_seconds: Timeout = 30.0
    request_timeout_seconds: Timeout = 40.0
    metadata_max_age_seconds: Timeout = 60.0
    fetch_max_bytes: FetchBytes = 16_777_216
    fetch_max_bytes_per_partition: FetchBytes = 1_048_576
    fetch_max_wait_seconds: Timeout = 0.5
    """How long a broker that has no new record may hold a fetch."""
    max_poll_records: Count = 1_000
    isolation_level: Literal["read_committed", "read_uncommitted"] = "read_committed"
    tls: KafkaTls | None = None
    sasl: KafkaSasl | None = None


class PostgresConfig(Section):
    dsn: str = "postgresql:///dispatcherd"
    password: SecretSource | None = None
    """Overrides a password in the DSN."""
    listen_dsn: str | None = None
    """For LISTEN, where a transaction-pooling proxy stands before `dsn`. Default: `dsn`."""
    schema_name: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,62}$")] = (
        "dispatcherd"
    )
    pool_size: Annotated[int, Field(ge=2, le=50)] = 3
    connect_timeout_seconds: Timeout = 10.0
    statement_timeout_seconds: Timeout = 30.0
    lock_timeout_seconds: Timeout = 5.0
    statement_cache_size: Annotated[int, Field(ge=0, le=10_000)] = 200
    """0 behind pgbouncer in transaction mode."""
    flush_interval_seconds: Annotated[float, Field(gt=0, le=60)] = 0.05
    flush_max_rows: Count = 5_000
    partitions_ahead_days: Annotated[int, Field(ge=1, le=365)] = 7
    poll_interval_seconds: Seconds = 5.0
    """How often changes are looked for when no notification comes."""


class BatchConfig(Section):
    max_events: Annotated[int, Field(ge=1, le=10_000)] = 1
    max_bytes: Bytes = 1_048_576
    max_wait_seconds: Annotated[float, Field(ge=0, le=3_600)] = 0.5


class RetryConfig(Section):
    schedule_seconds: Annotated[
        list[Annotated[float, Field(ge=0, le=31_536_000)]], Field(min_length=1, max_length=1_000)
    ] = list(STANDARD_SCHEDULE_SECONDS)
    """Wait before attempt 1, 2, …; past its end the last value repeats."""
    max_attempts: Annotated[int, Field(ge=1, le=1_000)] = len(STANDARD_SCHEDULE_SECONDS)
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.1
    max_retry_after_seconds: Annotated[float, Field(ge=0, le=31_536_000)] = 86_400.0


_USUAL_RETRY = RetryConfig()


class SignConfig(Section):
    standard: bool = True
    """`webhook-id`, `webhook-timestamp`, `webhook-signature` (Standard Webhooks 1.0)."""
    hex_header: str | None = None
    """Also (or only) `<hex_header>: hex(HMAC-SHA256(body))`, e.g. `X-Webhook-Signature`."""


OPERATORS = (
    "equals",
    "not_equals",
    "one_of",
    "prefix",
    "greater_than",
    "less_than",
    "exists",
)


class FilterCondition(Section):
    """What is tested is a Kafka header (`header: name`) or a body field (`field: data.amount`); of
    several `OPERATORS` each must hold (`greater_than` and `less_than`: a range)."""

    model_config = ConfigDict(allow_inf_nan=True)  # refused in `check`, with better words

    header: str | None = None
    field: str | None = None
    equals: str | int | float | bool | None = None
    not_equals: str | int | float | bool | None = None
    one_of: list[str | int | float | bool] | None = None
    prefix: str | None = None
    greater_than: float | None = None
    less_than: float | None = None
    exists: bool | None = None


class TlsConfig(Section):
    """How the receiver is known, and how we are known to it. It is always verified."""

    ca_file: FilePath | None = None
    """Certificates of authorities, instead of the system's."""
    client_certificate_file: FilePath | None = None
    client_key: SecretSource | None = None
    minimum_version: Literal["1.2", "1.3"] = "1.2"


class FilterConfig(Section):
    """All of `all` and at least one of `any` (when given) and none of `none`."""

    all: list[FilterCondition] = []
    any: list[FilterCondition] = []
    none: list[FilterCondition] = []


class EndpointConfig(Section):
    id: Name
    url: str
    event_types: list[str] = ["*"]
    """Exact (`order.created`), prefix (`order.*`), all (`*`), and negation (`!order.deleted`)."""
    filter: FilterConfig | None = None
    secret: SecretSource | None = None
    secrets: list[SecretSource] = []
    """Several, while a secret is rotated: each gives a signature, the first one listed first."""
    sign: SignConfig = SignConfig()
    tls: TlsConfig | None = None
    headers: dict[str, HeaderValue] = {}
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 15.0
    concurrency: Annotated[int, Field(ge=1, le=1_000)] = 10
    batch: BatchConfig = BatchConfig()
    retry: RetryConfig = Field(default_factory=lambda: _USUAL_RETRY)
    """One for all that say nothing: pydantic would copy a default with a list for each."""
    tenant: Name | None = None
    revision: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Raise it with each change: an instance whose file has a lower one yields to the higher."""


class ProxyConfig(Section):
    """A proxy of the operator's that every request goes through, by CONNECT."""

    url: Annotated[str, StringConstraints(pattern=r"^http://[^/?#@\s]+/?$")]
    username: Text | None = None
    password: SecretSource | None = None
    resolves_names: bool = False
    """The proxy is asked for names, and the check of their addresses is its own."""


class NetworkConfig(Section):
    allowed_networks: list[str] = []
    """Networks (CIDR) that may be connected to although they are not public."""
    allow_http: bool = False
    """Plain http:// URLs; always allowed towards `allowed_networks`."""
    proxy: ProxyConfig | None = None
    max_connections: Count = 2_000
    max_connections_per_host: Count = 50
    keepalive_seconds: Annotated[float, Field(ge=0, le=3_600)] = 15.0
    connection_max_age_seconds: Seconds = 300.0
    dns_timeout_seconds: Timeout = 5.0
    dns_cache_seconds: Annotated[float, Field(ge=0, le=3_600)] = 10.0
    max_response_body_bytes: Annotated[int, Field(ge=0, le=1_048_576)] = 16_384
    max_response_header_bytes: Annotated[int, Field(ge=1_024, le=1_048_576)] = 16_384
    user_agent: Annotated[str, StringConstraints(pattern=r"^[!-~]([ -~]{0,254}[!-~])?$")] = (
        "dispatcherd/{version}"
    )


class DecodeConfig(Section):
    max_event_bytes: Bytes = 1_048_576
    max_headers: Count = 100
    max_header_bytes: Bytes = 16_384
    default_version: EventVersion = "1"
    type_header: Text = "webhook-type"
    id_header: Text = "webhook-id"
    version_header: Text = "webhook-version"
    max_types: Count = 10_000
    """Different event types ever seen; past it a record with a new one is quarantined."""
    max_quarantine_bytes: Bytes = 65_536
    """Of a quarantined record's bytes, this many are kept."""


class CatalogueConfig(Section):
    path: FilePath | None = None
    """The directory of the event types' files; without it nothing is checked."""
    on_violation: Literal["warn", "quarantine"] = "warn"
    on_unknown: Literal["accept", "warn", "quarantine"] = "accept"
    """A type, or a version of a type, that the catalogue does not have."""


class LimitsConfig(Section):
    window_deliveries: Count = 5_000
    """Per partition: deliveries it may run ahead of its watermark."""
    window_bytes: Bytes = 67_108_864
    memory_deliveries: Count = 8_000
    """All partitions together."""
    memory_bytes: Bytes = 134_217_728
    batch_inflated_bytes: Bytes = 67_108_864
    """What one compressed batch of Kafka, and all that one poll reads, may be in memory."""
    lane_deliveries: Count = 1_000
    lane_bytes: Bytes = 16_777_216
    unrecorded_rows: Count = 20_000
    """Outcomes that may wait for Postgres; each send reserves its place before it starts."""
    unrecorded_bytes: Bytes = 67_108_864
    wheel_deliveries: Count = 20_000
    wheel_bytes: Bytes = 33_554_432
    """Owed deliveries in memory, of all endpoints together, waiting or due; not in the air."""
    wheel_horizon_seconds: Seconds = 60.0
    """Retries due later than this wait in Postgres only."""
    park_after_seconds: Seconds = 5.0
    """An unsettled delivery older than this is parked, so that the watermark moves on."""
    hold_seconds: Seconds = 1.0
    """How long a full lane that moves may hold intake before its overflow is parked."""
    partial_endpoints: Count = 1_000
    """Settled endpoints kept per half-settled record; above it the rest is parked."""
    owed_per_endpoint: Count = 1_000_000
    owed_total: Count = 10_000_000
    """Rows in Postgres, all instances together; exceeded by at most what is in memory."""
    at_owed_cap: Literal["hold", "dead_letter_oldest", "stop_intake"] = "hold"
    """hold: the excess stays in Kafka, as offset ranges that are read again once there is room."""


class AdminConfig(Section):
    host: Text = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 9464
    """0: any free port, named in the log."""


class PublicKeyConfig(Section):
    public_key: str
    not_before: str | None = None
    not_after: str | None = None
    """RFC 3339, such as 2027-01-01T00:00:00Z."""


class FactsConfig(Section):
    egress: list[str] = []
    """Networks (CIDR) that webhooks come from, as receivers see them."""
    keys: list[PublicKeyConfig] = []
    """Public keys that receivers may trust."""


class LogConfig(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"
    """auto: text on a terminal, else JSON; with a journald priority prefix under systemd."""


class Config(Section):
    kafka: KafkaConfig = KafkaConfig()
    postgres: PostgresConfig = PostgresConfig()
    endpoints: list[EndpointConfig] = []
    network: NetworkConfig = NetworkConfig()
    decode: DecodeConfig = DecodeConfig()
    catalogue: CatalogueConfig = CatalogueConfig()
    limits: LimitsConfig = LimitsConfig()
    admin: AdminConfig = AdminConfig()
    facts: FactsConfig = FactsConfig()
    log: LogConfig = LogConfig()
    shutdown_timeout_seconds: Seconds = 25.0
    """From SIGTERM to exit: attempts finish, then flush, commit, leave the group."""
    start_timeout_seconds: Seconds = 300.0
    """How long parts that are not up yet are waited for before exit 1."""
    allow_inline_secrets: bool = False
