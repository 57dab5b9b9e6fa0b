-- Parcels to ask for. Grain: one row per parcel.
SELECT tracking_number
FROM oms.shipments
WHERE tracking_number != '' AND cityHash64(order_id) % 7 = 0
LIMIT {wanted:UInt32}
