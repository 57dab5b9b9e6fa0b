-- One row per version of a line, of those that arrived from {from} to {to}.
INSERT INTO oms.order_lines
WITH
-- include copied
SELECT
    rows.* REPLACE (
        filled(rows.order_id) AS order_id,
        filled(rows.customer_id) AS customer_id,
        later(rows.created_at) AS created_at,
        later(rows.submitted_at) AS submitted_at,
        later(rows.paid_at) AS paid_at,
        later(rows.appended_at) AS appended_at
    )
FROM archive.copies AS copies
INNER JOIN archive.order_lines AS rows ON rows.order_id = copies.life
-- include arrived
