-- How many of everybody's orders match. Grain: one row.
SELECT count() AS orders
FROM oms.order_summaries FINAL
WHERE
-- include order_filters
