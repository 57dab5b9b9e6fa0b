-- One row per version of a parcel, of those that arrived from {from} to {to}.
INSERT INTO oms.shipments
WITH
    text -> arrayStringConcat(
        arrayMap(
            (part, at) -> multiIf(
                at = 1, part,
                startsWith(part, 'F'), copies.front || substring(part, 2),
                startsWith(part, 'N'), copies.number || substring(part, 2),
                startsWith(part, 'C'), copies.customer_id || substring(part, 2),
                toString(toDate(toUInt16(substring(part, 2, 5))) + copies.days) || substring(part, 7)
            ),
            splitByChar('\x01', text) AS parts,
            arrayEnumerate(parts)
        )
    ) AS filled,
    time -> time + toIntervalDay(copies.days) AS later
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
WHERE later(rows.appended_at) >= {from:DateTime64(3, 'UTC')} AND later(rows.appended_at) < {to:DateTime64(3, 'UTC')}
  AND copies.days BETWEEN {first_days:Int32} AND {last_days:Int32}
