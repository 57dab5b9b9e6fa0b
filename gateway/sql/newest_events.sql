-- What happened last to orders, the newest first. Grain: one row per event.
WITH
    -- The end of the log as it is written, which needs no sorting: a row per event, or a few where a batch was written
    -- again.
    written AS
    (
        SELECT at, id, subject_id, what, actor
        FROM oms.audit
        WHERE subject = 'order'
        ORDER BY at DESC, id DESC
        LIMIT 3 * {limit:UInt32}
    ),
    -- One row per event.
    events AS
    (
        SELECT at, id, subject_id, what, actor
        FROM written
        ORDER BY at DESC, id DESC
        LIMIT 1 BY id
        LIMIT {limit:UInt32}
    )
SELECT
    events.id AS id,
    toUnixTimestamp64Micro(events.at) AS at_us,
    events.what AS type,
    events.actor AS actor,
    events.subject_id AS order_id,
    numbers.number AS number
FROM events
LEFT JOIN
(
    SELECT order_id, number
    FROM oms.orders FINAL
    WHERE order_id IN (SELECT subject_id FROM events)
) AS numbers ON numbers.order_id = events.subject_id
ORDER BY events.at DESC, events.id DESC
