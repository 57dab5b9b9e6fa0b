-- Grain: one row, the period. Unit: orders.
WITH
    -- One row per order created in the period.
    created AS
    (
        SELECT order_id, JSONExtractString(data, 'customer_id') AS customer_id
        FROM oms.order_events FINAL
        WHERE type = 'OrderCreated'
          AND occurred_at >= {from:DateTime64(6, 'UTC')} AND occurred_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    count() AS orders,
    uniqExact(customer_id) AS customers
FROM created
