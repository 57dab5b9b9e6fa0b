-- Grain: one row per period, group and currency in which orders were paid. Unit: minor units of that currency, and shares
-- (0 to 1) of the orders and of what they would have cost.
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
            subtotal AS goods,
            discount AS off,
            promo_codes
        FROM oms.order_summaries FINAL
        WHERE paid_at >= {from:DateTime64(6, 'UTC')} AND paid_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(paid_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    currency,
    count() AS orders,
    countIf(notEmpty(promo_codes)) AS with_promotion,
    with_promotion / orders AS promotion_rate,
    sum(goods) AS subtotal,
    sum(off) AS discount,
    if(subtotal = 0, NULL, discount / subtotal) AS discount_rate
FROM paid
GROUP BY at, {group_by:Identifier}, currency
ORDER BY at, {group_by:Identifier}, orders DESC, currency
