-- Exceptions that wait for a person. Grain: one row per kind of which some are open, the oldest first. Unit: exceptions,
-- and the time (microseconds since 1970) when the oldest was opened.
WITH
    -- One row per exception: what the newest message says.
    found AS
    (
        SELECT
            exception_id,
            argMaxIf(kind, version, what = 'opened') AS kind,
            minIf(at, what = 'opened') AS opened_at,
            argMaxIf(what, version, what IN ('opened', 'resolved')) AS state
        FROM oms.exceptions FINAL
        GROUP BY exception_id
        HAVING countIf(what = 'opened') > 0
    )
SELECT
    kind,
    count() AS exceptions,
    toUnixTimestamp64Micro(min(opened_at)) AS oldest_us
FROM found
WHERE state = 'opened'
GROUP BY kind
ORDER BY oldest_us, kind
