-- Grain: one row per bucket. A row of the table is in the bucket that its identity says, so that it is in the same one
-- in another table. rows: how many there are; hash: of all their columns but the excepted ones, in whatever order.
WITH
    tables_rows AS
    (
        SELECT arraySort(JSONExtractKeysAndValuesRaw(formatRowNoNewline('JSONEachRow', *))) AS cells
        FROM {database:Identifier}.{table:Identifier} FINAL
    ),
    hashed AS
    (
        SELECT
            sipHash64(arrayFilter(cell -> has({identity:Array(String)}, cell.1), cells)) % {buckets:UInt32} AS bucket,
            sipHash64(arrayFilter(cell -> NOT has({except:Array(String)}, cell.1), cells)) AS hash
        FROM tables_rows
    )
SELECT bucket, count() AS rows, groupBitXor(hash) AS hash
FROM hashed
GROUP BY bucket
