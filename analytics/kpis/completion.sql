-- Grain: one row per period and group, the orders submitted in it. Unit: orders, and their share (0 to 1) of the
-- submitted ones.
WITH
    '' AS everything,
    -- One row per order submitted in [from, to).
    submitted AS
    (
        SELECT
            submitted_at,
            currency,
            country,
            if(state = '', country, concat(country, '-', state)) AS region,
            shipping_method,
            status,
            paid_at,
            delivered_at
        FROM oms.order_summaries FINAL
        WHERE submitted_at >= {from:DateTime64(6, 'UTC')} AND submitted_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(submitted_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    count() AS submitted,
    countIf(paid_at IS NOT NULL) AS paid,
    countIf(delivered_at IS NOT NULL) AS delivered,
    countIf(status = 'CANCELLED') AS cancelled,
    submitted - delivered - cancelled AS under_way,
    paid / submitted AS paid_rate,
    delivered / submitted AS delivered_rate
FROM submitted
GROUP BY at, {group_by:Identifier}
ORDER BY at, {group_by:Identifier}
