-- One row per candidate order: its newest version.
newest AS
(
    SELECT *
    FROM oms.order_summaries
    WHERE (created_at, order_id) IN (SELECT (arrayJoin(candidates) AS row).1, row.2)
    ORDER BY version DESC
    LIMIT 1 BY order_id
)
SELECT
    order_id,
    reinterpretAsInt64({by:Identifier}) AS key,
    (
-- include order_filters
    ) AS matches,
    length(candidates) AS looked_at,
