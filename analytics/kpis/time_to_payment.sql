-- Grain: one row, the orders paid in the period. Unit: seconds from submission to payment.
WITH
    -- One row per order that was ever paid: when it was submitted, when paid.
    milestones AS
    (
        SELECT
            order_id,
            minIf(occurred_at, type = 'OrderSubmitted') AS submitted_at,
            minIf(occurred_at, type = 'OrderPaymentConfirmed') AS paid_at
        FROM oms.order_events FINAL
        WHERE type IN ('OrderSubmitted', 'OrderPaymentConfirmed')
        GROUP BY order_id
        HAVING countIf(type = 'OrderSubmitted') > 0 AND countIf(type = 'OrderPaymentConfirmed') > 0
    ),
    -- One row per order paid in the period.
    waits AS
    (
        SELECT dateDiff('microsecond', submitted_at, paid_at) / 1e6 AS seconds
        FROM milestones
        WHERE paid_at >= {from:DateTime64(6, 'UTC')} AND paid_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    count() AS orders,
    if(orders = 0, NULL, quantileExactInclusive(0.5)(seconds)) AS p50,
    if(orders = 0, NULL, quantileExactInclusive(0.95)(seconds)) AS p95
FROM waits
