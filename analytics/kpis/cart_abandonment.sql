-- Grain: one row per period and group, the orders created in it. Unit: orders, and the abandoned ones' share (0 to 1) of
-- those of which it is known.
WITH
    '' AS everything,
    -- One row per order created in [from, to). Abandoned: not submitted within 24 hours, which is known when they are
    -- over or the draft has ended.
    created AS
    (
        SELECT
            created_at,
            currency,
            country,
            if(state = '', country, concat(country, '-', state)) AS region,
            created_at + INTERVAL 24 HOUR AS deadline,
            submitted_at IS NOT NULL AND submitted_at <= deadline AS is_submitted,
            NOT is_submitted AND (status != 'DRAFT' OR deadline < {now:DateTime64(6, 'UTC')}) AS is_abandoned
        FROM oms.order_summaries FINAL
        WHERE created_at >= {from:DateTime64(6, 'UTC')} AND created_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(created_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    count() AS created,
    countIf(is_submitted) AS submitted,
    countIf(is_abandoned) AS abandoned,
    submitted + abandoned AS decided,
    created - decided AS undecided,
    if(decided = 0, NULL, abandoned / decided) AS abandonment_rate
FROM created
GROUP BY at, {group_by:Identifier}
ORDER BY at, {group_by:Identifier}
