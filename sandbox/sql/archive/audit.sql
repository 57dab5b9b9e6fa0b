-- One row per change, of those that arrived from {from} to {to}.
INSERT INTO oms.audit
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
        filled(rows.id) AS id,
        filled(rows.subject_id) AS subject_id,
        filled(rows.actor) AS actor,
        filled(rows.before) AS before,
        filled(rows.after) AS after,
        filled(rows.correlation_id) AS correlation_id,
        filled(rows.causation_id) AS causation_id,
        later(rows.at) AS at,
        later(rows.appended_at) AS appended_at
    )
FROM archive.copies AS copies
INNER JOIN archive.audit AS rows ON rows.subject_id = copies.life
WHERE later(rows.appended_at) >= {from:DateTime64(3, 'UTC')} AND later(rows.appended_at) < {to:DateTime64(3, 'UTC')}
  AND copies.days BETWEEN {first_days:Int32} AND {last_days:Int32}
