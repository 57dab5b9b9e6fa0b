-- How long an order was in each status that it has left, reckoned when its row is written and not whenever somebody asks
-- (docs/decisions/0022-kpis.md). Three arrays in step, one entry per status that the order has been in and is not in now:
-- `left_at` is when it left it for the last time, `stayed` the microseconds that all its stays took. The sink writes
-- them; the defaults are for the rows that were there before.
ALTER TABLE oms.order_summaries
    ADD COLUMN IF NOT EXISTS left_statuses Array(LowCardinality(String))
        DEFAULT arrayFilter(status -> status != statuses[-1], arrayDistinct(statuses)),
    ADD COLUMN IF NOT EXISTS left_at Array(DateTime64(6, 'UTC'))
        DEFAULT arrayMap(
            found -> arrayMax(
                (status, until) -> if(status = found, until, toDateTime64(0, 6, 'UTC')),
                arrayPopBack(statuses),
                arrayPopFront(entered)
            ),
            left_statuses
        ) CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS stayed Array(Int64)
        DEFAULT arrayMap(
            found -> arraySum(
                (status, since, until) -> if(status = found, dateDiff('microsecond', since, until), 0),
                arrayPopBack(statuses),
                arrayPopBack(entered),
                arrayPopFront(entered)
            ),
            left_statuses
        ) CODEC(ZSTD);

ALTER TABLE oms.order_summaries
    MATERIALIZE COLUMN left_statuses,
    MATERIALIZE COLUMN left_at,
    MATERIALIZE COLUMN stayed;

-- Rows of customer_orders are the same as those. Nobody asks them this, so that its old ones may stay empty.
ALTER TABLE oms.customer_orders
    ADD COLUMN IF NOT EXISTS left_statuses Array(LowCardinality(String)),
    ADD COLUMN IF NOT EXISTS left_at Array(DateTime64(6, 'UTC')) CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS stayed Array(Int64) CODEC(ZSTD);

-- Whether `at` lies in [since, until), where 1970 and 2100 are no bounds: what is asked of all time need not be read.
CREATE FUNCTION IF NOT EXISTS is_within AS (at, since, until) ->
    (since <= toDateTime64(0, 6, 'UTC') OR at >= since)
    AND (until >= toDateTime64('2100-01-01 00:00:00', 6, 'UTC') OR at < until);
