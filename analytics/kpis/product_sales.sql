-- Grain: one row per period, group and currency in which orders were paid. Unit: units (pieces), and minor units of that
-- currency.
WITH
    '' AS everything,
    -- One row per line of an order paid in [from, to).
    sold AS
    (
        SELECT
            paid_at,
            sku,
            category,
            country,
            currency,
            order_id,
            quantity,
            if(status = 'CANCELLED', quantity - delivered, cancelled) AS units_cancelled,
            returned AS units_returned,
            line_total - discount + tax AS paid_for
        FROM oms.order_lines FINAL
        WHERE paid_at >= {from:DateTime64(6, 'UTC')} AND paid_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(paid_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    currency,
    count() AS lines,
    sum(quantity) AS units,
    sum(units_cancelled) AS cancelled_units,
    sum(units_returned) AS returned_units,
    sum(paid_for) AS revenue
FROM sold
GROUP BY at, {group_by:Identifier}, currency
ORDER BY at, {group_by:Identifier}, units DESC, currency
