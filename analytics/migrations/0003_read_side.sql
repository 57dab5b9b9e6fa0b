-- The read side whole: lists and facts, lines, money, parcels, returns, stock, and who did what.
--
-- Rows of order_summaries, customer_orders, order_lines, payments, refunds, shipments and returns are made of the whole
-- order after a command, so that a newer row says all that an older one said. Amounts are in minor units of `currency`.
-- A new table fills itself: the sink reads its topic from the beginning. Columns that an old table gets are empty until
-- `oms rebuild` has made its rows anew.
--
-- Keys of what is counted begin with the order's created_at: a part that was just written then overlaps the last weeks of
-- the large old ones only, and FINAL leaves the rest unmerged (docs/decisions/0023-read-measurements.md).

-- One row per order, by time: lists for staff, and the facts that the KPIs count. `statuses` and `entered` are the
-- order's way through the statuses, oldest first; paid_at to refunded_at are the first time of each.
CREATE TABLE IF NOT EXISTS oms.order_summaries
(
    order_id            String,
    version             UInt64,
    customer_id         String,
    number              String,
    status              LowCardinality(String),
    currency            LowCardinality(String),
    created_at          DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    submitted_at        Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    updated_at          DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    paid_at             Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    processing_at       Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    shipped_at          Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    delivered_at        Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    cancelled_at        Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    refunded_at         Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    statuses            Array(LowCardinality(String)),
    entered             Array(DateTime64(6, 'UTC')) CODEC(ZSTD),
    promised_delivery   Nullable(Date),                           -- what the customer was told on submission
    estimated_delivery  Nullable(Date),                           -- what is expected now
    subtotal            Int64,
    discount            Int64,
    tax                 Int64,
    shipping            Int64,
    total               Int64,
    captured            Int64,                                    -- money really taken
    refunded            Int64,                                    -- money really given back
    units               UInt32,                                   -- as ordered
    cancelled_units     UInt32,
    returned_units      UInt32,
    skus                Array(String),
    names               Array(String) CODEC(ZSTD),                -- of the products
    promo_codes         Array(LowCardinality(String)),
    tracking_numbers    Array(String),
    shipping_method     LowCardinality(String),                   -- '' while not chosen
    country             LowCardinality(String),                   -- of the shipping address, '' without one
    state               LowCardinality(String),
    payment_attempts    UInt16,                                   -- to pay the order itself
    payment_declines    UInt16,
    returns             UInt16,                                   -- RMAs asked for
    return_requested_at Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),  -- of the first one
    survey_score        Nullable(UInt8),                          -- 1 (bad) to 5 (good)
    cancellation_reason LowCardinality(String),
    hold                LowCardinality(String),                   -- fraud | staff, '' when nothing holds it
    stuck               LowCardinality(String),                   -- the status that it was reported stuck in
    exchange_of         String,
    imported            Bool,
    appended_at         DateTime64(3, 'UTC') CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (created_at, order_id)
TTL toDateTime(appended_at) + INTERVAL 7 YEAR
SETTINGS index_granularity = 1024;

-- The same by customer: order history.
ALTER TABLE oms.customer_orders
    ADD COLUMN IF NOT EXISTS paid_at             Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS processing_at       Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS shipped_at          Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS delivered_at        Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS cancelled_at        Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS refunded_at         Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS statuses            Array(LowCardinality(String)),
    ADD COLUMN IF NOT EXISTS entered             Array(DateTime64(6, 'UTC')) CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS promised_delivery   Nullable(Date),
    ADD COLUMN IF NOT EXISTS estimated_delivery  Nullable(Date),
    ADD COLUMN IF NOT EXISTS captured            Int64,
    ADD COLUMN IF NOT EXISTS refunded            Int64,
    ADD COLUMN IF NOT EXISTS units               UInt32,
    ADD COLUMN IF NOT EXISTS cancelled_units     UInt32,
    ADD COLUMN IF NOT EXISTS returned_units      UInt32,
    ADD COLUMN IF NOT EXISTS names               Array(String) CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS promo_codes         Array(LowCardinality(String)),
    ADD COLUMN IF NOT EXISTS tracking_numbers    Array(String),
    ADD COLUMN IF NOT EXISTS shipping_method     LowCardinality(String),
    ADD COLUMN IF NOT EXISTS country             LowCardinality(String),
    ADD COLUMN IF NOT EXISTS state               LowCardinality(String),
    ADD COLUMN IF NOT EXISTS payment_attempts    UInt16,
    ADD COLUMN IF NOT EXISTS payment_declines    UInt16,
    ADD COLUMN IF NOT EXISTS returns             UInt16,
    ADD COLUMN IF NOT EXISTS return_requested_at Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS survey_score        Nullable(UInt8),
    ADD COLUMN IF NOT EXISTS hold                LowCardinality(String),
    ADD COLUMN IF NOT EXISTS stuck               LowCardinality(String),
    ADD COLUMN IF NOT EXISTS exchange_of         String,
    ADD COLUMN IF NOT EXISTS imported            Bool;

