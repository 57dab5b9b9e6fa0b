-- Exceptions, the newest first, from a position (opened, exception id) on. An empty filter filters nothing.
-- Grain: one row per exception.
WITH
-- One row per message.
messages AS
(
    SELECT *
    FROM oms.exceptions FINAL
    WHERE {exception_id:String} = '' OR exception_id = {exception_id:String}
),
-- One row per exception: what the newest message of each sort says.
found AS
(
    SELECT
        exception_id,
        minIf(at, what = 'opened') AS opened_at,
        argMaxIf(order_id, version, what = 'opened') AS order_id,
        argMaxIf(kind, version, what = 'opened') AS kind,
        argMaxIf(owner, version, what = 'opened') AS owner,
        argMaxIf(detail, version, what = 'opened') AS detail,
        argMaxIf(facts, version, what = 'opened') AS facts,
        argMaxIf(retry_topic, version, what = 'opened') AS retry_topic,
        argMaxIf(retry_key, version, what = 'opened') AS retry_key,
        argMaxIf(retry, version, what = 'opened') AS retry,
        countIf(what = 'retried') AS retries,
        if(argMaxIf(what, version, what IN ('opened', 'resolved')) = 'resolved', 'resolved', 'open') AS status,
        argMaxIf(resolution, version, what = 'resolved') AS resolution,
        argMaxIf(actor, version, what = 'resolved') AS resolved_by,
        maxIf(at, what = 'resolved') AS resolved_at
    FROM messages
    GROUP BY exception_id
    HAVING countIf(what = 'opened') > 0
)
SELECT
    exception_id,
    toUnixTimestamp64Micro(opened_at) AS opened_us,
    order_id, kind, owner, detail, facts, retry_topic, retry_key, retry, retries, status, resolution, resolved_by,
    toUnixTimestamp64Micro(resolved_at) AS resolved_us
FROM found
WHERE (empty({statuses:Array(String)}) OR has({statuses:Array(String)}, status))
  AND (empty({kinds:Array(String)}) OR has({kinds:Array(String)}, kind))
  AND ({order_id:String} = '' OR order_id = {order_id:String})
  AND (opened_at, exception_id) < (fromUnixTimestamp64Micro({before_us:Int64}, 'UTC'), {before_id:String})
ORDER BY opened_at DESC, exception_id DESC
LIMIT {limit:UInt32}
