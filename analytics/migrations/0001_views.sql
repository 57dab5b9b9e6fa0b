-- The views that the sink fills. Every table is a Replacing one, keyed by what a row is about and versioned by the
-- order's version, so that a batch that is written twice, or late by a zombie, changes nothing under FINAL.
--
-- No PARTITION BY: an insert that straddles partition keys is not atomic (a crash leaves half of it).
-- TTL counts from the time the broker appended the message, as the topics' retention does: an imported order of
-- years ago must not vanish at once.
-- order_events and orders are read by point lookups of wide rows, hence the small granules (docs/decisions/0008-sinks.md).

CREATE DATABASE IF NOT EXISTS oms;

CREATE DATABASE IF NOT EXISTS personal;

-- One row per event of an order: the timeline, and what the KPIs count.
CREATE TABLE IF NOT EXISTS oms.order_events
(
    order_id       String,
    version        UInt64,                                     -- 1…n without a gap
    id             String CODEC(ZSTD),
    type           LowCardinality(String),
    occurred_at    DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    actor          String CODEC(ZSTD),
    correlation_id String CODEC(ZSTD),
    causation_id   String CODEC(ZSTD),
    data           String CODEC(ZSTD),                         -- the payload as JSON; amounts in minor units
    hash           String CODEC(ZSTD),                         -- SHA-256 (hex) of the message's value on the topic
    previous_hash  String CODEC(ZSTD),                         -- the hash of the order's event before it; '' for the first
    appended_at    DateTime64(3, 'UTC') CODEC(Delta, ZSTD)     -- the broker's time
)
ENGINE = ReplacingMergeTree
ORDER BY (order_id, version)
TTL toDateTime(appended_at) + INTERVAL 7 YEAR
SETTINGS index_granularity = 512;

-- One row per order: as it is now. Amounts in minor units of the currency.
CREATE TABLE IF NOT EXISTS oms.orders
(
    order_id            String,
    version             UInt64,
    customer_id         String,
    number              String,
    status              LowCardinality(String),
    currency            LowCardinality(String),
    created_at          DateTime64(6, 'UTC'),
    submitted_at        Nullable(DateTime64(6, 'UTC')),
    updated_at          DateTime64(6, 'UTC'),
    subtotal            Int64,
    discount            Int64,
    tax                 Int64,
    shipping            Int64,
    total               Int64,
    skus                Array(String),
    cancellation_reason LowCardinality(String) DEFAULT '',
    document            String CODEC(ZSTD),                    -- the whole order as JSON; personal data sealed
    appended_at         DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(version)
ORDER BY order_id
TTL toDateTime(appended_at) + INTERVAL 7 YEAR
SETTINGS index_granularity = 32;

-- One row per order, by customer and time: order history.
CREATE TABLE IF NOT EXISTS oms.customer_orders
(
    order_id            String,
    version             UInt64,
    customer_id         String,
    number              String,
    status              LowCardinality(String),
    currency            LowCardinality(String),
    created_at          DateTime64(6, 'UTC'),
    submitted_at        Nullable(DateTime64(6, 'UTC')),
    updated_at          DateTime64(6, 'UTC'),
    subtotal            Int64,
    discount            Int64,
    tax                 Int64,
    shipping            Int64,
    total               Int64,
    skus                Array(String),
    cancellation_reason LowCardinality(String) DEFAULT '',
    appended_at         DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (customer_id, created_at, order_id)
TTL toDateTime(appended_at) + INTERVAL 7 YEAR
SETTINGS index_granularity = 1024;

-- One row per order and kind of address: the one place where personal data is in clear. DELETE FROM works here.
CREATE TABLE IF NOT EXISTS personal.addresses
(
    order_id       String,
    kind           LowCardinality(String),                     -- shipping | billing
    version        UInt64,
    customer_id    String,
    name           String,
    street_address String,
    city           String,
    state          String,
    postal_code    String,
    country        LowCardinality(String),
    appended_at    DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (order_id, kind)
TTL toDateTime(appended_at) + INTERVAL 7 YEAR;

-- How far a view has come: `offset` is the next one to read. Written after the rows it speaks of; the highest wins,
-- so that a zombie can't turn it back.
CREATE TABLE IF NOT EXISTS oms.sink_progress
(
    view      LowCardinality(String),
    topic     LowCardinality(String),
    topic_id  String,
    partition UInt32,
    offset    UInt64,
    at        DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(offset)
ORDER BY (view, topic, topic_id, partition);
