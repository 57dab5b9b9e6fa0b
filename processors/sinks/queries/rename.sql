RENAME TABLE {database:Identifier}.{table:Identifier} TO {database:Identifier}.{name:Identifier}
