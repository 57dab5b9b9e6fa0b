-- Grain: one row per row of the table that is in one of these buckets (fingerprints.sql). key: what it is about, as JSON;
-- milliseconds: since 1970, when it was appended; hash: of all columns but the excepted ones; cells: these as (column,
-- value as JSON), if they are wanted whole. Beside the star nothing may have the name of a column (`at` had): the star
-- then calls that one `table.at`, in each table otherwise.
WITH
    tables_rows AS
    (
        SELECT arraySort(JSONExtractKeysAndValuesRaw(formatRowNoNewline('JSONEachRow', *))) AS all_cells, appended_at
        FROM {database:Identifier}.{table:Identifier} FINAL
    ),
    placed AS
    (
        SELECT
            arrayFilter(cell -> has({identity:Array(String)}, cell.1), all_cells) AS identity,
            sipHash64(identity) % {buckets:UInt32} AS bucket,
            arrayFilter(cell -> NOT has({except:Array(String)}, cell.1), all_cells) AS kept,
            appended_at
        FROM tables_rows
    )
SELECT
    identity.2 AS key,
    toUnixTimestamp64Milli(appended_at) AS milliseconds,
    sipHash64(kept) AS hash,
    if({whole:Bool}, kept, []) AS cells
FROM placed
WHERE has({wanted:Array(UInt32)}, bucket)
