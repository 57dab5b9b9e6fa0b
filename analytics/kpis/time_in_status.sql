-- Grain: one row per period, group and status that orders left in it. Unit: seconds that an order was in the status.
WITH
    -- One row per order: its way through the statuses, and how long (microseconds) each stay but the last was.
    ways AS
    (
        SELECT
            currency,
            country,
            if(state = '', country, concat(country, '-', state)) AS region,
            shipping_method,
            statuses[-1] AS status_now,
            arrayPopBack(statuses) AS stays,
            arrayPopFront(entered) AS ends,
            arrayPopFront(arrayDifference(arrayMap(at -> toUnixTimestamp64Micro(at), entered))) AS lengths
        FROM oms.order_summaries FINAL
    ),
    -- One row per order and status that it has left, when it left it (the last time), and how long it was in it (all
    -- stays together). The status in which it is now is left out, also where it has been in it before.
    times AS
    (
        SELECT
            '' AS everything,
            currency,
            country,
            region,
            shipping_method,
            time.1 AS status,
            time.2 AS left_at,
            time.3 / 1e6 AS seconds
        FROM ways
        ARRAY JOIN if(
            length(arrayDistinct(arrayPushBack(stays, status_now))) > length(stays),
            arrayZip(stays, ends, lengths),
            -- Only an order that came back to a status is worth the search.
            arrayMap(
                status -> (
                    status,
                    arrayMax((end, stay) -> if(stay = status, end, toDateTime64(0, 6, 'UTC')), ends, stays),
                    arraySum((length, stay) -> if(stay = status, length, 0), lengths, stays)
                ),
                arrayFilter(status -> status != status_now, arrayDistinct(stays))
            )
        ) AS time
    )
SELECT
    period_start(left_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    status,
    count() AS orders,
    avg(seconds) AS mean,
    quantilesExactInclusive(0.5, 0.95)(seconds)[1] AS p50,
    quantilesExactInclusive(0.5, 0.95)(seconds)[2] AS p95
FROM times
WHERE left_at >= {from:DateTime64(6, 'UTC')} AND left_at < {to:DateTime64(6, 'UTC')}
GROUP BY at, {group_by:Identifier}, status
ORDER BY
    at,
    {group_by:Identifier},
    indexOf(
        [
            'DRAFT', 'PENDING_PAYMENT', 'PAYMENT_CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED', 'REFUND_REQUESTED',
            'REFUNDED', 'CANCELLED'
        ],
        status
    )
