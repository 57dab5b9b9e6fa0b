-- Who did what to what, the newest first, from a position (at, id) on. An empty filter filters nothing. Grain: one row per
-- change. All rows of a change are equal, so that the first will do: in the key's order, it stops when it has enough.
SELECT
    id, toUnixTimestamp64Micro(at) AS at_us, subject, subject_id, version, actor, what, why, before, after, correlation_id,
    causation_id
FROM oms.audit
WHERE at >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
  AND at < fromUnixTimestamp64Micro({to_us:Int64}, 'UTC')
  AND (at, id) < (fromUnixTimestamp64Micro({before_us:Int64}, 'UTC'), {before_id:String})
  AND ({subject:String} = '' OR subject = {subject:String})
  AND ({subject_id:String} = '' OR subject_id = {subject_id:String})
  AND ({actor:String} = '' OR actor = {actor:String})
  AND ({what:String} = '' OR what = {what:String})
ORDER BY at DESC, id DESC
LIMIT 1 BY at, id
LIMIT {limit:UInt32}
