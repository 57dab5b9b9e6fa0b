-- Grain: one row per period, group and status in which orders are stuck now. Unit: orders.
WITH
    '' AS everything,
    -- One row per order created in [from, to) that has not moved for too long, and since when it is where it is.
    stuck_now AS
    (
        SELECT
            created_at,
            currency,
            country,
            if(state = '', country, concat(country, '-', state)) AS region,
            shipping_method,
            stuck AS status,
            dateDiff('microsecond', entered[-1], {now:DateTime64(6, 'UTC')}) / 1e6 AS seconds
        FROM oms.order_summaries FINAL
        WHERE stuck != '' AND created_at >= {from:DateTime64(6, 'UTC')} AND created_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(created_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    status,
    count() AS orders,
    max(seconds) AS longest
FROM stuck_now
GROUP BY at, {group_by:Identifier}, status
ORDER BY at, {group_by:Identifier}, orders DESC, status
