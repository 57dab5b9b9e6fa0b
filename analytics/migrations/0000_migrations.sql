-- Run at every start, before the others are looked at: which migrations have been applied.
CREATE DATABASE IF NOT EXISTS oms;

CREATE TABLE IF NOT EXISTS oms.migrations
(
    name       String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY name;
