"""The real Postgres behind a local Lakebase."""
