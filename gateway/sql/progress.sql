-- How far the views of a ClickHouse have been filled.
-- Grain: one row per view, topic and partition that it has been filled from. offset: the next to read.
SELECT view, topic, partition, max(offset) AS offset
FROM oms.sink_progress
GROUP BY view, topic, partition
