-- What changed between {from} and {to}? Of each order how it stood as of {from}, as of {to}, and the events after the
-- one and until the other. Grain: one row per order that had such an event, the last changed first; `_before` is empty
-- ('', 0, NULL) where there was no such order yet. Unit: totals in minor units of the currency.
WITH
-- One row per order that had an event in the period. The audit log has the events by their time.
changed AS
(
    SELECT DISTINCT subject_id AS order_id
    FROM oms.audit
    WHERE subject = 'order' AND at > {from:DateTime64(6, 'UTC')} AND at <= {to:DateTime64(6, 'UTC')}
),
-- One row per event of these orders, up to the end of the period.
happened AS
(
    SELECT order_id, version, type, total, occurred_at, occurred_at <= {from:DateTime64(6, 'UTC')} AS earlier
    FROM oms.order_events
    WHERE order_id IN (SELECT order_id FROM changed) AND occurred_at <= {to:DateTime64(6, 'UTC')}
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
        arrayMap(event -> event.2, arraySort(groupArrayIf((version, type), NOT earlier))) AS events
    FROM happened
    GROUP BY order_id
),
-- One row per order: its way through the statuses.
known AS
(
    SELECT order_id, number, customer_id, currency, statuses, entered
    FROM oms.order_summaries FINAL
    WHERE order_id IN (SELECT order_id FROM changed)
)
SELECT
    order_id, number, customer_id, changed_at,
    statuses[arrayLastIndex(since -> since <= {from:DateTime64(6, 'UTC')}, entered)] AS status_before,
    statuses[arrayLastIndex(since -> since <= {to:DateTime64(6, 'UTC')}, entered)] AS status_after,
    version_before, version_after, currency, total_before, total_after, events
FROM figures
INNER JOIN known USING (order_id)
ORDER BY changed_at DESC, order_id DESC
