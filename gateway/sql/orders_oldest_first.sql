-- Everybody's orders, the oldest first, from a position (key, order id) on. gateway/search.py says how pages are made.
-- Grain: one row per candidate order. key, reached: created in microseconds; matches: whether its newest version does.
WITH
-- Rows that match, older versions too, in the order of the table's key: reading stops when there are enough.
candidates AS
(
    SELECT created_at, order_id
    FROM oms.order_summaries
    WHERE created_at >= fromUnixTimestamp64Micro({key:Int64}, 'UTC')
      AND (created_at > fromUnixTimestamp64Micro({key:Int64}, 'UTC') OR order_id > {order_id:String})
      AND
-- include order_filters
    ORDER BY created_at, order_id
    LIMIT {candidates:UInt32}
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
    toUnixTimestamp64Micro(created_at) AS key,
    key AS reached,
    (
-- include order_filters
    ) AS matches
FROM newest
SETTINGS max_threads = 1
