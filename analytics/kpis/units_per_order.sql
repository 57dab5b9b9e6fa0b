-- Grain: one row per period and group, the orders submitted in it. Unit: units (pieces).
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
            units AS pieces,
            length(skus) AS products
        FROM oms.order_summaries FINAL
        WHERE submitted_at >= {from:DateTime64(6, 'UTC')} AND submitted_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(submitted_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    count() AS orders,
    sum(pieces) AS units,
    units / orders AS units_per_order,
    avg(products) AS products_per_order
FROM submitted
GROUP BY at, {group_by:Identifier}
ORDER BY at, {group_by:Identifier}
