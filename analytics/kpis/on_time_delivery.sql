-- Grain: one row per period and group, the orders delivered in it that had a promise. Unit: orders, and the share (0 to 1)
-- of them that came on the promised day or before.
WITH
    '' AS everything,
    -- One row per order delivered in [from, to), and how many days after the promised one, on the clocks of the time zone.
    delivered AS
    (
        SELECT
            delivered_at,
            country,
            if(state = '', country, concat(country, '-', state)) AS region,
            shipping_method,
            dateDiff('day', promised_delivery, toDate(delivered_at, {tz:String})) AS days_late
        FROM oms.order_summaries FINAL
        WHERE promised_delivery IS NOT NULL
          AND delivered_at >= {from:DateTime64(6, 'UTC')} AND delivered_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(delivered_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    count() AS orders,
    countIf(days_late <= 0) AS on_time,
    countIf(days_late > 0) AS late,
    on_time / orders AS on_time_rate,
    if(late = 0, NULL, avgIf(days_late, days_late > 0)) AS mean_days_late
FROM delivered
GROUP BY at, {group_by:Identifier}
ORDER BY at, {group_by:Identifier}
