-- Grain: one row per period, currency and reason for which money was given back in it. Unit: refunds, and minor units of
-- that currency.
WITH
    '' AS everything,
    -- One row per refund completed in [from, to).
    completed AS
    (
        SELECT
            completed_at,
            currency,
            reason,
            amount,
            dateDiff('microsecond', initiated_at, completed_at) / 1e6 AS seconds
        FROM oms.refunds FINAL
        WHERE status = 'completed'
          AND completed_at >= {from:DateTime64(6, 'UTC')} AND completed_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(completed_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    currency,
    reason,
    count() AS refunds,
    sum(amount) AS refunded,
    avg(seconds) AS mean_duration
FROM completed
GROUP BY at, {group_by:Identifier}, currency, reason
ORDER BY at, {group_by:Identifier}, currency, refunds DESC, reason
