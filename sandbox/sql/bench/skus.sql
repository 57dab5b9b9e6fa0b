-- What was bought, most often first. Grain: one row per SKU.
SELECT sku
FROM oms.order_lines
GROUP BY sku
ORDER BY count() DESC, sku
