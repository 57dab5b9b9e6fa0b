-- One row per version of an attempt to be paid, of those that arrived from {from} to {to}.
INSERT INTO oms.payments
WITH
-- include copied
SELECT
    rows.* REPLACE (
        filled(rows.order_id) AS order_id,
        filled(rows.attempt_id) AS attempt_id,
        filled(rows.provider_ref) AS provider_ref,
        later(rows.created_at) AS created_at,
        later(rows.requested_at) AS requested_at,
        later(rows.settled_at) AS settled_at,
        later(rows.appended_at) AS appended_at
    )
FROM archive.copies AS copies
INNER JOIN archive.payments AS rows ON rows.order_id = copies.life
-- include arrived
