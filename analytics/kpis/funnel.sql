-- Grain: one row per period, group and stage, the orders created in the period. Unit: orders that came to the stage, and
-- their share (0 to 1) of the created ones and of those that came to the stage before.
WITH
    '' AS everything,
    -- One row per order created in [from, to).
    created AS
    (
        SELECT
            created_at,
            currency,
            country,
            if(state = '', country, concat(country, '-', state)) AS region,
            shipping_method,
            submitted_at,
            paid_at,
            processing_at,
            shipped_at,
            delivered_at
        FROM oms.order_summaries FINAL
        WHERE created_at >= {from:DateTime64(6, 'UTC')} AND created_at < {to:DateTime64(6, 'UTC')}
    ),
    -- One row per period and group: how many came to each stage.
    counted AS
    (
        SELECT
            period_start(created_at, {grain:String}, {tz:String}) AS at,
            {group_by:Identifier},
            [
                count(),
                count(submitted_at),
                count(paid_at),
                count(processing_at),
                count(shipped_at),
                count(delivered_at)
            ] AS came
        FROM created
        GROUP BY at, {group_by:Identifier}
    )
SELECT
    at,
    {group_by:Identifier},
    stage,
    orders,
    orders / came[1] AS of_created,
    if(before = 0, NULL, orders / before) AS of_stage_before
FROM counted
ARRAY JOIN
    ['created', 'submitted', 'paid', 'processing', 'shipped', 'delivered'] AS stage,
    came AS orders,
    arrayPushFront(arrayPopBack(came), came[1]) AS before,
    arrayEnumerate(came) AS number
ORDER BY at, {group_by:Identifier}, number
