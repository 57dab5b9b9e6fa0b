-- One row per version of an order, of those that arrived from {from} to {to}.
INSERT INTO oms.customer_orders
WITH
-- include copied
SELECT
-- include order_columns
FROM archive.copies AS copies
INNER JOIN archive.customer_orders AS rows ON rows.order_id = copies.life
-- include arrived
