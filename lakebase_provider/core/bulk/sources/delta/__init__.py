"""Delta tables as sources of rows and of changes, and where such a table is."""
