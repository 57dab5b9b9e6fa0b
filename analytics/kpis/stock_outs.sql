-- Grain: one row per period and group, the stock-outs that began in it. Unit: stock-outs, and seconds that they lasted.
WITH
    -- One row per movement of a product that ever ran out: was there something to sell before and afterwards?
    movements AS
    (
        SELECT
            sku,
            pool,
            version,
            at AS moved_at,
            on_hand <= 0 AS is_out,
            lagInFrame(on_hand <= 0, 1, true) OVER (PARTITION BY sku, pool ORDER BY version) AS was_out
        FROM oms.stock_ledger FINAL
        WHERE sku IN (SELECT sku FROM oms.stock_ledger WHERE on_hand <= 0)
    ),
    -- One row per beginning or end of a stock-out, and when the next one is.
    turns AS
    (
        SELECT
            sku,
            pool,
            is_out,
            moved_at,
            leadInFrame(moved_at, 1, {now:DateTime64(6, 'UTC')}) OVER (
                PARTITION BY sku, pool ORDER BY version ROWS BETWEEN CURRENT ROW AND 1 FOLLOWING
            ) AS turned_at
        FROM movements
        WHERE is_out != was_out
    ),
    -- One row per stock-out that began in [from, to), and how long it lasted, until now if it is not over.
    stock_out AS
    (
        SELECT
            period_start(moved_at, {grain:String}, {tz:String}) AS at,
            '' AS everything,
            sku,
            pool,
            dateDiff('microsecond', moved_at, turned_at) / 1e6 AS seconds
        FROM turns
        WHERE is_out AND moved_at >= {from:DateTime64(6, 'UTC')} AND moved_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    at,
    {group_by:Identifier},
    count() AS stock_outs,
    uniqExact(sku) AS products,
    avg(seconds) AS mean_duration,
    max(seconds) AS longest
FROM stock_out
GROUP BY at, {group_by:Identifier}
ORDER BY at, {group_by:Identifier}
