-- Grain: one row per period and group, the stock-outs that began in it. Unit: stock-outs, and seconds that they lasted.
WITH
    '' AS everything,
    -- One row per movement after which there was nothing to sell, or no more than it moved: no other can be in a
    -- stock-out or end one, because none changes what there is by more than its quantity. Before it there was nothing if
    -- it is the product's first, or if the version before its own is the last one here that left nothing. (A row that is
    -- there twice turns nothing, so that there is no need for FINAL.)
    movements AS
    (
        SELECT
            sku,
            pool,
            version,
            at AS moved_at,
            on_hand <= 0 AS is_out,
            version = 1 OR version <= 1 + lagInFrame(if(is_out, version, 0)) OVER (
                PARTITION BY sku, pool ORDER BY version
            ) AS was_out
        FROM oms.stock_ledger
        WHERE on_hand <= abs(quantity)
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
            moved_at,
            sku,
            pool,
            dateDiff('microsecond', moved_at, turned_at) / 1e6 AS seconds
        FROM turns
        WHERE is_out AND moved_at >= {from:DateTime64(6, 'UTC')} AND moved_at < {to:DateTime64(6, 'UTC')}
    )
SELECT
    period_start(moved_at, {grain:String}, {tz:String}) AS at,
    {group_by:Identifier},
    count() AS stock_outs,
    uniqExact(sku) AS products,
    avg(seconds) AS mean_duration,
    max(seconds) AS longest
FROM stock_out
GROUP BY at, {group_by:Identifier}
ORDER BY at, {group_by:Identifier}
