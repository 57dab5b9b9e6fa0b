-- As what the lives are copied. Grain: one row per order of the archive.
-- Orders spread evenly over the weeks; those under way are of the last ones. Customers have 8 orders on average, the first
-- of them about fifty, and one, `customer-whale`, has as many as the parameter says.
INSERT INTO archive.copies
WITH
    -- One row per order.
    numbered AS
    (
        SELECT
            number AS ordinal,
            number % {lives:UInt32} AS life,
            intDiv(number, {lives:UInt32}) AS copy
        FROM numbers({orders:UInt64})
    ),
    -- One row per order: when it was, and whose.
    placed AS
    (
        SELECT
            lives.life AS life,
            numbered.ordinal AS ordinal,
            numbered.copy AS copy,
            if(
                lives.finished,
                lives.weeks + (numbered.copy * 37 + numbered.life * 61) % ({weeks:UInt16} - lives.weeks),
                lives.weeks + numbered.copy % 2
            ) AS weeks_ago,
            pow(cityHash64(numbered.ordinal, 'customer') / pow(2, 64), 1.2) AS luck,
            intDiv(numbered.ordinal * {whale:UInt32}, {orders:UInt64})
                != intDiv((numbered.ordinal + 1) * {whale:UInt32}, {orders:UInt64}) AS is_whale
        FROM numbered
        INNER JOIN archive.lives AS lives ON lives.ordinal = numbered.life
    )
SELECT
    life,
    -- Odd factors: no two orders get the same.
    leftPad(lower(hex(toUInt32(ordinal * 2654435761))), 8, '0') AS front,
    arrayStringConcat(
        arrayMap(
            place -> if(place = 5, '-', '') || substring(
                '23456789ABCDEFGHJKLMNPQRSTUVWXYZ',
                1 + bitAnd(bitShiftRight(ordinal * 716219441025389, 5 * place), 31),
                1
            ),
            range(10)
        )
    ) AS number,
    if(is_whale, 'customer-whale', 'customer-' || toString(toUInt64(luck * ({orders:UInt64} / 8)))) AS customer_id,
    {last_week:Int32} - 7 * toInt32(weeks_ago) AS days
FROM placed
