-- How many orders were created, paid and cancelled in each minute from a time on, by the orders' own times: an order is
-- paid once, though an authorization that is renewed is confirmed once more. Grain: one row per minute up to the present
-- one, also without orders. Unit: orders.
WITH
    -- One row per order that something may have happened to in [from, to).
    recent AS
    (
        SELECT created_at, paid_at, cancelled_at
        FROM oms.order_summaries FINAL
        WHERE created_at >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
           OR paid_at >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
           OR cancelled_at >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
    ),
    -- One row per thing that happened to an order in [from, to).
    happened AS
    (
        SELECT what, assumeNotNull(moment) AS at
        FROM recent
        ARRAY JOIN ['created', 'paid', 'cancelled'] AS what, [created_at, paid_at, cancelled_at] AS moment
        WHERE moment >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
          AND moment < fromUnixTimestamp64Micro({to_us:Int64}, 'UTC')
    )
SELECT
    toUnixTimestamp(toStartOfMinute(at)) AS minute,
    countIf(what = 'created') AS created,
    countIf(what = 'paid') AS paid,
    countIf(what = 'cancelled') AS cancelled
FROM happened
GROUP BY minute
ORDER BY minute WITH FILL
    FROM toUnixTimestamp(toStartOfMinute(fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')))
    TO toUnixTimestamp(fromUnixTimestamp64Micro({to_us:Int64}, 'UTC'))
    STEP 60
