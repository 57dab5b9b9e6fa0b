-- In how many parts the views' tables lie. Grain: one row per table.
SELECT table, count() AS parts
FROM system.parts
WHERE database = 'oms' AND active
GROUP BY table
ORDER BY table
