-- Grain: one row per period, group and status that orders left in it. Unit: seconds that an order was in the status.
WITH
    '' AS everything,
    -- One row per order and status that it has left, when it left it (the last time), and how long it was in it (all
    -- stays together). The status in which it is now is left out, also where it has been in it before.
    times AS
    (
        SELECT
            currency,
            country,
            if(state = '', country, concat(country, '-', state)) AS region,
            shipping_method,
            status,
            ended,
            micros
        FROM oms.order_summaries FINAL
        ARRAY JOIN left_statuses AS status, left_at AS ended, stayed AS micros
    )
SELECT
    period_start(ended, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    status,
    count() AS orders,
    avg(micros) / 1e6 AS mean,
    quantilesExactInclusive(0.5, 0.95)(micros)[1] / 1e6 AS p50,
    quantilesExactInclusive(0.5, 0.95)(micros)[2] / 1e6 AS p95
FROM times
WHERE is_within(ended, {from:DateTime64(6, 'UTC')}, {to:DateTime64(6, 'UTC')})
GROUP BY at, {group_by:Identifier}, status
ORDER BY
    at,
    {group_by:Identifier},
    indexOf(
        [
            'DRAFT', 'PENDING_PAYMENT', 'PAYMENT_CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED', 'REFUND_REQUESTED',
            'REFUNDED', 'CANCELLED'
        ],
        status
    )
