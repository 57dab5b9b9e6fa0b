-- Everybody's orders by something that changes ({by}: total or updated_at), upwards or {down}, from a position (key, order
-- id) on. gateway/search.py says how pages are made.
-- Grain: one row per candidate order. key: minor units or microseconds; reached: that of its last row among the
-- candidates; matches: whether its newest version does.
WITH
-- Rows that match, older versions too, in the order asked for.
candidates AS
(
    SELECT
        created_at,
        order_id,
        if({by:String} = 'total', total, toUnixTimestamp64Micro(updated_at)) AS row_key
    FROM oms.order_summaries
    WHERE if({down:Bool}, (row_key, order_id) < ({key:Int64}, {order_id:String}),
                         (row_key, order_id) > ({key:Int64}, {order_id:String}))
      AND
-- include order_filters
    ORDER BY if({down:Bool}, -row_key, row_key), if({down:Bool}, '', order_id), if({down:Bool}, order_id, '') DESC
    LIMIT {candidates:UInt32}
),
-- One row per candidate order.
found AS
(
    SELECT order_id, if({down:Bool}, min(row_key), max(row_key)) AS reached
    FROM candidates
    GROUP BY order_id
),
-- One row per candidate order: its newest version.
newest AS
(
    SELECT *
    FROM oms.order_summaries
    WHERE (created_at, order_id) IN (SELECT created_at, order_id FROM candidates)
    ORDER BY version DESC
    LIMIT 1 BY order_id
)
SELECT
    order_id,
    if({by:String} = 'total', total, toUnixTimestamp64Micro(updated_at)) AS key,
    found.reached AS reached,
    (
-- include order_filters
    ) AS matches
FROM newest
INNER JOIN found USING (order_id)
