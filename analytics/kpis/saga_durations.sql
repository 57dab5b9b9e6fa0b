-- Grain: one row per period and saga step that ended in it. Unit: seconds.
WITH
    -- One row per order and step of its way that ended in [from, to): payment, parcels on their way, parcels arrived.
    of_orders AS
    (
        SELECT step.1 AS saga, step.2 AS since, step.3 AS until
        FROM oms.order_summaries FINAL
        ARRAY JOIN [
            ('placement', submitted_at, paid_at),
            ('shipping', paid_at, shipped_at),
            ('delivery', paid_at, delivered_at)
        ] AS step
        WHERE since IS NOT NULL
          AND until >= {from:DateTime64(6, 'UTC')} AND until < {to:DateTime64(6, 'UTC')}
    ),
    -- One row per return that was closed in [from, to): a return has a row per line in the table.
    of_returns AS
    (
        SELECT 'return' AS saga, min(requested_at) AS since, max(ended_at) AS until
        FROM oms.returns FINAL
        WHERE status = 'closed'
        GROUP BY order_id, rma
        HAVING until >= {from:DateTime64(6, 'UTC')} AND until < {to:DateTime64(6, 'UTC')}
    ),
    -- One row per step, in its period.
    steps AS
    (
        SELECT
            period_start(until, {grain:String}, {tz:String}) AS at,
            '' AS everything,
            saga,
            dateDiff('microsecond', since, until) / 1e6 AS seconds
        FROM (SELECT * FROM of_orders UNION ALL SELECT * FROM of_returns)
    )
SELECT
    at,
    {group_by:Identifier},
    saga,
    count() AS orders,
    avg(seconds) AS mean,
    quantilesExactInclusive(0.5, 0.95)(seconds)[1] AS p50,
    quantilesExactInclusive(0.5, 0.95)(seconds)[2] AS p95
FROM steps
GROUP BY at, {group_by:Identifier}, saga
ORDER BY at, {group_by:Identifier}, indexOf(['placement', 'shipping', 'delivery', 'return'], saga)
