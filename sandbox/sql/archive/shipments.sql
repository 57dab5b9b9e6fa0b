-- One row per version of a parcel, of those that arrived from {from} to {to}.
INSERT INTO oms.shipments
WITH
-- include copied
SELECT
    rows.* REPLACE (
        filled(rows.order_id) AS order_id,
        filled(rows.shipment_id) AS shipment_id,
        filled(rows.tracking_number) AS tracking_number,
        later(rows.created_at) AS created_at,
        later(rows.estimated_delivery) AS estimated_delivery,
        later(rows.shipped_at) AS shipped_at,
        later(rows.delivered_at) AS delivered_at,
        later(rows.appended_at) AS appended_at
    )
FROM archive.copies AS copies
INNER JOIN archive.shipments AS rows ON rows.order_id = copies.life
-- include arrived
