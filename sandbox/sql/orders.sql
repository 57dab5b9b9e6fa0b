-- Every order of the view, whole, as it is now.
SELECT document
FROM oms.orders FINAL
ORDER BY order_id
