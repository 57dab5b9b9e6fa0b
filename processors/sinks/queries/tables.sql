-- Grain: one row per table of the database with one of these names. comment: what `oms rebuild` says of it.
SELECT name, comment
FROM system.tables
WHERE database = {database:String} AND has({names:Array(String)}, name)
