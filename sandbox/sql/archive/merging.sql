-- How many merges are under way in the views.
SELECT count() FROM system.merges WHERE database = 'oms'
