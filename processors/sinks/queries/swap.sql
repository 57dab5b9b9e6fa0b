-- The new table becomes the live one and the other way round, at once; a query sees one or the other.
EXCHANGE TABLES {database:Identifier}.{live:Identifier} AND {database:Identifier}.{new:Identifier}
