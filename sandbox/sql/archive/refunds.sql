-- One row per version of a refund, of those that arrived from {from} to {to}.
INSERT INTO oms.refunds
WITH
-- include copied
SELECT
    rows.* REPLACE (
        filled(rows.order_id) AS order_id,
        filled(rows.refund_id) AS refund_id,
        filled(rows.attempt_id) AS attempt_id,
        filled(rows.rma) AS rma,
        filled(rows.provider_ref) AS provider_ref,
        later(rows.created_at) AS created_at,
        later(rows.initiated_at) AS initiated_at,
        later(rows.completed_at) AS completed_at,
        later(rows.appended_at) AS appended_at
    )
FROM archive.copies AS copies
INNER JOIN archive.refunds AS rows ON rows.order_id = copies.life
-- include arrived
