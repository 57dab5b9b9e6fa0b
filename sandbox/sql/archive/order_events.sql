-- One row per event, of those that arrived from {from} to {to}.
INSERT INTO oms.order_events
WITH
-- include copied
SELECT
    rows.* REPLACE (
        filled(rows.order_id) AS order_id,
        filled(rows.id) AS id,
        filled(rows.actor) AS actor,
        filled(rows.correlation_id) AS correlation_id,
        filled(rows.causation_id) AS causation_id,
        filled(rows.data) AS data,
        later(rows.occurred_at) AS occurred_at,
        later(rows.appended_at) AS appended_at
    )
FROM archive.copies AS copies
INNER JOIN archive.order_events AS rows ON rows.order_id = copies.life
-- include arrived
