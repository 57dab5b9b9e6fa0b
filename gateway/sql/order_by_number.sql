-- The id of the order with this number (the middle of an RMA). A number never changes, so no FINAL. Grain: one row, or none.
SELECT order_id
FROM oms.orders
WHERE number = {number:String}
LIMIT 1
