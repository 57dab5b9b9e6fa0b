-- How many of one customer's orders match. Grain: one row.
SELECT count() AS orders
FROM oms.customer_orders FINAL
WHERE customer_id = {customer_id:String}
  AND
-- include order_filters
