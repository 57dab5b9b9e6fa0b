-- One row per change, of those that arrived from {from} to {to}.
INSERT INTO oms.audit
WITH
-- include copied
SELECT
    rows.* REPLACE (
        filled(rows.id) AS id,
        filled(rows.subject_id) AS subject_id,
        filled(rows.actor) AS actor,
        filled(rows.before) AS before,
        filled(rows.after) AS after,
        filled(rows.correlation_id) AS correlation_id,
        filled(rows.causation_id) AS causation_id,
        later(rows.at) AS at,
        later(rows.appended_at) AS appended_at
    )
FROM archive.copies AS copies
INNER JOIN archive.audit AS rows ON rows.subject_id = copies.life
-- include arrived
