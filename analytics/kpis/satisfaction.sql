-- Grain: one row per period and group, the orders delivered in it. Unit: points from 1 (bad) to 5 (good), and the share
-- (0 to 1) of the delivered orders that was answered for.
WITH
    '' AS everything,
    -- One row per order delivered in [from, to).
    delivered AS
    (
        SELECT
            delivered_at,
            country,
            if(state = '', country, concat(country, '-', state)) AS region,
            shipping_method,
            survey_score
        FROM oms.order_summaries FINAL
        WHERE delivered_at >= {from:DateTime64(6, 'UTC')} AND delivered_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(delivered_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    count() AS delivered,
    count(survey_score) AS answers,
    avg(survey_score) AS score,
    answers / delivered AS answer_rate,
    if(answers = 0, NULL, countIf(survey_score <= 2) / answers) AS unhappy_rate
FROM delivered
GROUP BY at, {group_by:Identifier}
ORDER BY at, {group_by:Identifier}
