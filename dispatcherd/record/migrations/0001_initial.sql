-- The state of dispatcherd. Postgres is the truth; Kafka is the log.
-- Words are those of README "Words". Rows of the happy path are compact: ids instead of names.

CREATE TABLE deployment (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    group_id    text NOT NULL,
    cluster_id  text NOT NULL,
    claimed_at  timestamptz NOT NULL DEFAULT now(),
    registry_version bigint NOT NULL DEFAULT 0
);
COMMENT ON COLUMN deployment.registry_version IS 'Raised with each change of endpoints, in its transaction.';
COMMENT ON TABLE deployment IS 'The one consumer group and Kafka cluster that this database serves.';

CREATE TABLE instances (
    incarnation  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    flush        bigint NOT NULL DEFAULT 0,
    host         text NOT NULL,
    pid          int NOT NULL,
    version      text NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    stopped_at   timestamptz
);
COMMENT ON COLUMN instances.flush IS 'Number of the last flush that committed: the answer to a lost COMMIT.';

CREATE TABLE topics (
    id          int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL,
    incarnation int NOT NULL DEFAULT 1,
    partitions  int NOT NULL,
    id_key      bytea NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (name, incarnation)
);
COMMENT ON TABLE topics IS 'One row per life of a topic: a topic created again is another one.';
COMMENT ON COLUMN topics.partitions IS 'How many it had when first seen: later ones start at their earliest record.';

