-- How far the orders came that were created in a period. Grain: one row per step, also without orders. Unit: orders, and
-- their share (0 to 1) of the created ones.
WITH
    -- One row: the orders created in the period, and how many of them ever reached each step.
    reached AS
    (
        SELECT
            count() AS created,
            countIf(submitted_at IS NOT NULL) AS submitted,
            countIf(paid_at IS NOT NULL) AS paid,
            countIf(shipped_at IS NOT NULL) AS shipped,
            countIf(delivered_at IS NOT NULL) AS delivered
        FROM oms.order_summaries FINAL
        WHERE created_at >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
          AND created_at < fromUnixTimestamp64Micro({to_us:Int64}, 'UTC')
    )
SELECT
    step.1 AS step,
    step.2 AS orders,
    if(created = 0, NULL, orders / created) AS share
FROM reached
ARRAY JOIN [
    ('created', created), ('submitted', submitted), ('paid', paid), ('shipped', shipped), ('delivered', delivered)
] AS step
