-- Grain: one row per view, topic id and partition that these views have been filled from. offset: the next to read.
SELECT view, topic_id, partition, max(offset) AS offset
FROM oms.sink_progress
WHERE has({views:Array(String)}, view) AND topic = {topic:String}
GROUP BY view, topic_id, partition
