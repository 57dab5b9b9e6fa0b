-- Grain: one row per period, group and reason for which orders were cancelled in it. Unit: orders, and their share
-- (0 to 1) of all that were cancelled in that period and group.
WITH
    '' AS everything,
    -- One row per order cancelled in [from, to).
    cancelled AS
    (
        SELECT
            cancelled_at,
            currency,
            country,
            if(state = '', country, concat(country, '-', state)) AS region,
            shipping_method,
            cancellation_reason AS reason,
            paid_at
        FROM oms.order_summaries FINAL
        WHERE cancelled_at >= {from:DateTime64(6, 'UTC')} AND cancelled_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(cancelled_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    reason,
    count() AS orders,
    countIf(paid_at IS NOT NULL) AS after_payment,
    orders / sum(orders) OVER (PARTITION BY at, {group_by:Identifier}) AS share
FROM cancelled
GROUP BY at, {group_by:Identifier}, reason
ORDER BY at, {group_by:Identifier}, orders DESC, reason
