-- Grain: one row per row of the table that is in one of these buckets (fingerprints.sql). key: what it is about, as JSON;
-- appended_at: milliseconds; hash: of all columns but the excepted ones; cells: these as (column, value as JSON), if
-- they are wanted whole.
WITH
    tables_rows AS
    (
        SELECT arraySort(JSONExtractKeysAndValuesRaw(formatRowNoNewline('JSONEachRow', *))) AS all_cells, appended_at AS at
        FROM {database:Identifier}.{table:Identifier} FINAL
    ),
    placed AS
    (
        SELECT
            arrayFilter(cell -> has({identity:Array(String)}, cell.1), all_cells) AS identity,
            sipHash64(identity) % {buckets:UInt32} AS bucket,
            arrayFilter(cell -> NOT has({except:Array(String)}, cell.1), all_cells) AS kept,
            at
        FROM tables_rows
    )
SELECT
    identity.2 AS key,
    toUnixTimestamp64Milli(at) AS appended_at,
    sipHash64(kept) AS hash,
    if({whole:Bool}, kept, []) AS cells
FROM placed
WHERE has({wanted:Array(UInt32)}, bucket)
