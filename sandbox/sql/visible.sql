-- How many orders of one run's customers (their ids begin alike) the view shows, and how many of those were paid,
-- however far they have come since.
SELECT
    count()                                                                  AS visible,
    countIf(status NOT IN ('DRAFT', 'PENDING_PAYMENT', 'CANCELLED'))         AS paid
FROM oms.customer_orders FINAL
WHERE startsWith(customer_id, {customers:String})
