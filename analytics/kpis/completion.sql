-- Grain: one row, the orders submitted in the period. Unit: orders, and their share (0 to 1) of the submitted ones.
WITH
    -- One row per order that was ever submitted: when, and how far it came (whenever that was).
    milestones AS
    (
        SELECT
            order_id,
            minIf(occurred_at, type = 'OrderSubmitted') AS submitted_at,
            countIf(type = 'OrderPaymentConfirmed') > 0 AS is_paid,
            countIf(type = 'OrderDelivered') > 0 AS is_delivered
        FROM oms.order_events FINAL
        WHERE type IN ('OrderSubmitted', 'OrderPaymentConfirmed', 'OrderDelivered')
        GROUP BY order_id
        HAVING countIf(type = 'OrderSubmitted') > 0
    ),
    -- One row per order submitted in the period.
    cohort AS
    (
        SELECT is_paid, is_delivered
        FROM milestones
        WHERE submitted_at >= {from:DateTime64(6, 'UTC')} AND submitted_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    count() AS submitted,
    countIf(is_paid) AS paid,
    countIf(is_delivered) AS delivered,
    if(submitted = 0, NULL, paid / submitted) AS paid_rate,
    if(submitted = 0, NULL, delivered / submitted) AS delivered_rate
FROM cohort
