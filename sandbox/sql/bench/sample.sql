-- Orders to ask for, drawn by their ids' hash: about {wanted} of them. Grain: one row per order.
SELECT order_id, number, customer_id
FROM oms.order_summaries
WHERE cityHash64(order_id) % greatest(1, intDiv((SELECT count() FROM oms.order_summaries), {wanted:UInt32})) = 0
LIMIT 1 BY order_id
LIMIT {wanted:UInt32}
