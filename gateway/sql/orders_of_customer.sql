-- One customer's orders by created_at, updated_at or total ({by}), upwards or {down}, from a position (key, order id) on.
-- They are few, and lie together: each one's newest version is looked at.
-- Grain: one row per order that matches. key: minor units or microseconds.
WITH
-- One row per order of the customer.
theirs AS
(
    SELECT *
    FROM oms.customer_orders
    WHERE customer_id = {customer_id:String}
    ORDER BY version DESC
    LIMIT 1 BY order_id
)
SELECT order_id, reinterpretAsInt64({by:Identifier}) AS key
FROM theirs
WHERE if({down:Bool}, (key, order_id) < ({key:Int64}, {order_id:String}), (key, order_id) > ({key:Int64}, {order_id:String}))
  AND
-- include order_filters
ORDER BY if({down:Bool}, -key, key), if({down:Bool}, '', order_id), if({down:Bool}, order_id, '') DESC
LIMIT {wanted:UInt32}
SETTINGS max_threads = 1
