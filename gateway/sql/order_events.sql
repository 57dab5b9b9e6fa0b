-- The timeline of one order. Grain: one row per event, oldest first.
SELECT id, type, version, toUnixTimestamp64Micro(occurred_at) AS occurred_us, actor, correlation_id, causation_id, data
FROM oms.order_events FINAL
WHERE order_id = {order_id:String}
ORDER BY version
