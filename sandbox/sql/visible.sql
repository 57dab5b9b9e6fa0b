-- How many orders of one run's customers (their ids begin alike) the view shows, and how many of those are paid.
SELECT
    count()                              AS visible,
    countIf(status = 'PAYMENT_CONFIRMED') AS paid
FROM oms.customer_orders FINAL
WHERE startsWith(customer_id, {customers:String})
