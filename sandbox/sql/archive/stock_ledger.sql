-- One row per movement of stock, as the orders' lines make them: products come in on Mondays, are reserved when an
-- order is submitted and leave a day later. Of every third product there is a twentieth less than is wanted in the
-- week, so that it runs out; of the others there are always ten more. `part`: which eighth of the products.
INSERT INTO oms.stock_ledger
WITH
    -- One row per line of a submitted order: how many of the product its week wanted, up to this line and in all.
    wanted AS
    (
        SELECT
            sku,
            order_id,
            line_id,
            assumeNotNull(submitted_at) AS submitted,
            quantity,
            toStartOfWeek(submitted, 1) AS week,
            sum(quantity) OVER (PARTITION BY sku, week ORDER BY submitted, order_id, line_id) AS so_far,
            sum(quantity) OVER (PARTITION BY sku, week) AS in_all,
            so_far - quantity < in_all * if(cityHash64(sku) % 3 = 0, 0.95, 1) AS is_there
        FROM oms.order_lines FINAL
        WHERE submitted_at IS NOT NULL AND sipHash64(sku) % 8 = {part:UInt8}
    ),
    -- One row per movement; `free`: by how much it changes what is free to sell.
    movements AS
    (
        SELECT
            sku,
            toDateTime64(week, 6, 'UTC') AS at,
            'adjusted' AS kind,
            toInt64(max(so_far))
                + if(cityHash64(sku) % 3 != 0 AND week = min(week) OVER (PARTITION BY sku), 10, 0) AS units,
            units AS free,
            '' AS order_id,
            '' AS line_id
        FROM wanted
        WHERE is_there
        GROUP BY sku, week
        UNION ALL
        SELECT sku, submitted, 'reserved', quantity, -quantity, order_id, line_id FROM wanted WHERE is_there
        UNION ALL
        SELECT sku, submitted + INTERVAL 1 DAY, 'committed', quantity, 0, order_id, line_id FROM wanted WHERE is_there
    )
SELECT
    sku,
    'main' AS pool,
    row_number() OVER books AS version,
    kind,
    units AS quantity,
    sum(free) OVER books AS on_hand,
    sum(if(kind = 'reserved', units, if(kind = 'committed', -units, 0))) OVER books AS reserved,
    sum(if(kind = 'committed', units, 0)) OVER books AS shipped,
    if(kind = 'adjusted', 'delivery', '') AS reason,
    order_id,
    line_id,
    if(kind = 'adjusted', 'staff:archive', 'system:archive') AS actor,
    at,
    '' AS correlation_id,
    toDateTime64(at, 3, 'UTC') AS appended_at
FROM movements
WINDOW books AS (PARTITION BY sku ORDER BY at, kind, order_id, line_id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
