-- The timeline of one order. Grain: one row per event, oldest first. (A row that was written twice is the same twice.)
SELECT id, type, version, toUnixTimestamp64Micro(occurred_at) AS occurred_us, actor, correlation_id, causation_id, data
FROM oms.order_events
WHERE order_id = {order_id:String}
ORDER BY version
LIMIT 1 BY version
SETTINGS max_threads = 1
