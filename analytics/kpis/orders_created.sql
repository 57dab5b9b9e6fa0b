-- Grain: one row per period and group, the orders created in it. Unit: orders and customers.
WITH
    '' AS everything,
    -- One row per order created in [from, to).
    created AS
    (
        SELECT
            created_at,
            currency,
            country,
            if(state = '', country, concat(country, '-', state)) AS region,
            shipping_method,
            customer_id
        FROM oms.order_summaries FINAL
        WHERE created_at >= {from:DateTime64(6, 'UTC')} AND created_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(created_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    count() AS orders,
    uniqExact(customer_id) AS customers
FROM created
GROUP BY at, {group_by:Identifier}
ORDER BY at, {group_by:Identifier}
