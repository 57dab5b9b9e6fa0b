    -- A template's text as it is of the copy: see prepare.sql for the letters.
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
    -- A time or day as it is of the copy.
    time -> time + toIntervalDay(copies.days) AS later
