-- Grain: one row per period, group and reason for which units were to be returned. Unit: returns (an RMA with lines of
-- two reasons counts in both), units, and the reason's share (0 to 1) of the units of that period and group.
WITH
    '' AS everything,
    -- One row per line of a return that was asked for in [from, to).
    requested AS
    (
        SELECT
            requested_at,
            currency,
            sku,
            status,
            condition,
            reason,
            rma,
            quantity,
            exchange_sku
        FROM oms.returns FINAL
        WHERE requested_at >= {from:DateTime64(6, 'UTC')} AND requested_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(requested_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    reason,
    uniqExact(rma) AS returns,
    sum(quantity) AS units,
    sumIf(quantity, exchange_sku != '') AS exchanged,
    units / sum(units) OVER (PARTITION BY at, {group_by:Identifier}) AS share
FROM requested
GROUP BY at, {group_by:Identifier}, reason
ORDER BY at, {group_by:Identifier}, units DESC, reason
