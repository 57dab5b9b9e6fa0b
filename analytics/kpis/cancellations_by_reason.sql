-- Grain: one row per cancellation reason that occurred. Unit: orders, and their share (0 to 1) of all cancelled ones.
WITH
    -- One row per order cancelled in the period.
    cancelled AS
    (
        SELECT order_id, JSONExtractString(data, 'reason') AS reason
        FROM oms.order_events FINAL
        WHERE type = 'OrderCancelled'
          AND occurred_at >= {from:DateTime64(6, 'UTC')} AND occurred_at < {to:DateTime64(6, 'UTC')}
    ),
    -- One row per reason.
    by_reason AS
    (
        SELECT reason, count() AS orders
        FROM cancelled
        GROUP BY reason
    )
SELECT
    reason,
    orders,
    orders / sum(orders) OVER () AS share
FROM by_reason
ORDER BY orders DESC, reason
