-- How many orders were created, paid and cancelled in each minute from a time on; an event that was written twice counts
-- once. Grain: one row per minute up to the present one, also without orders. Unit: orders.
SELECT
    toUnixTimestamp(toStartOfMinute(at)) AS minute,
    uniqExactIf(id, what = 'OrderCreated') AS created,
    uniqExactIf(id, what = 'OrderPaymentConfirmed') AS paid,
    uniqExactIf(id, what = 'OrderCancelled') AS cancelled
FROM oms.audit
WHERE at >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
  AND at < fromUnixTimestamp64Micro({to_us:Int64}, 'UTC')
  AND subject = 'order'
  AND what IN ('OrderCreated', 'OrderPaymentConfirmed', 'OrderCancelled')
GROUP BY minute
ORDER BY minute WITH FILL
    FROM toUnixTimestamp(toStartOfMinute(fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')))
    TO toUnixTimestamp(fromUnixTimestamp64Micro({to_us:Int64}, 'UTC'))
    STEP 60
