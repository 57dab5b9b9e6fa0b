-- A table beside the live one, with its columns, keys and settings; none of its rows.
CREATE TABLE IF NOT EXISTS {database:Identifier}.{new:Identifier} AS {database:Identifier}.{live:Identifier}
