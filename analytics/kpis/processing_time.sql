-- Grain: one row per period and group, the orders delivered in it. Unit: seconds from submission to delivery.
WITH
    '' AS everything,
    -- One row per order delivered in [from, to).
    delivered AS
    (
        SELECT
            delivered_at,
            country,
            if(state = '', country, concat(country, '-', state)) AS region,
            shipping_method,
            dateDiff('microsecond', submitted_at, delivered_at) / 1e6 AS seconds
        FROM oms.order_summaries FINAL
        WHERE delivered_at >= {from:DateTime64(6, 'UTC')} AND delivered_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(delivered_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    count() AS orders,
    avg(seconds) AS mean,
    quantilesExactInclusive(0.5, 0.95)(seconds)[1] AS p50,
    quantilesExactInclusive(0.5, 0.95)(seconds)[2] AS p95,
    countIf(seconds < 3 * 86400) / orders AS within_three_days
FROM delivered
GROUP BY at, {group_by:Identifier}
ORDER BY at, {group_by:Identifier}
