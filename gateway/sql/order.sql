-- One order as it is now. Grain: one row, or none.
SELECT order_id, version, document
FROM oms.orders FINAL
WHERE order_id = {order_id:String}
