-- Templates of the rows of each view, and how often and as what each life is to be copied. In a template's texts \x01
-- and the letter after it stand for what is of the copy: F the first 8 digits of its ids, N its number, C its customer,
-- Dnnnnn a day (counted from 1970) as many days later as the copy is.
-- No merges until all is in: they would take their time from it.
SYSTEM STOP MERGES;

DROP DATABASE IF EXISTS archive;

CREATE DATABASE archive;

CREATE TABLE archive.order_summaries AS oms.order_summaries ENGINE = MergeTree ORDER BY tuple();

CREATE TABLE archive.customer_orders AS oms.customer_orders ENGINE = MergeTree ORDER BY tuple();

CREATE TABLE archive.orders AS oms.orders ENGINE = MergeTree ORDER BY tuple();

CREATE TABLE archive.order_lines AS oms.order_lines ENGINE = MergeTree ORDER BY tuple();

CREATE TABLE archive.order_events AS oms.order_events ENGINE = MergeTree ORDER BY tuple();

CREATE TABLE archive.payments AS oms.payments ENGINE = MergeTree ORDER BY tuple();

CREATE TABLE archive.refunds AS oms.refunds ENGINE = MergeTree ORDER BY tuple();

CREATE TABLE archive.shipments AS oms.shipments ENGINE = MergeTree ORDER BY tuple();

CREATE TABLE archive.returns AS oms.returns ENGINE = MergeTree ORDER BY tuple();

CREATE TABLE archive.audit AS oms.audit ENGINE = MergeTree ORDER BY tuple();

-- One row per life. `weeks` is how many weeks ago it must have begun at least, to be over by now.
CREATE TABLE archive.lives
(
    ordinal  UInt32,
    life     String,                                              -- the order id in the templates
    finished Bool,
    weeks    UInt16
)
ENGINE = MergeTree ORDER BY ordinal;

-- One row per order of the archive.
CREATE TABLE archive.copies
(
    life        String,
    front       String,
    number      String,
    customer_id String,
    days        Int32                                             -- how many later than the life it is a copy of
)
ENGINE = MergeTree ORDER BY (days, life);
