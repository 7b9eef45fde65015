"""Which table an asset is, and what the database knows of it."""
