-- Grain: one row per partition that the view is made of. offset: everything before it is in the view.
SELECT topic, topic_id, partition, max(offset) AS offset
FROM oms.sink_progress
WHERE view = {view:String}
GROUP BY topic, topic_id, partition
