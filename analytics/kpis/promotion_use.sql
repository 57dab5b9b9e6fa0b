-- Grain: one row per period, group, promotion and currency in which orders that use it were paid (an order with two
-- promotions counts in both). Unit: orders, and minor units of that currency.
WITH
    '' AS everything,
    -- One row per order paid in [from, to) and promotion that it uses.
    used AS
    (
        SELECT
            paid_at,
            country,
            if(state = '', country, concat(country, '-', state)) AS region,
            promo_code,
            currency,
            customer_id,
            total,
            discount AS off
        FROM oms.order_summaries FINAL
        ARRAY JOIN promo_codes AS promo_code
        WHERE paid_at >= {from:DateTime64(6, 'UTC')} AND paid_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(paid_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    promo_code,
    currency,
    count() AS orders,
    uniqExact(customer_id) AS customers,
    sum(total) AS revenue,
    sum(off) AS discount
FROM used
GROUP BY at, {group_by:Identifier}, promo_code, currency
ORDER BY at, {group_by:Identifier}, orders DESC, promo_code, currency
