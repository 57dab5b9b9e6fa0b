-- One row per message about an exception: opened, retried, resolved. An exception is open when the newest of its
-- opened and resolved messages opened it.
CREATE TABLE IF NOT EXISTS oms.exceptions
(
    exception_id String,
    message_id   String CODEC(ZSTD),
    version      UInt64,                                      -- the broker's milliseconds: the order of the messages
    what         LowCardinality(String),                      -- opened | retried | resolved
    order_id     String,
    kind         LowCardinality(String) DEFAULT '',
    owner        LowCardinality(String) DEFAULT '',
    detail       String DEFAULT '' CODEC(ZSTD),
    facts        Map(String, String),
    retry_topic  LowCardinality(String) DEFAULT '',
    retry_key    String DEFAULT '',
    retry        String DEFAULT '' CODEC(ZSTD),               -- base64 of the message that a retry sends again
    resolution   String DEFAULT '' CODEC(ZSTD),
    actor        String CODEC(ZSTD),
    at           DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    appended_at  DateTime64(3, 'UTC') CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (exception_id, message_id)
TTL toDateTime(appended_at) + INTERVAL 7 YEAR
SETTINGS index_granularity = 512;

-- One row per message to a customer, by event and channel: sent, skipped or failed. No address is in here.
CREATE TABLE IF NOT EXISTS oms.notifications
(
    order_id    String,
    event_id    String,
    channel     LowCardinality(String),
    version     UInt64,                                       -- the broker's milliseconds
    kind        LowCardinality(String),                       -- the template
    outcome     LowCardinality(String),                       -- sent | skipped | failed
    message_id  String DEFAULT '' CODEC(ZSTD),
    detail      String DEFAULT '' CODEC(ZSTD),                -- why it was skipped or failed
    at          DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    appended_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (order_id, event_id, channel)
TTL toDateTime(appended_at) + INTERVAL 7 YEAR
SETTINGS index_granularity = 512;
