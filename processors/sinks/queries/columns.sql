-- Grain: one row. known: how many of these columns the table has.
SELECT count() AS known
FROM system.columns
WHERE database = {database:String} AND table = {table:String} AND has({columns:Array(String)}, name)
