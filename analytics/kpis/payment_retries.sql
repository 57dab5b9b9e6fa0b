-- Grain: one row per period and group, the orders submitted in it that asked for a payment. Unit: orders, and shares
-- (0 to 1) of them.
WITH
    '' AS everything,
    -- One row per order submitted in [from, to) that asked for a payment.
    asked AS
    (
        SELECT
            submitted_at,
            currency,
            country,
            payment_attempts,
            payment_declines,
            paid_at IS NOT NULL AS is_paid
        FROM oms.order_summaries FINAL
        WHERE payment_attempts > 0
          AND submitted_at >= {from:DateTime64(6, 'UTC')} AND submitted_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(submitted_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    count() AS orders,
    sum(payment_attempts) AS attempts,
    countIf(is_paid AND payment_attempts = 1) AS paid_at_once,
    countIf(payment_attempts > 1) AS retried,
    countIf(is_paid AND payment_attempts > 1) AS paid_by_retry,
    countIf(NOT is_paid AND payment_declines > 0) AS lost,
    paid_at_once / orders AS paid_at_once_rate,
    if(retried = 0, NULL, paid_by_retry / retried) AS retry_success_rate,
    attempts / orders AS attempts_per_order
FROM asked
GROUP BY at, {group_by:Identifier}
ORDER BY at, {group_by:Identifier}
