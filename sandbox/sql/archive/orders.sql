-- One row per version of an order, of those that arrived from {from} to {to}.
INSERT INTO oms.orders
WITH
-- include copied
SELECT
    rows.* REPLACE (
        filled(rows.order_id) AS order_id,
        filled(rows.customer_id) AS customer_id,
        filled(rows.number) AS number,
        filled(rows.document) AS document,
        later(rows.created_at) AS created_at,
        later(rows.submitted_at) AS submitted_at,
        later(rows.updated_at) AS updated_at,
        later(rows.appended_at) AS appended_at
    )
FROM archive.copies AS copies
INNER JOIN archive.orders AS rows ON rows.order_id = copies.life
-- include arrived
