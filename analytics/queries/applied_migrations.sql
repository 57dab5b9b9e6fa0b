SELECT name FROM oms.migrations FINAL ORDER BY name
