-- Grain: one row per currency in which orders were paid. Unit: minor units of that currency.
WITH
    -- One row per order that was ever paid: when, how much, in which currency.
    payments AS
    (
        SELECT
            order_id,
            anyIf(JSONExtractString(data, 'currency'), type = 'OrderCreated') AS currency,
            minIf(occurred_at, type = 'OrderPaymentConfirmed') AS paid_at,
            sumIf(JSONExtractInt(data, 'amount'), type = 'OrderPaymentConfirmed') AS amount
        FROM oms.order_events FINAL
        WHERE type IN ('OrderCreated', 'OrderPaymentConfirmed')
        GROUP BY order_id
        HAVING countIf(type = 'OrderPaymentConfirmed') > 0
    ),
    -- One row per order paid in the period.
    paid AS
    (
        SELECT currency, amount
        FROM payments
        WHERE paid_at >= {from:DateTime64(6, 'UTC')} AND paid_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    currency,
    count() AS orders,
    sum(amount) AS revenue,
    toInt64(round(revenue / orders)) AS average_order_value
FROM paid
GROUP BY currency
ORDER BY orders DESC, currency
