"""What whoever starts a local Lakebase and its server agree on."""
