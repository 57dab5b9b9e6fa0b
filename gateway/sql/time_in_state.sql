-- How long orders stay in each status. Grain: one row per status that orders left in a period. Unit: seconds.
WITH
    -- One row per status that an order left in the period, with when it came and when it went.
    stays AS
    (
        SELECT
            stay.1 AS status,
            dateDiff('microsecond', stay.2, stay.3) / 1e6 AS seconds
        FROM oms.order_summaries FINAL
        ARRAY JOIN arrayZip(arrayPopBack(statuses), arrayPopBack(entered), arrayPopFront(entered)) AS stay
        WHERE updated_at >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
          AND stay.3 >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
          AND stay.3 < fromUnixTimestamp64Micro({to_us:Int64}, 'UTC')
    )
SELECT
    status,
    count() AS orders,
    quantileExactInclusive(0.5)(seconds) AS p50,
    quantileExactInclusive(0.95)(seconds) AS p95
FROM stays
GROUP BY status
ORDER BY
    indexOf(
        ['DRAFT', 'PENDING_PAYMENT', 'PAYMENT_CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED', 'REFUND_REQUESTED'],
        status
    )
