-- One row per version of a line of a return, of those that arrived from {from} to {to}.
INSERT INTO oms.returns
WITH
-- include copied
SELECT
    rows.* REPLACE (
        filled(rows.order_id) AS order_id,
        filled(rows.rma) AS rma,
        filled(rows.tracking_number) AS tracking_number,
        later(rows.created_at) AS created_at,
        later(rows.requested_at) AS requested_at,
        later(rows.ended_at) AS ended_at,
        later(rows.appended_at) AS appended_at
    )
FROM archive.copies AS copies
INNER JOIN archive.returns AS rows ON rows.order_id = copies.life
-- include arrived
