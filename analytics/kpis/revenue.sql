-- Grain: one row per period, group and currency in which orders were paid. Unit: minor units of that currency.
WITH
    '' AS everything,
    -- One row per order paid in [from, to).
    paid AS
    (
        SELECT
            paid_at,
            country,
            if(state = '', country, concat(country, '-', state)) AS region,
            shipping_method,
            currency,
            captured AS taken,
            refunded AS given_back
        FROM oms.order_summaries FINAL
        WHERE paid_at >= {from:DateTime64(6, 'UTC')} AND paid_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(paid_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    currency,
    count() AS orders,
    sum(taken) AS captured,
    sum(given_back) AS refunded,
    captured - refunded AS net
FROM paid
GROUP BY at, {group_by:Identifier}, currency
ORDER BY at, {group_by:Identifier}, orders DESC, currency
