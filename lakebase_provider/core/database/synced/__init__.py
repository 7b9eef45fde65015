"""What the workspace does not do about synced tables: their tables in Postgres, another mode or key."""
