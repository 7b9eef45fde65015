"""The process of a local Lakebase."""
