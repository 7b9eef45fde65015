"""The process that a local Lakebase is."""
