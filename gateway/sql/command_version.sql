-- The order's version after one command, 0 when the command has led to no event (yet). Grain: one row.
SELECT max(version) AS version
FROM oms.order_events
WHERE order_id = {order_id:String} AND causation_id = {command_id:String}
