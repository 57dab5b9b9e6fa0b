-- Everybody's orders by {by} (created_at, updated_at or total), the smallest first, from a position (key, order id) on.
-- gateway/search.py says how pages are made. Keys are minor units or microseconds.
-- Grain: one row per candidate order. key, matches: of its newest version. looked_at: how many rows the candidates came
-- from; reached: the position of the last of them (both the same in every row).
WITH
-- One value, so that it is looked for once: the first rows that match, older versions too, in the order asked for.
(
    SELECT groupArray((created_at, order_id, reinterpretAsInt64({by:Identifier})))
    FROM
    (
        SELECT created_at, order_id, {by:Identifier}
        FROM oms.order_summaries
        WHERE {by:Identifier} >= reinterpret({key:Int64}, toTypeName({by:Identifier}))
          AND ({by:Identifier} > reinterpret({key:Int64}, toTypeName({by:Identifier})) OR order_id > {order_id:String})
          AND
-- include order_filters
        ORDER BY {by:Identifier}, order_id
        LIMIT {candidates:UInt32}
    )
) AS candidates,
-- include newest_of_candidates
    arrayMax(row -> (row.3, row.2), candidates) AS reached
FROM newest
SETTINGS max_threads = 1
