-- The rebuild that made this table is done.
ALTER TABLE {database:Identifier}.{table:Identifier} MODIFY COMMENT ''
