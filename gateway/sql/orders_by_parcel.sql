-- Orders that have a parcel with this tracking number. A parcel keeps its number, so any version will do.
-- Grain: one row per order.
SELECT DISTINCT order_id
FROM oms.shipments
WHERE tracking_number = {tracking_number:String}
LIMIT 100
