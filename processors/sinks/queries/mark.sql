-- This table is made by a rebuild. The mark stays with the table when its name changes.
ALTER TABLE {database:Identifier}.{table:Identifier} MODIFY COMMENT 'rebuild'
