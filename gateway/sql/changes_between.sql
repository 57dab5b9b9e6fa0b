-- A page of the orders to which something happened after {from_us} and until {to_us}, the last changed first, from a
-- position (changed, order id) on. Grain: one row per order; `_before` is as of {from_us} (status '' and version 0 when
-- there was no such order yet), `_after` as of {to_us}. Totals in minor units of the currency, NULL where no event in
-- the view says one.
WITH
-- The audit log has every event by its time, the timeline only by its order. Repeated rows change no maximum.
changed AS
(
    SELECT subject_id AS order_id, max(at) AS changed_at
    FROM oms.audit
    WHERE subject = 'order'
      AND at > fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
      AND at <= fromUnixTimestamp64Micro({to_us:Int64}, 'UTC')
    GROUP BY subject_id
    HAVING (changed_at, order_id) < (fromUnixTimestamp64Micro({before_us:Int64}, 'UTC'), {before_id:String})
    ORDER BY changed_at DESC, order_id DESC
    LIMIT {limit:UInt32}
),
-- One row per event of these orders, up to the end of the period.
happened AS
(
    SELECT order_id, version, type, total, occurred_at, occurred_at <= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC') AS earlier
    FROM oms.order_events
    WHERE order_id IN (SELECT order_id FROM changed)
      AND occurred_at <= fromUnixTimestamp64Micro({to_us:Int64}, 'UTC')
    LIMIT 1 BY order_id, version
),
-- One row per order.
figures AS
(
    SELECT
        order_id,
        max(occurred_at) AS changed_at,
        maxIf(version, earlier) AS version_before,
        max(version) AS version_after,
        argMaxIf(total, version, earlier) AS total_before,
        argMax(total, version) AS total_after,
        arrayMap(event -> event.2, arraySort(groupArrayIf((version, type), NOT earlier))) AS types
    FROM happened
    GROUP BY order_id
),
-- The newest row of each order: it knows the order's whole way through the statuses.
newest AS
(
    SELECT
        order_id, number, customer_id, currency,
        statuses[arrayLastIndex(since -> since <= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC'), entered)] AS status_before,
        statuses[arrayLastIndex(since -> since <= fromUnixTimestamp64Micro({to_us:Int64}, 'UTC'), entered)] AS status_after
    FROM oms.order_summaries
    WHERE (created_at, order_id) IN
        (SELECT created_at, order_id FROM oms.orders WHERE order_id IN (SELECT order_id FROM changed))
    ORDER BY version DESC
    LIMIT 1 BY order_id
)
SELECT
    figures.order_id AS order_id, number, customer_id, currency, toUnixTimestamp64Micro(changed_at) AS changed_us,
    status_before, status_after, version_before, version_after, total_before, total_after, types
FROM figures
INNER JOIN newest ON newest.order_id = figures.order_id
ORDER BY changed_at DESC, order_id DESC