-- What the order cost after an event that priced it anew; NULL after the others.
ALTER TABLE oms.order_events ADD COLUMN IF NOT EXISTS total Nullable(Int64) CODEC(ZSTD) AFTER data;

-- An order by the number that people say.
ALTER TABLE oms.orders ADD INDEX IF NOT EXISTS by_number number TYPE bloom_filter(0.001) GRANULARITY 4;

-- One row per line of an order. A line that was taken out of the order is deleted.
CREATE TABLE IF NOT EXISTS oms.order_lines
(
    order_id     String,
    line_id      String,
    version      UInt64,                                          -- of the order
    is_deleted   UInt8,
    sku          String,
    product_id   String,
    name         String CODEC(ZSTD),
    category     LowCardinality(String),
    customer_id  String,
    status       LowCardinality(String),                          -- of the order
    currency     LowCardinality(String),
    country      LowCardinality(String),
    created_at   DateTime64(6, 'UTC') CODEC(Delta, ZSTD),         -- of the order
    submitted_at Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    paid_at      Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    quantity     UInt32,
    cancelled    UInt32,
    shipped      UInt32,
    delivered    UInt32,
    returned     UInt32,
    unit_price   Int64,
    line_total   Int64,
    discount     Int64,
    tax          Int64,
    appended_at  DateTime64(3, 'UTC') CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY (created_at, order_id, line_id)
TTL toDateTime(appended_at) + INTERVAL 7 YEAR
SETTINGS index_granularity = 1024;

-- One row per attempt to be paid.
CREATE TABLE IF NOT EXISTS oms.payments
(
    order_id     String,
    attempt_id   String,
    version      UInt64,                                          -- of the order
    created_at   DateTime64(6, 'UTC') CODEC(Delta, ZSTD),         -- of the order
    number       UInt16,                                          -- the how manieth of the order
    purpose      LowCardinality(String),                          -- order | edit | renewal
    status       LowCardinality(String),                          -- requested | authorized | captured | declined | voiding | voided | superseded
    currency     LowCardinality(String),
    amount       Int64,
    captured     Int64,
    refunded     Int64,
    code         LowCardinality(String),                          -- the provider's reason when it declined
    provider_ref String,
    country      LowCardinality(String),                          -- of the shipping address
    requested_at Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    settled_at   Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),      -- when it was known what became of it
    appended_at  DateTime64(3, 'UTC') CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (created_at, order_id, attempt_id)
TTL toDateTime(appended_at) + INTERVAL 7 YEAR;

-- One row per refund.
CREATE TABLE IF NOT EXISTS oms.refunds
(
    order_id     String,
    refund_id    String,
    version      UInt64,                                          -- of the order
    created_at   DateTime64(6, 'UTC') CODEC(Delta, ZSTD),         -- of the order
    attempt_id   String,
    status       LowCardinality(String),                          -- initiated | completed | failed
    reason       LowCardinality(String),
    rma          String,
    currency     LowCardinality(String),
    amount       Int64,
    shipping     Int64,                                           -- the part of it that is shipping
    line_ids     Array(String),
    provider_ref String,
    initiated_at Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    completed_at Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    appended_at  DateTime64(3, 'UTC') CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (created_at, order_id, refund_id)
TTL toDateTime(appended_at) + INTERVAL 7 YEAR;

-- One row per parcel.
CREATE TABLE IF NOT EXISTS oms.shipments
(
    order_id           String,
    shipment_id        String,
    version            UInt64,                                    -- of the order
    created_at         DateTime64(6, 'UTC') CODEC(Delta, ZSTD),   -- of the order
    status             LowCardinality(String),
    carrier            LowCardinality(String),
    tracking_number    String,
    country            LowCardinality(String),
    line_ids           Array(String),
    skus               Array(String),
    quantities         Array(UInt32),                             -- in step with line_ids and skus
    attempts           UInt16,                                    -- deliveries that failed
    reshipped          Bool,
    estimated_delivery Nullable(Date),
    shipped_at         Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    delivered_at       Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    appended_at        DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    INDEX by_tracking_number tracking_number TYPE bloom_filter(0.001) GRANULARITY 4
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (created_at, order_id, shipment_id)
TTL toDateTime(appended_at) + INTERVAL 7 YEAR;

-- One row per line of a return.
CREATE TABLE IF NOT EXISTS oms.returns
(
    order_id        String,
    rma             String,
    line_id         String,
    version         UInt64,                                       -- of the order
    created_at      DateTime64(6, 'UTC') CODEC(Delta, ZSTD),      -- of the order
    status          LowCardinality(String),                       -- requested | approved | denied | expired | received | inspected | closed
    sku             String,
    quantity        UInt32,
    reason          LowCardinality(String),
    condition       LowCardinality(String),                       -- '' until it was inspected
    refund          Nullable(Int64),                              -- what is given back for it, once it was inspected
    restock         Nullable(Bool),
    exchange_sku    String,
    currency        LowCardinality(String),
    carrier         LowCardinality(String),
    tracking_number String,
    requested_at    DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    ended_at        Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),   -- closed, denied or expired
    appended_at     DateTime64(3, 'UTC') CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (created_at, order_id, rma, line_id)
TTL toDateTime(appended_at) + INTERVAL 7 YEAR;

-- One row per SKU and pool: what is there now. on_hand is what is free to sell.
CREATE TABLE IF NOT EXISTS oms.stock
(
    sku         String,
    pool        LowCardinality(String),
    version     UInt64,                                           -- of this SKU's books
    on_hand     Int64,
    reserved    Int64,
    shipped     Int64,
    changed_at  DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    appended_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (sku, pool);

-- One row per movement of stock, with what there is afterwards.
CREATE TABLE IF NOT EXISTS oms.stock_ledger
(
    sku            String,
    pool           LowCardinality(String),
    version        UInt64,                                        -- of this SKU's books: 1…n without a gap
    kind           LowCardinality(String),                        -- adjusted | reserved | released | committed | lost | restocked | written_off
    quantity       Int64,
    on_hand        Int64,
    reserved       Int64,
    shipped        Int64,
    reason         LowCardinality(String),
    order_id       String,
    line_id        String,
    actor          String CODEC(ZSTD),
    at             DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    correlation_id String CODEC(ZSTD),
    appended_at    DateTime64(3, 'UTC') CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree
ORDER BY (sku, pool, version)
TTL toDateTime(appended_at) + INTERVAL 7 YEAR;

-- One row per change that somebody made: of orders (every event), of stock (but for what orders reserve, give back and
-- ship, which their own events tell), of promotions (but for their uses). By time, to be searched by anything.
CREATE TABLE IF NOT EXISTS oms.audit
(
    id             String,
    at             DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    subject        LowCardinality(String),                        -- order | stock | promotion
    subject_id     String,                                        -- order id, sku#pool, promo code
    version        UInt64,                                        -- of an order or of a SKU's books, else 0
    actor          String,                                        -- customer:ID, staff:ID or system:PROCESS
    what           LowCardinality(String),
    why            String CODEC(ZSTD),                            -- the reason given, '' without one
    before         String CODEC(ZSTD),                            -- JSON, '' where nothing was replaced
    after          String CODEC(ZSTD),                            -- JSON
    correlation_id String CODEC(ZSTD),
    causation_id   String CODEC(ZSTD),
    appended_at    DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    INDEX by_subject subject_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX by_actor actor TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
ORDER BY (at, id)
TTL toDateTime(appended_at) + INTERVAL 7 YEAR
SETTINGS index_granularity = 1024;
