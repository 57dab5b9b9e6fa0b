-- One order as it is now. Not FINAL: that would read every document under the key (docs/decisions/0023).
-- Grain: one row, or none.
SELECT order_id, version, document
FROM oms.orders
WHERE order_id = {order_id:String}
ORDER BY version DESC
LIMIT 1
SETTINGS max_threads = 1
