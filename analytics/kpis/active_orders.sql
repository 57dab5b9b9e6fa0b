-- Grain: one row per status in which orders are now, without the final ones. Unit: orders.
WITH
    -- One row per order created in the period that is under way.
    active AS
    (
        SELECT order_id, status
        FROM oms.orders FINAL
        WHERE status NOT IN ('DELIVERED', 'CANCELLED', 'REFUNDED')
          AND created_at >= {from:DateTime64(6, 'UTC')} AND created_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    status,
    count() AS orders
FROM active
GROUP BY status
ORDER BY
    indexOf(['DRAFT', 'PENDING_PAYMENT', 'PAYMENT_CONFIRMED', 'PROCESSING', 'SHIPPED', 'REFUND_REQUESTED'], status),
    status
