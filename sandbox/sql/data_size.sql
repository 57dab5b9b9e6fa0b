-- How many orders there are.
SELECT uniqExact(order_id) FROM oms.orders
