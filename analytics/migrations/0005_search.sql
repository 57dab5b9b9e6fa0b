-- What finds few orders is found without looking at all of them: a granule of 1,024 orders that can't hold the value is
-- not read (docs/decisions/0023-read-measurements.md). Parts that are there already get the indexes in the background.
ALTER TABLE oms.order_summaries
    ADD INDEX IF NOT EXISTS by_order_id order_id TYPE bloom_filter(0.001) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_number number TYPE bloom_filter(0.001) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_sku skus TYPE bloom_filter(0.001) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_promo_code promo_codes TYPE bloom_filter(0.001) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_tracking_number tracking_numbers TYPE bloom_filter(0.001) GRANULARITY 1;

ALTER TABLE oms.order_summaries
    MATERIALIZE INDEX by_order_id,
    MATERIALIZE INDEX by_number,
    MATERIALIZE INDEX by_sku,
    MATERIALIZE INDEX by_promo_code,
    MATERIALIZE INDEX by_tracking_number;

-- A part of a product's name is looked for in each name once, not in each order.
ALTER TABLE oms.order_summaries MODIFY COLUMN names Array(LowCardinality(String)) CODEC(ZSTD);