CREATE TABLE event_types (
    id       int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name     text NOT NULL UNIQUE,
    seen_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE endpoints (
    id          int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL,
    tenant      text,
    revision    bigint NOT NULL DEFAULT 0,
    spec        jsonb NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    changed_at  timestamptz NOT NULL DEFAULT now(),
    removed_at  timestamptz,
    version     bigint NOT NULL DEFAULT 0
);
CREATE INDEX endpoints_version ON endpoints (version);
COMMENT ON COLUMN endpoints.version IS 'The registry_version of its last change.';
CREATE UNIQUE INDEX endpoints_live ON endpoints (name) WHERE removed_at IS NULL;
COMMENT ON COLUMN endpoints.spec IS 'What routing and sending need, without secrets and static headers.';

CREATE TABLE endpoint_state (
    endpoint_id  int PRIMARY KEY REFERENCES endpoints (id),
    paused_at    timestamptz,
    paused_until timestamptz,
    disabled_at  timestamptz,
    reason       text,
    changed_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE progress (
    topic_id     int NOT NULL REFERENCES topics (id),
    partition    int NOT NULL,
    epoch        bigint NOT NULL DEFAULT 0,
    incarnation  bigint,
    watermark    bigint,
    settled      int8multirange NOT NULL DEFAULT '{}',
    partial      jsonb NOT NULL DEFAULT '{}',
    fingerprint  bytea,
    fingerprint_offset bigint,
    claimed_at   timestamptz,
    adopted      boolean NOT NULL DEFAULT false,
    changed_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic_id, partition)
) WITH (fillfactor = 50);
COMMENT ON COLUMN progress.adopted IS 'Nobody subscribes to it any more: whatever process runs sends what it still owes.';
COMMENT ON COLUMN progress.watermark IS 'Every offset below it is settled. NULL: never claimed.';
COMMENT ON COLUMN progress.settled IS 'Settled offsets at or above the watermark.';
COMMENT ON COLUMN progress.partial IS 'Half-settled records: {"offset": [endpoint ids already settled]}.';

CREATE TABLE attempts (
    exchange_id   bigint NOT NULL,
    "offset"      bigint NOT NULL,
    at            timestamptz NOT NULL,
    topic_id      int NOT NULL,
    partition     int NOT NULL,
    endpoint_id   int NOT NULL,
    type_id       int NOT NULL,
    duration_us   int NOT NULL,
    day           date NOT NULL DEFAULT CURRENT_DATE,
    number        smallint NOT NULL,
    status        smallint NOT NULL,
    kind          smallint NOT NULL,
    reason        smallint NOT NULL,
    sent          boolean NOT NULL,
    webhook_id    text NOT NULL
) PARTITION BY RANGE (day);
COMMENT ON COLUMN attempts.day IS 'The server''s clock: a client''s clock that jumps cannot miss its partition.';
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;
-- Eight bytes stand for an id of thirty: a third of the index, and of its cost to the writer.
CREATE INDEX attempts_webhook_id ON attempts (hashtextextended(webhook_id, 0));
CREATE INDEX attempts_endpoint_at ON attempts (endpoint_id, at);
-- What failed at an endpoint that hardly ever fails: few rows, and a second to find without it.
CREATE INDEX attempts_failed ON attempts (endpoint_id, at) WHERE reason <> 1;

CREATE TABLE bodies (
    topic_id   int NOT NULL,
    partition  int NOT NULL,
    "offset"   bigint NOT NULL,
    webhook_id text NOT NULL,
    type_id    int NOT NULL,
    version    text NOT NULL,
    timestamp  text NOT NULL,
    shape      smallint NOT NULL,
    headers    bytea NOT NULL,
    body       bytea NOT NULL,
    tenant     text,
    PRIMARY KEY (topic_id, partition, "offset")
);
CREATE INDEX bodies_webhook_id ON bodies (hashtextextended(webhook_id, 0));
COMMENT ON TABLE bodies IS 'The event of every position that is owed or dead, once however many endpoints it is owed to.';

CREATE TABLE deliveries (
    topic_id     int NOT NULL,
    partition    int NOT NULL,
    "offset"     bigint NOT NULL,
    endpoint_id  int NOT NULL,
    state        smallint NOT NULL,
    reason       smallint NOT NULL,
    status       smallint NOT NULL DEFAULT 0,
    attempts     smallint NOT NULL DEFAULT 0,
    cycle_start  smallint NOT NULL DEFAULT 0,
    request      smallint,
    request_no   bigint,
    version      bigint NOT NULL DEFAULT 1,
    due          timestamptz NOT NULL,
    since        timestamptz NOT NULL DEFAULT now(),
    changed_at   timestamptz NOT NULL DEFAULT now(),
    tenant       text,
    PRIMARY KEY (topic_id, partition, "offset", endpoint_id)
);
COMMENT ON COLUMN deliveries.state IS '1 owed, 2 dead letter.';
COMMENT ON COLUMN deliveries.request IS 'What an operator asked (1 retry, 2 discard); taken up by the partition''s owner.';
CREATE INDEX deliveries_due ON deliveries (topic_id, partition, endpoint_id, due) WHERE state = 1;
CREATE INDEX deliveries_endpoint ON deliveries (endpoint_id, state, due);
CREATE INDEX deliveries_request ON deliveries (topic_id, partition) WHERE request IS NOT NULL;
CREATE SEQUENCE request_numbers;

CREATE TABLE backlog (
    topic_id     int NOT NULL,
    partition    int NOT NULL,
    endpoint_id  int NOT NULL,
    owed         bigint NOT NULL DEFAULT 0,
    dead         bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (topic_id, partition, endpoint_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE backlog IS 'How many rows deliveries holds, by state: kept in the same transactions, by the partition''s owner.';

CREATE TABLE held_ranges (
    topic_id      int NOT NULL,
    partition     int NOT NULL,
    endpoint_id   int NOT NULL,
    start_offset  bigint NOT NULL,
    end_offset    bigint NOT NULL,
    since         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic_id, partition, endpoint_id, start_offset)
) WITH (fillfactor = 50);
COMMENT ON TABLE held_ranges IS 'Owed without a row: what of these offsets routes to the endpoint is read again from Kafka once there is room.';

CREATE TABLE quarantine (
    topic_id    int NOT NULL,
    partition   int NOT NULL,
    "offset"    bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    reason      smallint NOT NULL,
    detail      text NOT NULL,
    key         bytea,
    value       bytea,
    value_bytes bigint NOT NULL,
    headers     bytea,
    PRIMARY KEY (topic_id, partition, "offset")
);

CREATE TABLE reasons (
    id   smallint PRIMARY KEY,
    name text NOT NULL UNIQUE
);
COMMENT ON TABLE reasons IS 'The names of the numbers in attempts, deliveries and quarantine; filled by migrate.';
