-- Which orders were there at {as_of}, and how did they stand?
-- Grain: one row per order created until then, newest first. Unit: total in minor units of the currency.
WITH
-- One row per order: its way through the statuses.
known AS
(
    SELECT order_id, number, customer_id, currency, created_at, statuses, entered
    FROM oms.order_summaries FINAL
    WHERE created_at <= {as_of:DateTime64(6, 'UTC')}
),
-- One row per order: its version, and what the last event that priced it said. Repeated rows change neither.
figures AS
(
    SELECT order_id, max(version) AS version_then, argMax(total, version) AS total_then
    FROM oms.order_events
    WHERE occurred_at <= {as_of:DateTime64(6, 'UTC')}
    GROUP BY order_id
)
SELECT
    order_id, number, customer_id, created_at,
    statuses[arrayLastIndex(since -> since <= {as_of:DateTime64(6, 'UTC')}, entered)] AS status,
    version_then AS version, currency, total_then AS total
FROM known
INNER JOIN figures USING (order_id)
ORDER BY created_at DESC, order_id DESC
