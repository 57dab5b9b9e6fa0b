-- Grain: one row per period and group, the attempts to be paid that were settled in it. Unit: attempts, and the share
-- (0 to 1) of them that the provider accepted.
WITH
    '' AS everything,
    -- One row per attempt of which it became known in [from, to) what the provider says.
    settled AS
    (
        SELECT
            settled_at,
            currency,
            country,
            purpose,
            code,
            status = 'declined' AS is_declined,
            dateDiff('microsecond', requested_at, settled_at) / 1e6 AS seconds
        FROM oms.payments FINAL
        WHERE status NOT IN ('requested', 'superseded')
          AND settled_at >= {from:DateTime64(6, 'UTC')} AND settled_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(settled_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    count() AS attempts,
    countIf(NOT is_declined) AS accepted,
    countIf(is_declined) AS declined,
    accepted / attempts AS acceptance_rate,
    quantilesExactInclusive(0.5, 0.95)(seconds)[1] AS p50,
    quantilesExactInclusive(0.5, 0.95)(seconds)[2] AS p95
FROM settled
GROUP BY at, {group_by:Identifier}
ORDER BY at, {group_by:Identifier}
