-- A page of one customer's orders, newest first, from a position (created, order id) on. An empty filter filters nothing.
-- Grain: one row per order; `document` is empty where the order's own view is a moment behind.
WITH page AS
(
    SELECT order_id, created_at
    FROM oms.customer_orders FINAL
    WHERE customer_id = {customer_id:String}
      AND (empty({statuses:Array(String)}) OR has({statuses:Array(String)}, status))
      AND ({sku:String} = '' OR has(skus, {sku:String}))
      AND created_at >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
      AND created_at < fromUnixTimestamp64Micro({to_us:Int64}, 'UTC')
      AND (created_at, order_id) < (fromUnixTimestamp64Micro({before_us:Int64}, 'UTC'), {before_id:String})
    ORDER BY created_at DESC, order_id DESC
    LIMIT {limit:UInt32}
)
SELECT page.order_id AS order_id, toUnixTimestamp64Micro(page.created_at) AS created_us, found.document AS document
FROM page
LEFT JOIN
(
    SELECT order_id, document
    FROM oms.orders FINAL
    WHERE order_id IN (SELECT order_id FROM page)
) AS found ON found.order_id = page.order_id
ORDER BY page.created_at DESC, page.order_id DESC
