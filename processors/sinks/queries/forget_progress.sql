-- How far this table had come.
DELETE FROM oms.sink_progress WHERE view = {view:String}
