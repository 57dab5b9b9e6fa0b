-- Grain: three kinds of rows in one pass over all orders, told apart by `kind`: per status and cancellation reason; per
-- bucket of processing time; per currency and bucket of order value. A bucket is a position in the list of bounds, 0 is
-- beyond the last. Unit: orders; seconds and minor units in the sums.
WITH
    -- One row per order. `bucket` columns are -1 where there is nothing to measure: not delivered, not submitted.
    orders AS
    (
        SELECT
            status,
            cancellation_reason AS reason,
            currency,
            total,
            if(delivered_at IS NULL, 0, dateDiff('microsecond', submitted_at, delivered_at) / 1e6) AS seconds,
            total / transform(currency, {currencies:Array(String)}, {minor_units:Array(Float64)}, 100.0) AS value,
            if(
                delivered_at IS NULL,
                -1,
                toInt16(arrayFirstIndex(bound -> seconds <= bound, {duration_bounds:Array(Float64)}))
            ) AS duration_bucket,
            if(
                submitted_at IS NULL,
                -1,
                toInt16(arrayFirstIndex(bound -> value <= bound, {value_bounds:Array(Float64)}))
            ) AS value_bucket
        FROM oms.order_summaries FINAL
    )
SELECT
    multiIf(grouping(status) = 0, 'status', grouping(currency) = 0, 'value', 'duration') AS kind,
    status,
    reason,
    currency,
    if(kind = 'value', value_bucket, duration_bucket) AS bucket,
    count() AS orders,
    if(kind = 'value', toFloat64(sum(total)), sum(seconds)) AS sum
FROM orders
GROUP BY GROUPING SETS ((status, reason), (duration_bucket), (currency, value_bucket))
