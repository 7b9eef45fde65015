"""The staged check of a connection: whether the database is reachable, and well."""
