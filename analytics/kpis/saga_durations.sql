-- Grain: one row per period and saga step that ended in it. Unit: seconds.
WITH
    '' AS everything,
    -- Microseconds from one time to another, both of which are there.
    (since, until) -> toUnixTimestamp64Micro(assumeNotNull(until)) - toUnixTimestamp64Micro(assumeNotNull(since))
        AS lasted,
    -- One row per step that has ended: payment, the first parcel on its way, the last one arrived, a return closed
    -- (it has a row per line in its table; they say the same of it).
    steps AS
    (
        SELECT 'placement' AS saga, assumeNotNull(paid_at) AS ended, lasted(submitted_at, paid_at) AS micros
        FROM oms.order_summaries FINAL
        WHERE submitted_at IS NOT NULL AND paid_at IS NOT NULL
        UNION ALL
        SELECT 'shipping', assumeNotNull(shipped_at), lasted(paid_at, shipped_at)
        FROM oms.order_summaries FINAL
        WHERE paid_at IS NOT NULL AND shipped_at IS NOT NULL
        UNION ALL
        SELECT 'delivery', assumeNotNull(delivered_at), lasted(paid_at, delivered_at)
        FROM oms.order_summaries FINAL
        WHERE paid_at IS NOT NULL AND delivered_at IS NOT NULL
        UNION ALL
        SELECT 'return', assumeNotNull(ended_at), lasted(requested_at, ended_at)
        FROM oms.returns FINAL
        WHERE status = 'closed' AND ended_at IS NOT NULL
        LIMIT 1 BY order_id, rma
    )
SELECT
    period_start(ended, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    saga,
    count() AS orders,
    avg(micros) / 1e6 AS mean,
    quantilesExactInclusive(0.5, 0.95)(micros)[1] / 1e6 AS p50,
    quantilesExactInclusive(0.5, 0.95)(micros)[2] / 1e6 AS p95
FROM steps
WHERE is_within(ended, {from:DateTime64(6, 'UTC')}, {to:DateTime64(6, 'UTC')})
GROUP BY at, {group_by:Identifier}, saga
ORDER BY at, {group_by:Identifier}, indexOf(['placement', 'shipping', 'delivery', 'return'], saga)
