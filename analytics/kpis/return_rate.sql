-- Grain: one row per period and group, the orders delivered in it. Unit: orders, and the share (0 to 1) of them of which
-- something was sent back.
WITH
    '' AS everything,
    -- One row per order delivered in [from, to).
    delivered AS
    (
        SELECT
            delivered_at,
            currency,
            country,
            if(state = '', country, concat(country, '-', state)) AS region,
            shipping_method,
            returns AS rmas,
            units - cancelled_units AS units_delivered,
            returned_units AS units_back
        FROM oms.order_summaries FINAL
        WHERE delivered_at >= {from:DateTime64(6, 'UTC')} AND delivered_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(delivered_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    count() AS delivered,
    countIf(rmas > 0) AS with_return,
    sum(rmas) AS returns,
    sum(units_delivered) AS units,
    sum(units_back) AS returned_units,
    with_return / delivered AS return_rate,
    if(units = 0, NULL, returned_units / units) AS unit_return_rate
FROM delivered
GROUP BY at, {group_by:Identifier}
ORDER BY at, {group_by:Identifier}
