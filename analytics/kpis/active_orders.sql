-- Grain: one row per period, group and status in which orders of that period are now, from submission to delivery.
-- Unit: orders.
WITH
    '' AS everything,
    -- One row per order created in [from, to) that is under way.
    active AS
    (
        SELECT
            created_at,
            currency,
            country,
            if(state = '', country, concat(country, '-', state)) AS region,
            shipping_method,
            status
        FROM oms.order_summaries FINAL
        WHERE status IN ('PENDING_PAYMENT', 'PAYMENT_CONFIRMED', 'PROCESSING', 'SHIPPED')
          AND created_at >= {from:DateTime64(6, 'UTC')} AND created_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(created_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    status,
    count() AS orders
FROM active
GROUP BY at, {group_by:Identifier}, status
ORDER BY
    at,
    {group_by:Identifier},
    indexOf(['PENDING_PAYMENT', 'PAYMENT_CONFIRMED', 'PROCESSING', 'SHIPPED'], status)
