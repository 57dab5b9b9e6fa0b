-- Several orders as they are now. Grain: one row per order that there is.
SELECT order_id, version, document
FROM oms.orders
WHERE order_id IN {order_ids:Array(String)}
ORDER BY version DESC
LIMIT 1 BY order_id
