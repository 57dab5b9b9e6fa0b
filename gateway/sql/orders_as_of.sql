-- A page of all orders as they were at a time, newest first, from a position (created, order id) on. No statuses: any.
-- Grain: one row per order that may be one of these; `matches` tells whether it is (a row that a newer one has replaced
-- may have brought it here). Totals in minor units of the currency, NULL where no event in the view says one.
WITH
-- Orders of the page, out of whatever rows there are of them: in the key's order, so that it stops when it has enough.
candidates AS
(
    SELECT created_at, order_id
    FROM oms.order_summaries
    WHERE created_at <= fromUnixTimestamp64Micro({as_of_us:Int64}, 'UTC')
      AND (created_at, order_id) < (fromUnixTimestamp64Micro({before_us:Int64}, 'UTC'), {before_id:String})
      AND (empty({statuses:Array(String)}) OR has({statuses:Array(String)},
          statuses[arrayLastIndex(since -> since <= fromUnixTimestamp64Micro({as_of_us:Int64}, 'UTC'), entered)]))
    ORDER BY created_at DESC, order_id DESC
    LIMIT 1 BY created_at, order_id
    LIMIT {limit:UInt32}
),
-- The newest row of each: it knows the order's whole way through the statuses.
newest AS
(
    SELECT
        order_id, number, customer_id, currency, created_at,
        statuses[arrayLastIndex(since -> since <= fromUnixTimestamp64Micro({as_of_us:Int64}, 'UTC'), entered)] AS status_then
    FROM oms.order_summaries
    WHERE (created_at, order_id) IN (SELECT created_at, order_id FROM candidates)
    ORDER BY version DESC
    LIMIT 1 BY order_id
),
-- One row per order: its version, and what the last event that priced it said. Repeated rows change neither.
figures AS
(
    SELECT order_id, max(version) AS version_then, argMax(total, version) AS total_then
    FROM oms.order_events
    WHERE order_id IN (SELECT order_id FROM candidates)
      AND occurred_at <= fromUnixTimestamp64Micro({as_of_us:Int64}, 'UTC')
    GROUP BY order_id
)
SELECT
    newest.order_id AS order_id, number, customer_id, currency, toUnixTimestamp64Micro(created_at) AS created_us,
    status_then, version_then, total_then,
    empty({statuses:Array(String)}) OR has({statuses:Array(String)}, status_then) AS matches
FROM newest
LEFT JOIN figures ON figures.order_id = newest.order_id
ORDER BY created_at DESC, order_id DESC
